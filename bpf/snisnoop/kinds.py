"""What a ClientHello of TLS says: RFC 8446, and RFC 5246 for older versions. Anybody may have sent it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gadget.kinds.base import Described
from gadget.kinds.texts import Parsed

if TYPE_CHECKING:
    from gadget.kinds.base import Mask, Rows, Source

_HANDSHAKE, _HELLO, _MAJOR = 22, 1, 3
_RANDOM = 32
#: IANA, TLS ExtensionType Values.
_SERVER_NAME, _ALPN, _VERSIONS, _ECH = 0, 16, 43, 0xFE0D
_HOST_NAME = 0
_NAMES = {0x0300: "SSL3.0", 0x0301: "TLS1.0", 0x0302: "TLS1.1", 0x0303: "TLS1.2", 0x0304: "TLS1.3"}
#: RFC 8701: versions and protocols that are only to keep servers flexible.
_GREASE = frozenset(bytes([byte, byte]) for byte in range(0x0A, 0x100, 0x10))
WHOLE, MALFORMED, TOO_LONG, UNFINISHED = "whole", "malformed", "too long", "unfinished"


class _Malformed(ValueError):
    """It contradicts itself."""


class _Unfinished(ValueError):
    """There is less than it says."""


class _Bytes:
    """Bytes that are read from the front. lacks: what it means that there are no more; None if these are all."""

    def __init__(self, data: bytes, lacks: type[ValueError] | None = None) -> None:
        self._data, self._at, self.lacks = data, 0, lacks

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """The next bytes."""
        end = self._at + size
        if end > len(self._data):
            raise self.lacks or _Malformed
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        """A number of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> _Bytes:
        """The bytes behind their length, which is a number of so many bytes."""
        return _Bytes(self.take(self.number(size)))

    def last_vector(self, size: int) -> _Bytes:
        """The same where nothing may follow; of these bytes some may be missing."""
        length, left = self.number(size), len(self._data) - self._at
        if length < left or (length > left and not self.lacks):
            raise _Malformed
        return _Bytes(self.take(left), self.lacks if length > left else None)

    def at_most(self, size: int) -> bytes:
        """The next bytes, or as many as there are."""
        return self.take(min(size, len(self._data) - self._at))


@lru_cache(1024)
def read(data: bytes) -> Mapping[str, str]:
    """Read records with a hello: name, alpn, version, ech, and as state WHOLE, MALFORMED or UNFINISHED."""
    said = {"name": "", "alpn": "", "version": "", "ech": "no", "state": WHOLE}
    try:
        _fill(said, _joined(_Bytes(data, _Unfinished)))
    except _Unfinished:
        said["state"] = UNFINISHED
    except _Malformed:
        said["state"] = MALFORMED
    return said


def _joined(records: _Bytes) -> _Bytes:
    """A hello without the headers of records. Each record has some bytes of it, so there is an end."""
    found = bytearray()
    try:
        while len(found) < 4 or len(found) < 4 + int.from_bytes(found[1:4], "big"):
            kind, major, _ = records.take(3)
            size = records.number(2)
            if kind != _HANDSHAKE or major != _MAJOR or not size:
                raise _Malformed
            part = records.at_most(size)
            found += part
            if len(part) < size:
                raise _Unfinished
    except ValueError as error:
        enough = len(found) >= 4 and len(found) >= 4 + int.from_bytes(found[1:4], "big")
        return _Bytes(bytes(found), None if enough else type(error))
    return _Bytes(bytes(found))


def _fill(said: dict[str, str], hello: _Bytes) -> None:
    """Say what a hello says, as far as it can be read."""
    if hello.number(1) != _HELLO:
        raise _Malformed
    size = hello.number(3)
    body = _Bytes(hello.at_most(size), hello.lacks)
    version = body.number(2)
    body.take(_RANDOM)
    body.vector(1)  # session
    body.vector(2)  # ciphers
    body.vector(1)  # compression
    seen = set()
    extensions = body.last_vector(2) if body or body.lacks else body
    while extensions or extensions.lacks:
        kind = extensions.number(2)
        if kind in seen:
            raise _Malformed
        seen.add(kind)
        _read_extension(said, kind, extensions.vector(2))
    said["version"] = said["version"] or _version([version])


