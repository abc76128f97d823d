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
TRUNCATED = 0x0200


def read(kind: kinds.Kind, data: bytes) -> Any:
    class Rows:
        def slices(self, where: object, mask: object) -> list[bytes]:
            return [data]

    (value,) = kind.decode(Rows(), "", None, None)  # type: ignore[arg-type]
    return value


def with_length(data: bytes) -> bytes:
    """A message that was read as a whole, in place of whose id is its length."""
    return struct.pack("!H", len(data) + 2) + data


def message(name: bytes, kind: int, *records: tuple[int, bytes], flags: int = 0x8180) -> bytes:
    said = b"".join(struct.pack("!HHHIH", 0xC00C, of, 1, 60, len(data)) + data for of, data in records)
    return with_length(HEAD.pack(flags, 1, len(records), 0, 0) + name + struct.pack("!HH", kind, 1) + said)


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
        with_length(b""),
        message(b"\xc0\x0c", A),  # to itself
        message(b"\xc0\x02", A),  # into the header
        message(b"\1a\xc0\x20" + bytes(30), A),  # forwards
        message(b"\x80\0", A),
        message(b"\1a" * 127 + b"\1a\0", A),
        message(b"\x3e" + b"a" * 62 + (b"\x3f" + b"a" * 63) * 3 + b"\0", A),
        with_length(HEAD.pack(0, 1, 0, 0, 0) + b"\x3fcut"),
        with_length(HEAD.pack(0, 1, 0, 0, 0) + b"\1a\0\0\1\0"),
        with_length(HEAD.pack(0, 1, 0, 0, 0)),
    ],
)
def test_nonsense(data: bytes) -> None:
    """What is no message is told as malformed, and has no name and no addresses."""
    assert (read(NAME, data), read(TYPE, data), read(ADDRESSES, data)) == ("", "malformed", "")


@pytest.mark.parametrize("data", [b"", with_length(HEAD.pack(0x8181, 0, 0, 0, 0))])
def test_no_question(data: bytes) -> None:
    """A message without a question, as servers answer what they do not understand, is not malformed."""
    assert (read(NAME, data), read(TYPE, data), read(ADDRESSES, data)) == ("", "", "")


def test_longest_name() -> None:
    """A name may be as long as names can be."""
    name = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0"
    assert len(name) == 255
    assert len(read(NAME, message(name, A))) == 253
    assert read(NAME, message(b"\1a" * 127 + b"\0", A)) == ".".join("a" * 127)


WHOLE = message(WWW, A, (A, FOUR), (A, FOUR))


def test_cut() -> None:
    """Of an answer that was cut, the addresses that are there are shown, and that there were more."""
    assert read(ADDRESSES, WHOLE[:-1]) == "10.0.0.1, …"
    assert read(ADDRESSES, message(WWW, A, *[(A, FOUR)] * 65)).count("10.0.0.1") == 64
    assert read(ADDRESSES, message(WWW, A, (A, FOUR), flags=0x8180 | TRUNCATED)) == "10.0.0.1, …"
    assert (read(NAME, WHOLE[:14]), read(TYPE, WHOLE[:14])) == ("", "")  # a segment of TCP that ends in the name


@pytest.mark.parametrize(
    "data",
    [
        with_length(WHOLE[2:-1]),
        message(WWW, A, (A, FOUR), (A, FOUR[:3])),
        message(WWW, A, (A, FOUR), (AAAA, FOUR)),
        message(WWW, A, (A, FOUR), (CNAME, b"\xc0\xff")),
        with_length(HEAD.pack(0x8180, 1, 2, 0, 0) + WHOLE[12:-16] + b"\x40" + bytes(40)),
    ],
)
def test_nonsense_behind_answers(data: bytes) -> None:
    """Of an answer that makes no sense from some place on, what is before is shown, and that it is malformed."""
    assert (read(NAME, data), read(TYPE, data), read(ADDRESSES, data)) == (
        "www.example.com",
        "A",
        "10.0.0.1, malformed",
    )


@given(st.binary(max_size=600) | st.binary(max_size=90).map(lambda data: message(data, A, (A, FOUR))))
@example(b"\0" * 512)
def test_whatever_comes(data: bytes) -> None:
    """Any bytes are read to an end, and what is shown is short and plain."""
    for kind in (NAME, TYPE, ADDRESSES):
        text = read(kind, data)
        assert len(text) <= 64 * 41
        assert all(" " <= each <= "~" or each == "…" for each in text)
