"""What dnssnoop reads from messages of DNS, whoever sent them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gadget import kinds

NAME, TYPE, ADDRESSES, CNAMES = (kinds.find(f"dns_{name}") for name in ("name", "type", "addresses", "cnames"))
A, CNAME, AAAA = 1, 5, 28
HEAD = struct.Struct("!HHHHH")  # without the id


def read(kind: kinds.Kind, data: bytes) -> Any:
    class Rows:
        def slices(self, where: object, mask: object) -> list[bytes]:
            return [data]

    (value,) = kind.decode(Rows(), "", None, None)  # type: ignore[arg-type]
    return value


def message(name: bytes, kind: int, *records: tuple[int, bytes], flags: int = 0x8180) -> bytes:
    said = b"".join(struct.pack("!HHHIH", 0xC00C, of, 1, 60, len(data)) + data for of, data in records)
    return HEAD.pack(flags, 1, len(records), 0, 0) + name + struct.pack("!HH", kind, 1) + said


WWW = b"\3www\7example\3com\0"
FOUR, SIX = bytes([10, 0, 0, 1]), bytes([0xFD, *bytes(14), 1])


def test_reads() -> None:
    """A message says its name, its type and its addresses, also those behind other names."""
    data = message(WWW, A, (CNAME, b"\1x\xc0\x10"), (A, FOUR), (AAAA, SIX))
    assert (read(NAME, data), read(TYPE, data), read(ADDRESSES, data)) == ("www.example.com", "A", "10.0.0.1, fd00::1")
    assert read(CNAMES, data) == "x.example.com"
    assert read(NAME, message(b"\0", 2)) == "."
    assert read(TYPE, message(WWW, 65280)) == "TYPE65280"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"\3a.b\0", r"a\046b"),
        (b"\5\x1b[2J\\\0", r"\027[2J\092"),
        (b"\2\xc3\xa4\0", r"\195\164"),
        (b"\4_dns\3a-b\0", "_dns.a-b"),
    ],
)
def test_names_cannot_deceive(name: bytes, shown: str) -> None:
    """A dot, a control character and what is no ASCII in a name are shown as numbers."""
    assert read(NAME, message(name, A)) == shown


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD.pack(0, 0, 0, 0, 0),
        message(b"\xc0\x0c", A),  # to itself
        message(b"\1a\xc0\x20" + bytes(30), A),  # forwards
        message(b"\x80\0", A),
        message(b"\1a" * 200 + b"\0", A),
        HEAD.pack(0, 1, 0, 0, 0) + b"\x3fcut",
    ],
)
def test_nonsense(data: bytes) -> None:
    """What is no message has no name and no addresses."""
    assert (read(NAME, data), read(ADDRESSES, data)) == ("", "")


def test_cut() -> None:
    """Of an answer that was cut, the addresses that are there are shown, and that there were more."""
    whole = message(WWW, A, (A, FOUR), (A, FOUR))
    assert read(ADDRESSES, whole[:-1]) == "10.0.0.1, …"
    assert read(ADDRESSES, message(WWW, A, *[(A, FOUR)] * 65)).count("10.0.0.1") == 64


@given(st.binary(max_size=600) | st.binary(max_size=90).map(lambda data: message(data, A, (A, FOUR))))
@example(b"\0" * 512)
def test_whatever_comes(data: bytes) -> None:
    """Any bytes are read to an end, and what is shown is short and plain."""
    for kind in (NAME, TYPE, ADDRESSES):
        text = read(kind, data)
        assert len(text) <= 64 * 41
        assert all(" " <= each <= "~" or each == "…" for each in text)
