"""The ends of connections, and the names of pods, services and nodes at them."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple


class Owner(NamedTuple):
    """The owner of an address. kind is pod, svc, node, container (without Kubernetes) or raw: not known."""

    kind: str
    namespace: str
    name: str


RAW = Owner("raw", "", "")
#: The field that is the end of the process itself, and so of the row's own container: gadget_endpoint in fields.h.
OWN_END = "src"


def name_of(namespace: str, pod: str, container: str, container_id: str) -> Owner:
    """The name of a container's end of a connection; RAW if the container has no name."""
    if pod:
        return Owner("pod", namespace, pod)
    if container or container_id:
        return Owner("container", "", container or container_id[:12])
    return RAW


@lru_cache(16_384)
def is_everybodys(packed: bytes) -> bool:
    """Whether every network has this address of 16 bytes for itself, such as loopback."""
    address = IPv6Address(packed)
    plain = address.ipv4_mapped or address
    return plain.is_loopback or plain.is_unspecified or plain.is_link_local


class Endpoint(NamedTuple):
    """An address and a port, with the name of the owner."""

    addr: str
    port: int
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        if self.kind == RAW.kind:
            host = f"[{self.addr}]" if ":" in self.addr and self.port else self.addr
        else:
            host = "/".join(part for part in (self.kind, self.namespace, self.name) if part)
        return f"{host}:{self.port}" if self.port else host


NOWHERE = Endpoint("", 0, RAW.kind, "", "")


@lru_cache(16_384)
def show_address(packed: bytes) -> str:
    """An address of 16 bytes as text; ::ffff:a.b.c.d is IPv4."""
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address)


_MAPPED = bytes(10) + b"\xff\xff"


def unmapped(address: bytes) -> bytes:
    """An address of 4 or 16 bytes, one of IPv4 by its 4."""
    return address.removeprefix(_MAPPED)


#: Addresses that stand for any. Without a port, they mean that the end is not known.
UNSPECIFIED = frozenset({bytes(16), IPv6Address("::ffff:0.0.0.0").packed})
