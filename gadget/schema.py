"""The layout and meaning of a gadget's events and parameters, read from the BTF of its object.

The C struct is the only definition of an event: a field's kind comes from its typedef, its help from its
decl tag, its place from the compiler. Travels as JSON in the catalogue and at the start of every stream.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, field
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from gadget import btf as b
from gadget import kinds
from gadget.kinds import Kind, Total
from gadget.values import dataclass

if TYPE_CHECKING:
    import numpy as np

_FLATTENED = ("gadget_header",)

#: Fields that say which container an event is of. They come from the agent, not from the kernel.
IDENTITY = ("node", "namespace", "pod", "container", "containerId")
IDENTITY_DOCS = {
    "node": "node that the event comes from",
    "namespace": "Kubernetes namespace",
    "pod": "name of the pod",
    "container": "name of the container in its pod",
    "containerId": "the runtime's id of the container",
}
#: The kinds of sources of rows.
EVENTS, TABLE, SNAPSHOT = "events", "table", "snapshot"
#: In a row of a table the time comes first, then the key.
KEY_OFFSET = 8
#: How many bytes a value of a table has that totals add up: a sum in fewer would begin again at 0.
SUM_BYTES = 8
#: How much one table may have: it is one message, whose rows gadget/checks.py bounds, too.
MOST_ENTRIES, MOST_TABLE_BYTES = 1 << 16, 8 << 20

#: Of other things than bytes, each of which is of a kind.
ARRAY = Kind("array")
#: One event's values, in the order of the fields that were asked for.
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Column:
    """A column of a table, and what its values mean. values are the names of numbers.

    Without doc it is not for users.
    """

    name: str
    kind: str
    doc: str = ""
    values: dict[str, str] = field(default_factory=dict)

    @property
    def means(self) -> Kind:
        """What is known of its kind."""
        return kinds.find(self.kind)


@dataclass(frozen=True, kw_only=True)
class Field(Column):
    """One member of an event. offset and size in bytes.

    count is the number of items of an array; size is of all of them together.
    """

    offset: int
    size: int
    signed: bool = False
    parts: tuple[Field, ...] = ()
    count: int = 1

    @property
    def means(self) -> Kind:
        """The Kind of its values; of an array, the list kind."""
        return kinds.find(self.kind) if self.count == 1 else kinds.list_of(self.kind)

    @property
    def is_added(self) -> bool:
        """Whether totals add up its values, if it is in a table's value."""
        return bool(self.doc) and kinds.find(self.kind).total is Total.SUM

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Field:
        """The reverse of dataclasses.asdict."""
        return cls(**{**data, "parts": tuple(map(cls.from_json, data["parts"]))})


@dataclass(frozen=True)
class Schema:
    """The fields of an event, and where its text begins."""

    fields: tuple[Field, ...]
    text_offset: int

    def __getitem__(self, name: str) -> Field:
        return next(item for item in self.fields if item.name == name)

    @property
    def shown(self) -> tuple[Field, ...]:
        """The fields that users see, in order."""
        return tuple(item for item in self.fields if item.doc)

    @property
    def parts(self) -> dict[str, Column]:
        """The parts of values, as columns of their own: dst.addr, dst.port, ..."""
        return {
            f"{item.name}.{part}": Column(f"{item.name}.{part}", kind, doc=f"{doc} of {item.name}")
            for item in self.shown
            for part, (kind, doc) in item.means.members.items()
        }

    def dtype(self, record_size: int) -> np.dtype[np.void]:
        """The numpy type of a record of record_size bytes."""
        made = self._dtypes.get(record_size)
        if made is None:
            if len(self._dtypes) >= 256:
                self._dtypes.clear()  # a record is as long as the longest text of its batch
            made = self._dtypes[record_size] = _dtype(self.fields, record_size)
        return made

    @cached_property
    def _dtypes(self) -> dict[int, np.dtype[np.void]]:
        return {}

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Schema:
        """The reverse of to_json."""
        return cls(tuple(map(Field.from_json, data["fields"])), data["text_offset"])


