"""Whether what an agent or a recording says makes sense: the layout of its records, and each batch of rows.

The author may mean harm. Decoding trusts whatever has passed here: every field lies in its record, every slice of text
lies in its row's text, and no row is decoded to more than a few times its size.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from gadget.endpoints import OWN_END
from gadget.errors import Malformed, Unsupported
from gadget.kinds import CGROUP_ID, INT, TIMESTAMP
from gadget.schema import Field, Schema

if TYPE_CHECKING:
    import numpy.typing as npt

    from gadget._generated import gadget_pb2 as pb

#: Bounds of a schema, each many times what gadgets have.
LONGEST_SCHEMA = 1 << 20
MOST_FIELDS, MOST_WORDS, LONGEST_WORD = 256, 4096, 64
MOST_FIXED_BYTES = 4096
#: An agent sends up to 8 MiB of events that waited for labels and 2 MiB of each ring at a time, of 90 bytes or more
#: each; those that waited came in 2 s, at least 50 ms apart.
MOST_ROWS, MOST_SECTIONS = 1 << 17, 4096
#: A slice's offset has 16 bits, so no text can be longer; programs write up to 8 KiB.
MOST_TEXT_BYTES = 1 << 16
#: Fields of a row may name the same text, as those do that are parts of a hello of TLS.
SHARED = 5

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_FIELD = {
    **dict.fromkeys(("name", "kind", "doc"), str),
    **dict.fromkeys(("offset", "size", "count"), int),
    "signed": bool,
    "values": dict,
}


def parse_schema(node: str, text: str) -> Schema:
    """The schema at the beginning of a node's stream. Malformed if it makes no sense."""
    try:
        if len(text) > LONGEST_SCHEMA:
            raise ValueError("too long")
        schema = Schema.from_json(orjson.loads(text))
        if type(schema.text_offset) is not int or not 0 < schema.text_offset <= MOST_FIXED_BYTES:
            raise ValueError("text_offset")
        check_fields(schema.fields, schema.text_offset)
        own_ends = [item for item in schema.fields if item.name == OWN_END]
        for item in (*schema.shown, schema["cgroup_id"], *own_ends):
            _check_shown(item)
        if schema["timestamp"].means is not TIMESTAMP or schema.shown[0].name != "timestamp":
            raise ValueError("timestamp")
        if schema["cgroup_id"].means is not CGROUP_ID:
            raise ValueError("cgroup_id")
    except (ArithmeticError, AttributeError, LookupError, RecursionError, StopIteration, TypeError, ValueError):
        raise Malformed(f"{node}: its agent's events cannot be read: see `kubectl gadget version`") from None
    return schema


def check_fields(fields: Sequence[Field], room: int) -> None:
    """ValueError or TypeError unless the fields lie one after the other in room bytes, with values of their types."""
    end, names = 0, set()
    if len(fields) > MOST_FIELDS:
        raise ValueError("too many fields")
    for item in sorted(fields, key=lambda item: item.offset):
        wrong = [name for name, kind in _FIELD.items() if type(getattr(item, name)) is not kind]
        if wrong or not _NAME.fullmatch(item.name) or not _NAME.fullmatch(item.kind) or item.name in names:
            raise ValueError(f"{wrong or 'name'} of a field")
        names.add(item.name)
        if item.offset < end or item.size <= 0 or item.count <= 0 or item.size % item.count:
            raise ValueError(item.name)
        end = item.offset + item.size
        each = item.size // item.count
        if item.parts:
            check_fields(item.parts, each)
        elif not item.means.fits(each):
            raise ValueError(item.name)
        if len(item.values) > MOST_WORDS or not all(_is_word(*each) for each in item.values.items()):
            raise ValueError(item.name)
    if end > room:
        raise ValueError("beyond the end")


def _is_word(value: Any, word: Any) -> bool:
    """Whether a number has a name: a number as decimal digits, and a name of a few letters."""
    number = isinstance(value, str) and re.fullmatch(r"\d{1,20}", value, re.ASCII)
    return bool(number) and isinstance(word, str) and len(word) <= LONGEST_WORD


def _check_shown(item: Field) -> None:
    """ValueError unless the field can be decoded."""
    kind, parts = item.means, {part.name: part for part in item.parts}
    if {name: parts[name].kind for name in kind.parts} != kind.parts:
        raise ValueError(item.name)
    if parts and not kind.parts and (kind.shape or kind.size):
        raise ValueError(item.name)
    for name in kind.parts:
        part = parts[name]
        if part.count != 1 or part.signed or (part.means is INT and part.size > 4):
            raise ValueError(item.name)
        if part.size != kind.part_sizes.get(name, part.size):
            raise ValueError(item.name)
        if part.means.parts:
            _check_shown(part)
    if kind.size and (item.size, item.count) != (kind.size, 1):
        raise ValueError(item.name)
    if not kind.in_events:
        raise ValueError(item.name)


def check_alike(node: str, schema: Schema, own: Schema) -> None:
    """Unsupported if the values of a field have another type than this program's field of the same name."""
    known = {item.name: item for item in own.shown}
    for item in schema.shown:
        mine = known.get(item.name, item)
        if _shape(item) != _shape(mine):
            raise Unsupported(
                f"{node}: its agent is of another version: what it sends as {item.name} is not shown here"
            )


def _shape(item: Field) -> tuple[str, bool, bool]:
    return item.means.shape, item.count > 1, bool(item.parts)


def check_batch(node: str, schema: Schema, batch: pb.Batch, shared: int = SHARED) -> None:
    """Malformed unless every row has the schema's layout, and every slice lies in its own row's text.

    shared: so many times the text of a row may be named.
    """
    try:
        rows = sum(section.count for section in batch.sections)
        if len(batch.sections) > MOST_SECTIONS or rows > MOST_ROWS:
            raise ValueError("too many")
        for section in batch.sections:
            _check_section(schema, section, shared)
    except ValueError:
        raise Malformed(f"{node}: its agent sends events that make no sense") from None


def _check_section(schema: Schema, section: pb.Section, shared: int) -> None:
    size, room = section.record_size, section.record_size - schema.text_offset
    if not 0 <= room <= MOST_TEXT_BYTES or not section.count or section.count * size != len(section.rows):
        raise ValueError("size")
    rows = np.frombuffer(section.rows, schema.dtype(size), section.count)
    named = np.zeros(section.count, np.int64)
    for item in schema.shown:
        _check_values(rows[item.name], item, room, named)
    if named.max() > shared * room:
        raise ValueError("text that is named again and again")


def _check_values(values: npt.NDArray[Any], item: Field, room: int, named: npt.NDArray[np.int64]) -> None:
    """Check a field of all rows. Adds to named how many bytes of text its slices have."""
    greatest = item.means.greatest
    if greatest is not None:
        if values.view(np.uint8).max() > greatest:
            raise ValueError(item.name)
        return
    if "length" in (values.dtype.names or ()):
        lengths = values["length"]
        if lengths.any():
            ends = np.add(values["offset"], lengths, dtype=np.int64)
            if ends.max() > room and ends[lengths > 0].max() > room:
                raise ValueError(item.name)
            named += lengths if lengths.ndim == 1 else lengths.sum(axis=1, dtype=np.int64)
    for part in item.parts:
        if part.means.greatest is not None or (item.means.parts and part.means.parts):
            _check_values(values[part.name], part, room, named)
