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

_ID, _HEADER = 2, 12  # bytes
_TRUNCATED = 2  # of the byte behind the id
#: What is raised where the bytes end.
_OVER = (LookupError, struct.error)
#: So many records of an answer are read.
_MOST = 64
_A, _CNAME, _AAAA, _IN = 1, 5, 28, 1
_NO_RCODE = 65535
#: IANA, Resource Record (RR) TYPEs: those that are met.
_TYPES = {
    1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 35: "NAPTR", 43: "DS",
    46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 52: "TLSA", 64: "SVCB", 65: "HTTPS", 252: "AXFR", 255: "ANY", 257: "CAA",
}  # fmt: skip


#: What is said of what makes no sense, and of an answer with more than could be read of it.
_MALFORMED, _MORE = "malformed", "…"
#: A name's bytes, with the lengths of its labels: RFC 1035, 2.3.4.
_LONGEST_NAME = 255


class Message(NamedTuple):
    """A message's first question, and the addresses and names that it has as answers.

    records are the addresses that could be read, of 4 or 16 bytes, each with the seconds that it holds.
    """

    name: str
    type: str
    addresses: str = ""
    cnames: str = ""
    records: tuple[tuple[bytes, int], ...] = ()


@lru_cache(1024)
def read(data: bytes) -> Message:
    """Read a message, which has the length of the whole message in place of its id. It may be cut, or no message."""
    if not data:
        return Message("", "")
    whole = int.from_bytes(data[:_ID], "big")
    behind = _MORE if len(data) < whole else _MALFORMED  # what it means that there are no further bytes
    try:
        questions, answers = struct.unpack_from("!HH", data, 4)
        if not questions:
            return Message("", "")
        name, at = _name(data, _HEADER)
        kind, _ = struct.unpack_from("!HH", data, at)
    except ValueError:
        return Message("", _MALFORMED)
    except _OVER:
        return Message("", _MALFORMED if behind == _MALFORMED else "")
    records: list[tuple[bytes, int]] = []
    cnames: list[str] = []
    end = []
    try:
        _answers(data, at + 4, questions, answers, records, cnames)
        if answers > _MOST or data[2] & _TRUNCATED:
            end = [_MORE]
    except ValueError:
        end = [_MALFORMED]
    except _OVER:
        end = [_MORE if data[2] & _TRUNCATED else behind]
    addresses = ", ".join([*(_shown_address(address) for address, _ in records), *end])
    return Message(name, _TYPES.get(kind, f"TYPE{kind}"), addresses, ", ".join(cnames), tuple(records))


def _shown_address(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)


def _answers(
    data: bytes, at: int, questions: int, answers: int, records: list[tuple[bytes, int]], cnames: list[str]
) -> None:
    """Add what the answers say, from behind the first question on. ValueError, or one of _OVER, where that ends."""
    for _ in range(questions - 1):
        at = _behind_name(data, at) + 4
    for _ in range(min(answers, _MOST)):
        at = _behind_name(data, at)
        of, group, seconds, length = struct.unpack_from("!HHIH", data, at)
        at += 10
        if at + length > len(data):
            raise IndexError
        if group == _IN and of in (_A, _AAAA):
            if length != (4 if of == _A else 16):
                raise ValueError("no address")
            records.append((data[at : at + length], seconds))
        elif group == _IN and of == _CNAME:
            cnames.append(_name(data, at)[0])
        at += length


def _name(data: bytes, at: int) -> tuple[str, int]:
    """The name at a place, and where it ends there. A pointer leads back, so there is an end."""
    labels: list[str] = []
    end, limit, left = 0, at, _LONGEST_NAME - 1
    while size := data[at]:
        if size >> 6 == 3:
            target = (size & 0x3F) << 8 | data[at + 1]
            end = end or at + 2
            if not _HEADER <= target < limit:
                raise ValueError("a pointer that does not lead back")
            at = limit = target
            continue
        if size >> 6:
            raise ValueError("no label")
        left -= 1 + size
        if left < 0:
            raise ValueError("a name that is too long")
        label = data[at + 1 : at + 1 + size]
        if len(label) < size:
            raise IndexError
        labels.append(_shown(label))
        at += 1 + size
    return ".".join(labels) or ".", end or at + 1


def _behind_name(data: bytes, at: int) -> int:
    while size := data[at]:
        if size >> 6 == 3:
            return at + 2
        if size >> 6:
            raise ValueError("no label")
        at += 1 + size
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
        """Its name, TYPE65280 if it has none (RFC 3597), malformed if the question makes no sense."""
        return read(data).type


class DnsAddresses(Parsed):
    """The addresses in an answer of DNS."""

    is_main = True
    usual = tight = 15  # one of IPv4

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


KINDS = (
    DnsRcode("dns_rcode"),
    DnsName("dns_name"),
    DnsType("dns_type"),
    DnsAddresses("dns_addresses"),
    DnsCnames("dns_cnames"),
)