def record_dtype(fields: Sequence[Field]) -> np.dtype[np.void]:
    """The numpy type of fields, as long as the last of them."""
    return _dtype(tuple(fields), max(field.offset + field.size for field in fields))


def _dtype(fields: tuple[Field, ...], size: int) -> np.dtype[np.void]:
    import numpy as np

    formats: list[Any] = []
    for item in fields:
        each = item.size // item.count
        if item.parts:
            formats.append(_dtype(item.parts, each))
        else:
            formats.append(item.means.format(each, signed=item.signed))
        if item.count > 1:
            formats[-1] = (formats[-1], (item.count,))
    offsets = [item.offset for item in fields]
    return np.dtype({"names": [item.name for item in fields], "formats": formats, "offsets": offsets, "itemsize": size})


def value_offset(key_size: int) -> int:
    """Where in a row of a table its value begins."""
    return KEY_OFFSET + (key_size + 7 & ~7)


@dataclass(frozen=True)
class Parameter:
    """A setting in the object's .rodata. default is its value there as hexadecimal bytes.

    values are the names of numbers.
    """

    name: str
    kind: str
    offset: int
    size: int
    signed: bool
    doc: str
    default: str
    values: dict[str, str] = field(default_factory=dict)

    @property
    def means(self) -> Kind:
        """What is known of its kind."""
        return kinds.find(self.kind)


P = ParamSpec("P")
T = TypeVar("T")


def _or_malformed(read: Callable[P, T]) -> Callable[P, T]:
    """The same function, but it raises BtfError if BTF does not fit together."""

    @wraps(read)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, StopIteration) as error:
            raise b.BtfError(f"malformed BTF: {type(error).__name__} {error}") from None

    return checked


def kind_of(types: b.Btf, type_id: int) -> Kind:
    """The kind of a C type: the name of its gadget_ typedef, else what C says of it."""
    alias = types.types[types.strip(type_id, typedefs=False)]
    while alias.kind == b.TYPEDEF:
        if alias.name.startswith("gadget_"):
            return kinds.in_c(alias.name.removeprefix("gadget_"))
        alias = types.types[types.strip(alias.target, typedefs=False)]
    if alias.kind == b.ARRAY:
        return kinds.CHARS if types.size(alias.target) == 1 else ARRAY
    if alias.kind in (b.ENUM, b.ENUM64):
        return kinds.ENUM
    if alias.kind == b.STRUCT:
        return kinds.STRUCT
    if alias.kind != b.INT:
        raise b.BtfError(f"type {alias.name!r} has no gadget_ typedef that says what it means")
    return kinds.BOOL if alias.name == "_Bool" else kinds.INT


def _fields(types: b.Btf, struct_id: int, base: int = 0) -> list[Field]:
    fields: list[Field] = []
    for index, member in enumerate(types.types[struct_id].members):
        target = types.strip(member.type_id)
        if types.types[target].name in _FLATTENED:
            fields += _fields(types, target, base + member.offset)
        elif member.name != "text":
            kind, count = kind_of(types, member.type_id), 1
            if kind is ARRAY:
                count, member_type = types.types[target].count, types.types[target].target
                kind, target = kind_of(types, member_type), types.strip(member_type)
            names = kind.word_list(types.types[target].values)
            fields.append(
                Field(
                    name=member.name,
                    kind=kind.name,
                    offset=base + member.offset,
                    size=types.size(member.type_id),
                    signed=types.types[target].signed,
                    doc=types.tags.get((struct_id, index), ""),
                    values={str(value): name for value, name in names.items()},
                    parts=tuple(_fields(types, target)) if types.types[target].kind == b.STRUCT else (),
                    count=count,
                )
            )
    return fields


