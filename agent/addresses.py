"""The IP addresses of containers, from their network namespaces: no runtime and no API server is asked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path

#: /proc/PID/net/fib_trie lists each route's prefix, then its kind; an address of one's own is a LOCAL host route
_OWN_IPV4 = re.compile(r"\|-- ([\d.]+)\n\s+/32 host LOCAL")


def first_pid(cgroup: Path) -> int:
    """A process in a cgroup or below it; 0 if there is none."""
    for folder, _, _ in os.walk(cgroup):
        with suppress(OSError, StopIteration):
            return int(next(iter((Path(folder) / "cgroup.procs").read_text().split())))
    return 0


def network_of(process: Path) -> str:
    """The network namespace of a process of /proc; empty if it cannot be told."""
    try:
        return os.readlink(process / "ns/net")
    except OSError:
        return ""


def addresses_of(process: Path) -> tuple[str, ...]:
    """The addresses that others can reach in the network namespace of a process of /proc."""
    return tuple(sorted({address for address in _addresses(process) if _reachable(address)}))


def _addresses(process: Path) -> Iterator[str]:
    with suppress(OSError):
        yield from _OWN_IPV4.findall((process / "net/fib_trie").read_text())
    with suppress(OSError):
        for line in (process / "net/if_inet6").read_text().splitlines():
            yield str(IPv6Address(bytes.fromhex(line.split()[0])))


def _reachable(address: str) -> bool:
    parsed = ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local)
