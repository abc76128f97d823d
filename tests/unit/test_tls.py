"""What snisnoop reads from hellos of TLS, whoever sent them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gadget import kinds
from tests import tls

FIELDS = ("name", "alpn", "version", "ech", "state")
USUAL = (tls.NAME, "h2", "TLS1.3", "no", "whole")


def read(data: bytes, *, cut: bool = False) -> tuple[Any, ...]:
    """All that is read of a hello."""
    source = SimpleNamespace(slices=lambda rows, mask: [data])
    rows = np.array([(cut,)], [("cut", "?")])
    return tuple(kinds.find(f"tls_{name}").decode(source, name, rows, None)[0] for name in FIELDS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "seen"),
    {
        "usual": (tls.hello(*tls.USUAL), USUAL),
        "large": (tls.LARGE, USUAL),
        "ECH": (tls.hello(*tls.ECH_TOO), (*USUAL[:3], "yes", "whole")),
        "no extensions": (tls.hello(version=tls.TLS10), ("", "", "TLS1.0", "no", "whole")),
        "no versions": (tls.hello(tls.alpn(b"h2", b"http/1.1")), ("", "h2, http/1.1", "TLS1.2", "no", "whole")),
        "SSL 3": (tls.hello(version=0x0300), ("", "", "SSL3.0", "no", "whole")),
        "of a draft": (tls.hello(tls.versions(0x7F1C)), ("", "", "0x7f1c", "no", "whole")),
        "of a draft, too": (tls.hello(tls.versions(0x7F1C, tls.TLS12)), ("", "", "TLS1.2", "no", "whole")),
        "only GREASE": (tls.hello(tls.versions(0xFAFA), tls.alpn(b"\x0a\x0a")), ("", "", "TLS1.2", "no", "whole")),
        "many records": (tls.records(tls.message(*tls.USUAL), *[1] * 60), USUAL),
    }.values(),
    ids=str,
)  # fmt: skip
def test_reads(data: bytes, seen: tuple[str, ...]) -> None:
    """A hello says its server's name, its protocols, its highest version and whether it has an encrypted one."""
    assert read(data) == seen
    assert read(data + b"\x17\3\3\0\1\0") == seen


def test_names_cannot_deceive() -> None:
    """A control character, a comma between protocols and what is no ASCII are shown as numbers."""
    data = tls.hello(tls.server_name(b"a\x1b[2J\xc3\xa4 \\"), tls.alpn(b"h2, h3", b"\xff"))
    assert read(data)[:2] == (r"a\027[2J\195\164\032\092", r"h2\044\032h3, \255")


def duplicated() -> bytes:
    return tls.hello(tls.server_name(b"good.example"), tls.server_name(b"evil.example"))