@_or_malformed
def read_source(types: b.Btf) -> tuple[str, Schema]:
    """Which kind of source an object is, one of EVENTS, TABLE, SNAPSHOT, and the schema of its rows.

    BtfError if it is none, or if its rows cannot be read.
    """
    maps = types.section(".maps")
    if "scratch" in maps:
        return EVENTS, _event(types, _member(types, maps["scratch"], "value"))
    if "rows_first" in maps:
        return TABLE, _table_row(types, maps["rows_first"])
    if "snapshot" in maps:
        row = _member(types, maps["snapshot"], "value")
        return SNAPSHOT, _event(types, row) if "slot" in maps else Schema(tuple(_fields(types, row)), types.size(row))
    if "readings" in maps:
        row = _member(types, maps["readings"], "value")
        has_text = any(member.name == "text" for member in types.types[row].members)
        return SNAPSHOT, _event(types, row) if has_text else Schema(tuple(_fields(types, row)), types.size(row))
    if record := types.section(".bss").get("record_event"):
        return EVENTS, _event(types, types.strip(types.types[types.strip(types.types[record.type_id].target)].target))
    raise b.BtfError("no GADGET_EVENTS, GADGET_RESERVED, GADGET_TABLE or GADGET_SNAPSHOT in this object")


def _member(types: b.Btf, variable: b.Member, name: str) -> int:
    """The type that a member of a map's definition points to."""
    members = types.types[types.strip(types.types[variable.type_id].target)].members
    found = next(member for member in members if member.name == name)
    return types.strip(types.types[types.strip(found.type_id)].target)


def _event(types: b.Btf, event: int) -> Schema:
    text = next((member for member in types.types[event].members if member.name == "text"), None)
    if text is None:
        raise b.BtfError("struct event has no text tail")
    return Schema(tuple(_fields(types, event)), text.offset)


def _table_row(types: b.Btf, table: b.Member) -> Schema:
    """A row is the time of the table, the key and the value, of which text is the last."""
    key, value = _member(types, table, "key"), _member(types, table, "value")
    entries = types.types[_member(types, table, "max_entries")].count
    at, size = value_offset(types.size(key)), types.size(value)
    text = next((member.offset for member in types.types[value].members if member.name == "text"), size)
    if sum(types.size(member.type_id) for member in types.types[key].members) != types.size(key):
        raise b.BtfError("the key of GADGET_TABLE has padding, which is not the same in equal keys")
    if entries > MOST_ENTRIES or entries * (at + size) > MOST_TABLE_BYTES:
        raise b.BtfError(f"GADGET_TABLE has more than {MOST_ENTRIES} rows or {MOST_TABLE_BYTES >> 20} MiB")
    time = Field(name="timestamp", kind=kinds.TIMESTAMP.name, doc="when the table was read", offset=0, size=KEY_OFFSET)
    fields = (time, *_fields(types, key, KEY_OFFSET), *_fields(types, value, at))
    for item in fields:
        if item.offset >= at and item.is_added and item.size // item.count < SUM_BYTES:
            raise b.BtfError(f"{item.name} of GADGET_TABLE is added up, so it has to have {SUM_BYTES} bytes")
    if len({item.name for item in fields}) < len(fields):
        raise b.BtfError("key and value of GADGET_TABLE have members of the same name")
    return Schema(fields, at + text)


@_or_malformed
def read_records(types: b.Btf) -> dict[str, list[Field]]:
    """The layouts of an object's RECORD structs by name."""
    records = {}
    for name, variable in types.section(".bss").items():
        if name.startswith("record_"):
            struct = types.strip(types.types[types.strip(types.types[variable.type_id].target)].target)
            records[name.removeprefix("record_")] = _fields(types, struct)
    return records


@_or_malformed
def read_parameters(types: b.Btf, rodata: bytes) -> list[Parameter]:
    """The PARAM variables of an object, with their defaults from its .rodata."""
    parameters = []
    for name, variable in sorted(types.section(".rodata").items(), key=lambda item: item[1].offset):
        if not name.startswith("param_"):
            continue
        target = types.types[variable.type_id].target
        kind = kind_of(types, target)
        names = kind.word_list(types.types[types.strip(target)].values)
        parameters.append(
            Parameter(
                name=name.removeprefix("param_"),
                kind=kind.name,
                offset=variable.offset,
                size=variable.size,
                signed=types.types[types.strip(target)].signed,
                doc=types.tags.get((variable.type_id, -1), ""),
                default=rodata[variable.offset : variable.offset + variable.size].hex(),
                values={str(value): name for value, name in names.items()},
            )
        )
    return parameters