def _read_extension(said: dict[str, str], kind: int, content: _Bytes) -> None:
    if kind == _ECH:
        said["ech"] = "yes"
    elif kind == _SERVER_NAME:
        names = content.last_vector(2)
        while names:
            of, name = names.number(1), names.take(names.number(2))
            if of == _HOST_NAME and not said["name"]:
                said["name"] = _shown(name, b"\\")
    elif kind == _ALPN:
        protocols, texts = content.last_vector(2), []
        while protocols:
            text = protocols.take(protocols.number(1))
            if text not in _GREASE:
                texts.append(_shown(text, b"\\,"))
        said["alpn"] = ", ".join(texts)
    elif kind == _VERSIONS:
        versions, numbers = content.last_vector(1), []
        while versions:
            number = versions.take(2)
            if number not in _GREASE:
                numbers.append(int.from_bytes(number, "big"))
        said["version"] = _version(numbers)


def _version(offered: Sequence[int]) -> str:
    """The highest version that has a name; one of a draft has none."""
    highest = max([number for number in offered if number in _NAMES] or offered, default=None)
    return "" if highest is None else _NAMES.get(highest, f"0x{highest:04x}")


def _shown(text: bytes, special: bytes) -> str:
    r"""Text as zone files write it: what is no plain character is \DDD (RFC 1035, 5.1)."""
    return "".join(chr(byte) if 0x20 < byte < 0x7F and byte not in special else f"\\{byte:03d}" for byte in text)


class TlsName(Parsed):
    """The server's name in a hello."""

    is_main = True
    usual = tight = 20

    def read(self, data: bytes) -> str:
        """As it was sent."""
        return read(data)["name"]


class TlsAlpn(Parsed):
    """The protocols that a hello offers."""

    usual = tight = 8

    def read(self, data: bytes) -> str:
        """With commas between them."""
        return read(data)["alpn"]


class TlsVersion(Parsed):
    """The highest version that a hello offers."""

    usual = tight = 6

    def read(self, data: bytes) -> str:
        """Its name, or 0x7f1c if it has none."""
        return read(data)["version"]

    def words(self, column: Described) -> Sequence[str]:
        """Those that have names."""
        return tuple(_NAMES.values())


class TlsEch(Parsed):
    """Whether an encrypted hello is in a hello."""

    def read(self, data: bytes) -> str:
        """As a word."""
        return read(data)["ech"]

    def words(self, column: Described) -> Sequence[str]:
        """Both."""
        return ("yes", "no")


class TlsState(Parsed):
    """What became of a hello."""

    usual = tight = 10
    parts: dict[str, str] = {**Parsed.parts, "cut": "bool"}  # noqa: RUF012

    def read(self, data: bytes) -> str:
        """Of one that was not cut."""
        return read(data)["state"]

    def decode(self, source: Source, name: str, rows: Rows, mask: Mask) -> list[Any]:
        """Of one that was cut, the rest is not missing for want of being sent."""
        states = zip(super().decode(source, name, rows, mask), rows["cut"].tolist(), strict=True)
        return [TOO_LONG if cut and state == UNFINISHED else state for state, cut in states]

    def words(self, column: Described) -> Sequence[str]:
        """All of them."""
        return (WHOLE, MALFORMED, TOO_LONG, UNFINISHED)


KINDS = (
    TlsName("tls_name"),
    TlsAlpn("tls_alpn"),
    TlsVersion("tls_version"),
    TlsEch("tls_ech"),
    TlsState("tls_state"),
)
