"""Messages of agents and recordings, which may mean harm: looked at as bytes first, so that none costs much memory.

An empty message in a list takes two bytes, and a hundred once it has been parsed: 64 MiB of them would be gigabytes.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

#: A message, and an entry of a recording. Agents send up to 12 MiB of events at a time, most often far less.
LARGEST = 64 << 20
#: Messages and texts within a message: an agent names up to 16,384 containers at a time, of five texts each.
MOST_PARTS = 1 << 19
#: What one takes beside its bytes, about.
PART_BYTES = 128
#: Letters of a name or a sentence; more are cut off. Kubernetes' names have up to 253. JSON, and what an alert and
#: its rule say, which have bounds of their own, are not cut.
LONGEST_TEXT = 1024
_WHOLE = ("schema", "layout", "output", "condition", "description")
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

M = TypeVar("M", bound=Message)


def parse(kind: type[M], data: bytes) -> tuple[M, int]:
    """A message of that kind, and about how many bytes of memory it takes.

    ValueError if it is none, or of more parts or bytes than anybody needs.
    """
    if len(data) > LARGEST:
        raise ValueError(f"a message of more than {LARGEST >> 20} MiB")
    look = _Look(data)
    long = look.long(kind.DESCRIPTOR)
    try:
        message = kind.FromString(data)
    except DecodeError:
        raise ValueError("a message that cannot be read") from None
    if long:
        _shorten(message)
    return message, len(data) + look.parts * PART_BYTES


class _Look:
    """Goes over a message's fields, and counts its parts."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.parts = 0

    def long(self, kind: Any) -> bool:
        """Whether a text in it is to be cut. ValueError if it holds too many parts, or its bytes are none."""
        try:
            return self._message(0, len(self._data), kind)
        except IndexError:
            raise ValueError("a message that cannot be read") from None

    def _message(self, at: int, end: int, kind: Descriptor) -> bool:
        fields, long = _fields(kind), False
        while at < end:
            tag, at = self._varint(at)
            how, field = tag & 7, fields.get(tag >> 3)
            if how == _VARINT:
                _, at = self._varint(at)
            elif how in (_FIXED64, _FIXED32):
                at += 8 if how == _FIXED64 else 4
            elif how == _LENGTH:
                size, at = self._varint(at)
                if size > end - at:
                    raise ValueError("a message that cannot be read")
                if field:
                    self.parts += 1
                    if self.parts > MOST_PARTS:
                        raise ValueError(f"a message of more than {MOST_PARTS} parts")
                    if field.message and (size > LONGEST_TEXT or not field.flat):
                        long |= self._message(at, at + size, field.message)
                    long |= field.text and size > LONGEST_TEXT
                at += size
            else:
                raise ValueError("a message that cannot be read")
        return long

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
            if shift > 63:
                raise ValueError("a message that cannot be read")


class _Field(NamedTuple):
    """A field that holds a message or text; flat is whether that message holds no lists or messages of its own."""

    message: Descriptor | None
    text: bool
    flat: bool


@cache
def _fields(kind: Descriptor) -> dict[int, _Field]:
    """The fields of a message that hold messages or text, by number."""

    def flat(message: Descriptor | None) -> bool:
        return message is not None and not any(each.message_type or each.is_repeated for each in message.fields)

    return {
        field.number: _Field(
            field.message_type, field.type == field.TYPE_STRING and field.name not in _WHOLE, flat(field.message_type)
        )
        for field in kind.fields
        if field.message_type or field.type == field.TYPE_STRING
    }


def _shorten(message: Any) -> None:
    """Cut every text in a message that is too long."""
    for field, value in message.ListFields():
        if field.message_type and field.message_type.GetOptions().map_entry:
            cut = {_short(name): _short(text) for name, text in value.items()}
            value.clear()
            value.update(cut)
        elif field.message_type:
            for each in value if isinstance(value, list) or hasattr(value, "append") else [value]:
                _shorten(each)
        elif field.type == field.TYPE_STRING and field.name not in _WHOLE:
            if isinstance(value, str):
                setattr(message, field.name, _short(value))
            else:
                value[:] = [_short(each) for each in value]


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
