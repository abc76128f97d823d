"""Text: names, paths and arguments."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from gadget.errors import UsageError
from gadget.kinds.base import NONE, Compared, Cut, Described, Encoding, Kind, ParameterRoom, Source, Wanted, nothing
from gadget.text import escape, quote

if TYPE_CHECKING:
    from gadget.kinds.base import Mask, Rows

#: A name of a process has so many bytes: TASK_COMM_LEN of linux/sched.h, less the zero.
_COMM_BYTES = 15
_SLICE = {"offset": "int", "length": "int"}


@lru_cache(4096)
def decode_text(data: bytes) -> str:
    r"""Text from bytes of a process. A byte that is not UTF-8 becomes \xNN."""
    return data.decode("utf-8", "backslashreplace")


class CutArgs(list[str]):
    """Arguments that were cut: others followed them. If last_too, the last one was cut as well."""

    def __init__(self, kept: list[str], *, last_too: bool) -> None:
        """Those that were kept."""
        super().__init__(kept)
        self.last_too = last_too

    def __eq__(self, other: object) -> bool:
        """Whether they are the same, and cut in the same way."""
        return isinstance(other, CutArgs) and self.last_too == other.last_too and super().__eq__(other)

    __hash__ = None


class Plain(Kind):
    """Any text, as a column has it."""

    is_text = True
    cut = Cut.MIDDLE
    compared = Compared.TEXTS

    def text(self, column: Described) -> Callable[[Any], str]:
        """The text, without control characters; `-` if it is empty."""
        return lambda value: escape(value) or NONE


class Identity(Plain):
    """A name that an agent gives; null in JSON if it is empty."""

    in_events = False
    considered = 24
    encoding = Encoding.DISTINCT

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """Null if it is empty."""
        return {column.name: lambda value: value or None}


class ShortId(Kind):
    """The id of a container. A column shows its beginning."""

    in_events = False

    def text(self, column: Described) -> Callable[[Any], str]:
        """As runtimes show them."""
        return lambda value: escape(value[:12]) or NONE


class Chars(Kind):
    """Bytes, part of something else."""

    in_events = False
    cut = Cut.MIDDLE

    def fits(self, size: int) -> bool:
        """As many as there are."""
        return True

    def format(self, size: int, *, signed: bool) -> str:
        """Of numpy."""
        return f"S{size}"


class Comm(Plain):
    """The name of a thread."""

    shape = "text"
    repeats = is_few = True
    encoding = Encoding.DISTINCT
    usual, tight, considered = 12, 8, 16

    def fits(self, size: int) -> bool:
        """As many as there are."""
        return True

    def format(self, size: int, *, signed: bool) -> str:
        """Of numpy."""
        return f"S{size}"

    def decode(self, source: Source, name: str, rows: Rows, mask: Mask) -> list[Any]:
        """Once, if all are the same."""
        if len(rows) and (rows == rows[0]).all():
            return [decode_text(rows[0].tobytes().rstrip(b"\0"))] * len(rows)
        return [decode_text(value) for value in rows.tolist()]

    def text(self, column: Described) -> Callable[[Any], str]:
        """The text, without control characters; `-` if there is none, `?` if it is not known."""
        return lambda value: escape(value) or nothing(column)

    def matcher(self, column: Described, wanted: Wanted) -> Callable[[Any], bool]:
        """UsageError if it is longer than any name."""
        text = wanted.text.encode()
        if not wanted.has_pattern and len(text) > _COMM_BYTES:
            cut = text[:_COMM_BYTES].decode(errors="ignore")
            most = f"{column.name} has at most {_COMM_BYTES} bytes"
            raise UsageError(f"--filter: {most}: {wanted.text!r} is seen as {cut!r}")
        return wanted.same

    @property
    def metavar(self) -> str:
        """What help calls it."""
        return "name"

    def pack(self, text: str, to: ParameterRoom) -> bytes:
        """With a zero behind it."""
        return _pack(text, to.size)


class Name(Comm):
    """The name of a thing that the kernel names, such as a disk."""

    usual, tight = 8, 6

    def matcher(self, column: Described, wanted: Wanted) -> Callable[[Any], bool]:
        """Whether it is the name."""
        return wanted.same


class String(Plain):
    """The text of a parameter."""

    in_events = False

    def pack(self, text: str, to: ParameterRoom) -> bytes:
        """With a zero behind it."""
        return _pack(text, to.size)


def _pack(text: str, size: int) -> bytes:
    data = text.encode()
    if len(data) >= size:
        raise ValueError(f"at most {size - 1} bytes, as the kernel keeps no more")
    return data.ljust(size, b"\0")


class Text(Plain):
    """Text of any length, in the tail of a record."""

    parts = _SLICE
    shape = "text"
    is_main = True
    cut = Cut.END
    usual = tight = 20
    encoding = Encoding.STRINGS

    def decode(self, source: Source, name: str, rows: Rows, mask: Mask) -> list[Any]:
        """From the tail."""
        return [decode_text(text) for text in source.slices(rows, mask)]


class Word(Text):
    """A short text, as the type of a file system."""

    is_main = False
    usual = tight = 8


class Parsed(Text):
    """Text that the decoder of a gadget makes of the bytes that it finds, of each distinct value once."""

    is_main = False
    usual = tight = 0

    def __init__(self, name: str) -> None:
        """A kind of that name."""
        super().__init__(name)
        self._parsed = lru_cache(1024)(self._parse)

    def read(self, data: bytes) -> str:
        """The text. Anybody may have sent the data: ValueError, LookupError or struct.error if it makes no sense."""
        raise NotImplementedError

    def decode(self, source: Source, name: str, rows: Rows, mask: Mask) -> list[Any]:
        """Empty if the data makes no sense."""
        return list(map(self._parsed, source.slices(rows, mask)))

    def _parse(self, data: bytes) -> str:
        try:
            return self.read(data)
        except (ValueError, LookupError, struct.error):
            return ""


class Args(Kind):
    """The arguments of a program."""

    parts = _SLICE
    shape = "args"
    is_key = False
    is_main = True
    cut = Cut.END
    encoding = Encoding.ANY
    compared = Compared.TEXTS

    def decode(self, source: Source, name: str, rows: Rows, mask: Mask) -> list[Any]:
        """Each ends with a zero; NAME_truncated tells where there were more."""
        texts = source.slices(rows, mask)
        found: list[Any] = [decode_text(text).removesuffix("\0").split("\0") if text else [] for text in texts]
        for row in source.truncated(name, mask):
            found[row] = CutArgs(found[row], last_too=bool(texts[row]) and not texts[row].endswith(b"\0"))
        return found

    def plain(self, value: Any) -> str:
        """With spaces between them."""
        return " ".join(value)

    def key(self, value: Any) -> Any:
        """With a mark where there were more."""
        if value is None:
            return None
        return (*value, "…") if isinstance(value, CutArgs) else tuple(value)

    def text(self, column: Described) -> Callable[[Any], str]:
        """As a shell user would write them; `-` if there are none."""
        return lambda value: _arguments(value) or NONE

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """A list."""
        return {column.name: lambda value: None if value is None else list(value)}


def _arguments(value: list[str]) -> str:
    shown = " ".join(map(quote, value))
    if isinstance(value, CutArgs):
        shown += "…" if value.last_too or not value else " …"
    return shown


class Path(Text):
    """A path, absolute or as a process passed it. It begins with … if its first components are missing."""

    parts: dict[str, str] = {**_SLICE, "as_given": "bool", "cut": "bool"}  # noqa: RUF012
    cut = Cut.MIDDLE

    def decode(self, source: Source, name: str, rows: Rows, mask: Mask) -> list[Any]:
        """The first component first."""
        texts = source.slices(rows, mask)
        if rows["as_given"].all():
            return list(map(decode_text, texts))
        flags = zip(texts, rows["as_given"].tolist(), rows["cut"].tolist(), strict=True)
        return [_path(*item) for item in flags]


def _path(text: bytes, as_given: bool, cut: bool) -> str:
    if as_given:
        return decode_text(text)
    return ("…" if cut else "") + "/" + "/".join(decode_text(text).split("/")[-2::-1])


class FullPath(Path):
    """A path, made absolute by the directory that it is relative to."""

    parts: dict[str, str] = {"directory": "path", "path": "path"}  # noqa: RUF012
    usual = tight = 0

    def decode(self, source: Source, name: str, rows: Rows, mask: Mask) -> list[Any]:
        """Both in one."""
        if rows["path"]["as_given"].all() and not rows["path"]["length"].any():  # it was not asked for
            return [""] * len(rows)
        directories = super().decode(source, name, rows["directory"], mask)
        paths = super().decode(source, name, rows["path"], mask)
        return list(map(_joined, directories, paths)) if any(paths) else paths


class AbsolutePath(FullPath):
    """A path that every event has, made absolute by the directory that it is relative to."""

    usual = tight = 20


def _joined(directory: str, path: str) -> str:
    if not directory or not path:
        return path
    return f"{directory.rstrip('/')}/{path.removeprefix('./').removeprefix('/')}"
