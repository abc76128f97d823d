"""What messages of DNS say: RFC 1035. Anybody may have sent them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from gadget.kinds.base import Described
from gadget.kinds.numbers import Enum
from gadget.kinds.texts import Parsed
from gadget.text import escape

_ID, _HEADER = 2, 12  # bytes; messages come without their id
#: So many records of an answer are read.
_MOST = 64
_A, _CNAME, _AAAA, _IN = 1, 5, 28, 1
_NO_RCODE = 255
#: IANA, Resource Record (RR) TYPEs: those that are met.
_TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 35: "NAPTR", 43: "DS",
    46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 52: "TLSA", 64: "SVCB", 65: "HTTPS", 252: "AXFR", 255: "ANY", 257: "CAA",
}  # fmt: skip


class Message(NamedTuple):
    """A message's first question, and the addresses and names that it has as answers."""

    name: str
    type: str
    addresses: str
    cnames: str


@lru_cache(1024)
def read(data: bytes) -> Message:
    """Read a message behind its id; it may be cut. ValueError or LookupError if there is no question in it."""
    data = bytes(_ID) + data  # what points into it counts from there
    questions, answers = struct.unpack_from("!HH", data, 4)
    if not questions:
        return Message("", "", "", "")
    name, at = _name(data, _HEADER)
    (kind,) = struct.unpack_from("!H", data, at)
    at += 4
    addresses: list[str] = []
    cnames: list[str] = []
    try:
        for _ in range(questions - 1):
            at = _behind_name(data, at) + 4
        for _ in range(min(answers, _MOST)):
            at = _behind_name(data, at)
            of, group, _, length = struct.unpack_from("!HHIH", data, at)
            at += 10
            if at + length > len(data):
                raise ValueError("cut")
            if group == _IN and (of, length) in ((_A, 4), (_AAAA, 16)):
                family = socket.AF_INET if of == _A else socket.AF_INET6
                addresses.append(socket.inet_ntop(family, data[at : at + length]))
            elif group == _IN and of == _CNAME:
                cnames.append(_name(data, at)[0])
            at += length
        if answers > _MOST:
            addresses.append("…")
    except (ValueError, LookupError, struct.error):
        addresses.append("…")
    return Message(name, _TYPES.get(kind, f"TYPE{kind}"), ", ".join(addresses), ", ".join(cnames))


def _name(data: bytes, at: int) -> tuple[str, int]:
    """The name at a place, and where it ends there. A pointer leads back, so there is an end."""
    labels: list[str] = []
    end, limit = 0, at
    while data[at]:
        size = data[at]
        if size >> 6 == 3:
            target = (size & 0x3F) << 8 | data[at + 1]
            end = end or at + 2
            if target >= limit:
                raise ValueError("a pointer that does not lead back")
            at = limit = target
            continue
        if size >> 6:
            raise ValueError("no label")
        label = data[at + 1 : at + 1 + size]
        if len(label) < size:
            raise ValueError("cut")
        labels.append(_shown(label))
        at += 1 + size
        if len(labels) > 127:
            raise ValueError("a name of more labels than there can be")
    return ".".join(labels) or ".", end or at + 1


def _behind_name(data: bytes, at: int) -> int:
    while data[at]:
        if data[at] >> 6 == 3:
            return at + 2
        at += 1 + data[at]
    return at + 1


def _shown(label: bytes) -> str:
    r"""A label as zone files write it: what is no plain character is \DDD (RFC 1035, 5.1)."""
    if label.isalnum():
        return label.decode()
    return "".join(chr(byte) if 0x20 < byte < 0x7F and byte not in b".\\" else f"\\{byte:03d}" for byte in label)


class DnsName(Parsed):
    """A name that is asked for, in a message of DNS."""

    is_main = True
    usual = tight = 20

    def read(self, data: bytes) -> str:
        """Without the root's dot."""
        return read(data).name


class DnsType(Parsed):
    """The type of a question, in a message of DNS."""

    usual = tight = 5

    def read(self, data: bytes) -> str:
        """Its name, or TYPE65280 if it has none (RFC 3597)."""
        return read(data).type


class DnsAddresses(Parsed):
    """The addresses in an answer of DNS."""

    is_main = True

    def read(self, data: bytes) -> str:
        """With commas between them."""
        return read(data).addresses


class DnsCnames(Parsed):
    """The names in an answer of DNS that the name stands for."""

    def read(self, data: bytes) -> str:
        """With commas between them."""
        return read(data).cnames


class DnsRcode(Enum):
    """How a server answers, by the name of the code; none of a question."""

    usual = tight = 8

    def names(self, column: Described) -> Callable[[int], str | None]:
        """The name of a code, as IANA has it."""
        name = super().names(column)
        return lambda value: None if value == _NO_RCODE else name(value)

    def text(self, column: Described) -> Callable[[int], str]:
        """The name."""
        name = self.names(column)
        return lambda value: escape(name(value) or "-")


KINDS = (
    DnsRcode("dns_rcode"),
    DnsName("dns_name"),
    DnsType("dns_type"),
    DnsAddresses("dns_addresses"),
    DnsCnames("dns_cnames"),
)
