"""The IP addresses of a network namespace, asked of the kernel by rtnetlink(7): any number of routes costs nothing."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_RTM_GETADDR, _RTM_NEWADDR = 22, 20  # linux/rtnetlink.h
_NLM_F_REQUEST, _NLM_F_DUMP = 1, 0x300  # linux/netlink.h
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2  # linux/if_addr.h
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_MESSAGE = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr
#: The kernel's messages are no longer (netlink_recvmsg).
_CHUNK = 32 << 10
#: How much is read of a namespace: 3,000 addresses. A container with more hides the others only from us.
MOST_BYTES = 256 << 10
#: How many addresses are kept.
MOST = 64

_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: int) -> None:
    """Put the calling thread into a network namespace, by its descriptor. OSError if that is not allowed."""
    if _libc.setns(namespace, _CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def own_addresses(seconds: float) -> tuple[str, ...]:
    """Addresses in the calling thread's network namespace that others can reach, in the order of its interfaces.

    OSError if the kernel does not tell them in so many seconds.
    """
    until = time.monotonic() + seconds
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asked:
        asked.settimeout(seconds)
        body = _MESSAGE.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        asked.send(_HEADER.pack(_HEADER.size + len(body), _RTM_GETADDR, _NLM_F_REQUEST | _NLM_F_DUMP, 1, 0) + body)
        found: dict[str, None] = {}
        left = MOST_BYTES
        while left > 0:
            data = asked.recv(_CHUNK)
            left -= len(data)
            for kind, message in _messages(data):
                if kind == _NLMSG_DONE:
                    return tuple(found)
                if kind == _NLMSG_ERROR:
                    code = -int.from_bytes(message[:4], "little", signed=True)
                    raise OSError(code, os.strerror(code))
                if kind == _RTM_NEWADDR and (address := _address(message)) and is_reachable(address):
                    found[address] = None
            if len(found) >= MOST or time.monotonic() > until:
                break
        return tuple(found)[:MOST]


def is_reachable(address: str) -> bool:
    """Whether others may be reached by an address."""
    parsed = ip_address(address)
    return not (parsed.is_loopback or parsed.is_link_local)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each message."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += -(-length // 4) * 4


def _address(message: bytes) -> str:
    """The address of a struct ifaddrmsg and what follows it: its own end, where a link has two."""
    family, found = message[0], {}
    at = _MESSAGE.size
    while at + _ATTRIBUTE.size <= len(message):
        length, kind = _ATTRIBUTE.unpack_from(message, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = message[at + _ATTRIBUTE.size : at + length]
        at += -(-length // 4) * 4
    value = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS) or b""
    if family == socket.AF_INET and len(value) == 4:
        return str(IPv4Address(value))
    return str(IPv6Address(value)) if family == socket.AF_INET6 and len(value) == 16 else ""