NONSENSE = {
    "an extension that is longer than all": (tls.MALFORMED, (tls.NAME, "", "", "no", "malformed")),
    "an extension twice": (duplicated(), ("good.example", "", "", "no", "malformed")),
    "a list that is longer than its extension": (
        tls.hello(tls.extension(tls.ALPN, b"\0\x09\2h2")), ("", "", "", "no", "malformed")),
    "a list that is shorter than its extension": (
        tls.hello(tls.extension(tls.VERSIONS, b"\2\3\4\3\3")), ("", "", "", "no", "malformed")),
    "half a version": (tls.hello(tls.extension(tls.VERSIONS, b"\1\3")), ("", "", "", "no", "malformed")),
    "bytes behind the extensions": (
        tls.records(b"\1" + tls.vector(3, tls.message(*tls.USUAL)[4:] + b"x")), ("", "", "", "no", "malformed")),
    "no session": (tls.records(b"\1" + tls.vector(3, bytes(20))), ("", "", "", "no", "malformed")),
    "another message": (tls.records(b"\2" + tls.message()[1:]), ("", "", "", "no", "malformed")),
    "an empty record": (b"\x16\3\1\0\0" + tls.hello(), ("", "", "", "no", "malformed")),
    "another record within": (
        tls.records(tls.message(*tls.USUAL), 105)[:110] + b"\x15\3\1\0\2\2\x28", (tls.NAME, "", "", "no", "malformed")),
    "nothing": (b"", ("", "", "", "no", "unfinished")),
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense(name: str) -> None:
    """A hello that contradicts itself is called malformed, with what could be read before."""
    data, seen = NONSENSE[name]
    assert read(data) == seen


def test_cut() -> None:
    """Of a hello of which the end is missing I see what was sent, and whether it was too long or not all sent."""
    data = tls.hello(*tls.USUAL)
    found = {read(data[:end]) for end in range(len(data))}
    assert {each[4] for each in found} == {"unfinished"}
    assert {each[0] for each in found} == {"", tls.NAME} and {each[2] for each in found} == {""}
    assert read(tls.TOO_LONG[: tls.KEPT], cut=True) == (*USUAL[:4], "too long")
    assert read(data, cut=True) == USUAL
    assert read(tls.MALFORMED, cut=True)[4] == "malformed"


EXTENSIONS = st.lists(
    st.one_of(
        st.sampled_from([*tls.USUAL, tls.extension(tls.ECH, b"x")]),
        st.builds(tls.extension, st.sampled_from([0, 16, 43, 0xFE0D, 7]), st.binary(max_size=20)),
    ),
    max_size=5,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(tls.records(tls.message(*draw(EXTENSIONS)), *draw(st.lists(st.integers(1, 80), max_size=5))))
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


@given(st.one_of(st.binary(max_size=600), damaged()), st.booleans())
@example(b"\x16\3\1\0\1\1" * 597, True)
@example(b"\x16\3\1\xff\xff\1\xff\xff\xff" + bytes(tls.KEPT - 9), True)
def test_whatever_comes(data: bytes, cut: bool) -> None:
    """Any bytes are read to an end, and what is shown is plain, and no longer than four times what was sent."""
    shown = read(data, cut=cut)
    assert shown[3] in ("yes", "no") and shown[4] in ("whole", "malformed", "too long", "unfinished")
    for text in shown:
        assert len(text) <= max(4 * len(data), 10)
        assert all(" " <= each <= "~" for each in text)


def capture(path: Path, hellos: list[bytes]) -> None:
    """A file of packets with a hello each, every one from a port of its own."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 16, 101))  # LINKTYPE_RAW
        for number, data in enumerate(hellos):
            address = bytes((10, 0, 0, 1, 10, 0, 0, 2))
            ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(data), number, 0, 64, 6, 0) + address
            packet = ip + struct.pack("!HHIIBBHHH", 1024 + number, 443, 1, 1, 0x50, 0x18, 512, 0, 0) + data
            file.write(struct.pack("<IIII", number, 0, len(packet), len(packet)) + packet)


def test_beside_tshark(tmp_path: Path) -> None:
    """Beside us, tshark reads the same names, protocols, versions and ECH from the same hellos."""
    if not shutil.which("tshark"):
        pytest.skip("there is no tshark to compare with")
    hellos = [
        tls.hello(*tls.USUAL), tls.LARGE, tls.hello(*tls.ECH_TOO), tls.hello(), tls.hello(version=tls.TLS10),
        tls.hello(tls.alpn(b"h2", b"http/1.1", b"zz")), tls.hello(tls.versions(0x8A8A, tls.TLS10, tls.TLS12)),
        tls.hello(tls.server_name(b"xn--mgba3a4f16a.example."), tls.versions(tls.TLS13)),
        tls.records(tls.message(*tls.USUAL), 60), tls.records(tls.message(*tls.ECH_TOO), 40, 90),
    ]  # fmt: skip
    capture(tmp_path / "hellos", hellos)
    wanted = (
        "version",
        "extensions_server_name",
        "extensions_alpn_str",
        "extensions.supported_version",
        "extension.type",
    )
    fields = [part for name in wanted for part in ("-e", f"tls.handshake.{name}")]
    command = ["tshark", "-r", str(tmp_path / "hellos"), "-T", "fields", "-E", "separator=|", *fields]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    theirs = []
    for line in out.splitlines():
        version, name, alpn, offered, types = line.split("|")
        protocols = [each for each in alpn.split(",") if each not in ("**", "zz")]  # which it does not leave out
        numbers = [int(each, 16) for each in (offered or version).split(",")]
        highest = max(number for number in numbers if number & 0x0F0F != 0x0A0A)
        theirs.append((name, ", ".join(filter(None, protocols)), highest, str(tls.ECH) in types.split(",")))
    numbers_of = {"TLS1.0": tls.TLS10, "TLS1.2": tls.TLS12, "TLS1.3": tls.TLS13}
    ours = [(name, alpn, numbers_of[version], ech == "yes") for name, alpn, version, ech, _ in map(read, hellos)]
    assert theirs == ours
