"""What a stream looks like: each output takes rows and writes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gadget.catalog import Gadget
from gadget.errors import UsageError
from gadget.schema import IDENTITY, IDENTITY_DOCS, Field, Row, Schema

FORMATS = ("columns", "wide", "json", "jsonpretty", "yaml", "csv")
#: Identity as a column shows it; the id is for JSON and --fields.
IDENTITY_COLUMNS = IDENTITY[:4]


class Output(Protocol):
    """Writes rows whose values are in the order of its fields."""

    fields: list[Field]

    def start(self, names: Sequence[Sequence[str]], rows: Sequence[Row] = ()) -> None:
        """Begin, knowing the node and container names that will most likely appear, or all rows that will.

        Called again, it does nothing.
        """

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows at once."""

    def finish(self) -> str:
        """Write what has been kept back. Returns what has to be said about it, if anything."""


def all_fields(schema: Schema) -> dict[str, Field]:
    """Every field of an event by name, in the order of JSON: timestamp, who, what."""
    identity = [Field(name, "identity", 0, 0, doc=IDENTITY_DOCS[name]) for name in IDENTITY]
    first, *rest = schema.shown
    return {field.name: field for field in (first, *identity, *rest)}


def explain(field: Field, schema: Schema) -> str:
    """What a field means, with what a filter may call it: its parts, the words for its values."""
    parts = [name for name in schema.parts if name.startswith(f"{field.name}.")]
    words = list(field.values.values()) if field.kind in ("enum", "words", "flags") else []
    lists = (("parts", parts), ("one of" if field.kind != "flags" else "of", words))
    return field.doc + "".join(f" ({what}: {', '.join(names)})" for what, names in lists if names)


def known_field(gadget: Gadget, name: str) -> Field:
    """A field of gadget's events, or a part of one. UsageError naming those that there are."""
    known = all_fields(gadget.schema) | gadget.schema.parts
    if name not in known:
        raise UsageError(
            f"unknown field {name!r}: {gadget.name} has {', '.join(known)} (kubectl gadget {gadget.name} --help)"
        )
    return known[name]


def choose_fields(gadget: Gadget, form: str, wanted: str, switched_on: Sequence[str]) -> list[Field]:
    """The fields to show: the format's own, or wanted as "a,b" instead or "+a,-b" on top of them.

    switched_on names fields that an option of the same name has turned on. UsageError if a field is unknown.
    """
    known = all_fields(gadget.schema)
    if form in ("columns", "wide"):
        extra = gadget.wide if form == "wide" else []
        *before, last = [*IDENTITY_COLUMNS, *gadget.columns]
        names = [*before, *extra, *switched_on, last]
    else:
        names = list(known)
    for position, item in enumerate(part.strip() for part in wanted.split(",") if part.strip()):
        name = known_field(gadget, item.lstrip("+-")).name
        if item[0] == "-":
            names = [other for other in names if other != name]
        elif item[0] == "+":
            names = [*[other for other in names if other != name], name]
        else:
            names = [*(names if position else []), name]
    known |= gadget.schema.parts
    return [known[name] for name in names if name in known]


@dataclass(frozen=True)
class Look:
    """What a table is to know of its columns, all by name.

    narrow are left out first where a terminal is narrow; fixed have one value in every row; demanded are left out last.
    failed says which values of a column stand for a failure, beside the errors.
    """

    narrow: Sequence[str] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)
    demanded: Collection[str] = ()
    failed: Mapping[str, Callable[[Any], bool]] = field(default_factory=dict)


def make_output(form: str, fields: list[Field], headers: dict[str, str], look: Look | None = None) -> Output:
    """The output of a format, showing fields; columns are titled by headers or the fields' names."""
    if form in ("columns", "wide"):
        from kubectl_gadget.output.columns import Columns

        return Columns(fields, headers, look or Look(), everything=form == "wide")
    if form == "csv":
        from kubectl_gadget.output.spreadsheet import Spreadsheet

        return Spreadsheet(fields)
    from kubectl_gadget.output.documents import Documents, JsonLines

    return JsonLines(fields) if form == "json" else Documents(fields, form)
