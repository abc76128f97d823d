"""What a stream looks like: each output takes rows and writes them.

The forms of -o are the modules of kubectl_gadget/output/forms: nothing else knows their names.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import field
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

from gadget.catalog import Gadget
from gadget.errors import UsageError
from gadget.kinds.base import NONE, UNKNOWN
from gadget.schema import IDENTITY, IDENTITY_DOCS, Column, Parameter, Row, Schema
from gadget.text import meant
from gadget.values import dataclass

#: Identity as a column shows it; the id is for JSON and --fields.
IDENTITY_COLUMNS = IDENTITY[:4]


class Output:
    """Writes rows whose values are in the order of its fields."""

    fields: Sequence[Column]
    #: whether what is written at once is one whole table, and may have no rows
    is_whole = False
    #: whether it takes the place of what was written before
    is_live = False

    def start(self, names: Sequence[Sequence[str]], rows: Sequence[Row] = ()) -> None:
        """Begin, knowing the node and container names that will most likely appear, or all rows that will.

        Called again, it does nothing.
        """

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows at once."""
        raise NotImplementedError

    def lines(self, rows: Sequence[Row]) -> list[str]:
        """A table of all rows there are, as it is shown; nothing is written."""
        raise NotImplementedError

    def fitting(self, rows: Sequence[Row], room: int) -> int:
        """How many rows lines() shows in so many lines below a header."""
        return min(len(rows), room)

    def refresh(self, sum_up: Callable[[], str]) -> None:
        """Bring what is live up to date; called often. sum_up says how much there was so far."""

    def finish(self) -> str:
        """Write what has been kept back. Returns what has to be said about it, if anything."""
        return ""

    def close(self) -> None:
        """Give back what has been taken, as the terminal. Called again, it does nothing."""


def text_of(column: Column) -> Callable[[Any], str]:
    """How values look, with what stands for one that an agent of another version does not have."""
    text, missing = column.means.text(column), column.means.missing
    return lambda value: missing if value is None else text(value)


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


class Extent(IntEnum):
    """Which fields a form shows if the user chooses none."""

    COLUMNS = 0
    WIDE = 1
    ALL = 2


@dataclass(frozen=True)
class Form:
    """One form of -o. one_line: a row is one line. is_table: rows stand below a header, for people.

    A form that takes something, as NAME=TEMPLATE does, is what read makes of that; names are the fields that it is
    about then.
    """

    name: str
    help: str
    extent: Extent
    one_line: bool
    make: Callable[[Sequence[Column], Mapping[str, str], Look], Output]
    is_table: bool = False
    takes: str = ""
    read: Callable[[str], Form] | None = None
    names: tuple[str, ...] | None = None

    @property
    def written(self) -> str:
        """Its text after -o."""
        return f"{self.name}={self.takes}" if self.takes else self.name


@cache
def all_forms() -> dict[str, Form]:
    """Every form by name, tables first."""
    from kubectl_gadget.output import forms as package

    # pkgutil would import inspect, which reads Python
    names = sorted(each.stem for folder in package.__path__ for each in Path(folder).glob("[!_]*.py"))
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in names]
    found = sorted((form for module in modules for form in module.FORMS), key=lambda form: (form.extent, form.name))
    return {form.name: form for form in found}


def find_form(text: str, others: Iterable[str] = ()) -> Form:
    """The form that is written NAME, or NAME=WHAT IT TAKES. UsageError naming what there is, and others beside it."""
    name, equals, taken = text.partition("=")
    form = all_forms().get(name)
    if form is None or bool(form.read) != bool(equals):
        names = [*(each.written for each in all_forms().values()), *others]
        raise UsageError(f"{text!r} is not one of {', '.join(map(repr, names))}")
    return form.read(taken) if form.read else form


def all_fields(schema: Schema) -> dict[str, Column]:
    """Every field of an event by name, in the order of JSON: timestamp, who, what."""
    identity = [Column(name, "identity", doc=IDENTITY_DOCS[name]) for name in IDENTITY]
    first, *rest = schema.shown
    return {field.name: field for field in (first, *identity, *rest)}


def explain(field: Column, schema: Schema) -> str:
    """What a field means, with what a filter may call it: its parts, the words for its values."""
    parts = [name for name in schema.parts if name.startswith(f"{field.name}.")]
    return field.doc + (f" (parts: {', '.join(parts)})" if parts else "") + listed(field)


def listed(named: Column | Parameter) -> str:
    """The words for the values of a field or parameter, to be put behind its help."""
    words = named.means.explained(named)
    return f" ({named.means.words_are}: {', '.join(words)})" if words else ""


def usual(parameter: Parameter) -> str:
    """The default of a parameter that is no switch, if it has one that says something."""
    default = bytes.fromhex(parameter.default)
    if parameter.means.is_text or not any(default):
        return ""
    text = parameter.means.text(parameter)(int.from_bytes(default, "little", signed=parameter.signed))
    return "" if text in (NONE, UNKNOWN) else text  # anybody


def known_field(gadget: Gadget, name: str) -> Column:
    """A field of gadget's events, or a part of one. UsageError naming those that there are."""
    known = all_fields(gadget.schema) | gadget.schema.parts
    if name not in known:
        there = f"{gadget.command} has {', '.join(known)} (kubectl gadget {gadget.command} --help)"
        raise UsageError(f"unknown field {name!r}: {meant(name, known) or there}")
    return known[name]


def choose_fields(gadget: Gadget, form: str, wanted: str, switched_on: Sequence[str]) -> Sequence[Column]:
    """The fields to show: the form's own, or wanted as "a,b" instead or "+a,-b" on top of them.

    switched_on names fields that an option of the same name has turned on. UsageError if a field is unknown.
    """
    known = all_fields(gadget.schema)
    chosen = find_form(form)
    if chosen.names is not None:
        if wanted:
            raise UsageError(f"--fields: -o {chosen.name} names its fields itself")
        return [known_field(gadget, name) for name in chosen.names]
    if chosen.extent < Extent.ALL:
        extra = gadget.wide if chosen.extent == Extent.WIDE else []
        who = [name for filled in gadget.fills.values() for name in filled if name in switched_on]
        *before, last = [*IDENTITY_COLUMNS, *who, *gadget.columns]
        names = list(dict.fromkeys([*before, *extra, *switched_on, last]))
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


def make_output(form: str, fields: Sequence[Column], headers: Mapping[str, str], look: Look | None = None) -> Output:
    """The output of a form, showing fields; columns are titled by headers or the fields' names."""
    return find_form(form).make(fields, headers, look or Look())


def write_table(output: Output, rows: Sequence[Row]) -> None:
    """Write all rows that there are."""
    output.start([], rows)
    if rows:
        output.write(rows)
    output.finish()
