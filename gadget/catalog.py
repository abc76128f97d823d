"""The packaged catalogue: schema, parameters and screen of every gadget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gadget.errors import Unsupported, UsageError
from gadget.kinds import HISTOGRAM
from gadget.schema import EVENTS, Field, Parameter, Schema, record_dtype
from gadget.story import Story
from gadget.values import dataclass

if TYPE_CHECKING:
    import numpy as np

#: Between two tables, or two snapshots.
LEAST_INTERVAL_NS, MOST_INTERVAL_NS = 10**8, 86_400 * 10**9
CATALOGUE = Path(__file__).parent / "_generated" / "catalog.json"


@dataclass(frozen=True)
class Tree:
    """How rows of a table stand below each other, by the names of fields.

    A row stands below that whose own value is the first value of below which is not its own. indented is the field
    that people see indented.
    """

    own: str
    below: list[str]
    indented: str


@dataclass(frozen=True)
class Gadget:
    """One gadget. columns and wide name fields, whose names in capitals are the titles of the columns.

    narrow names the columns that a narrow terminal leaves out, in this order; good has the words of a field that are
    not failures; left_out says what is not shown unless a switch is on, by the switch; usual has the condition of the
    rows that are shown without --all, and says what the others are. aliases are what other tools call it: words as they
    are written on a command line. source is one of EVENTS, TABLE, SNAPSHOT; interval in seconds and sort are the
    defaults of --interval and --sort; tree is how rows stand below each other then. story is how the command `story`
    shows its events, if it does.
    hidden: it has no command, as a service of the agent begins it. unmasked are switches that an agent with --redact
    refuses: what they show comes in pieces that no pattern matches. fills are the fields that say something only with a
    switch, by the switch. unknown says of fields of tables why no value of theirs is known, where that is so.
    """

    name: str
    title: str
    group: str
    example: str
    notes: str
    columns: list[str]
    wide: list[str]
    narrow: list[str]
    good: dict[str, list[str]]
    left_out: dict[str, str]
    schema: Schema
    parameters: list[Parameter]
    aliases: list[str] = field(default_factory=list)
    source: str = EVENTS
    interval: float = 0.0
    sort: list[str] = field(default_factory=list)
    tree: Tree | None = None
    story: Story | None = None
    hidden: bool = False
    unmasked: list[str] = field(default_factory=list)
    fills: dict[str, list[str]] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    usual: dict[str, str] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The words of its command. A name with an underscore is a command of a group: `snapshot file`."""
        return command_of(self.name)

    @property
    def has_histograms(self) -> bool:
        """Whether there are histograms in its rows, which are drawn unless another form is asked for."""
        return any(item.means is HISTOGRAM for item in self.schema.shown)

    @property
    def has_tables(self) -> bool:
        """Whether its rows come as whole tables."""
        return self.source != EVENTS

    def check_interval(self, interval_ns: int) -> None:
        """UsageError if the gadget takes no such interval; 0 is its own."""
        if not interval_ns:
            return
        if not self.has_tables:
            raise UsageError(f"{self.name} has events, no tables: it takes no --interval")
        if not LEAST_INTERVAL_NS <= interval_ns <= MOST_INTERVAL_NS:
            raise UsageError("--interval: from 100ms to 24h")


def command_of(name: str) -> str:
    """The command of the gadget of that name."""
    return name.replace("_", " ")


class Gadgets(Mapping[str, Gadget]):
    """Gadgets by name. Each is made when it is first asked for, as a command needs one: all take 10 ms."""

    def __init__(self, entries: Mapping[str, dict[str, Any]], made: dict[str, Gadget]) -> None:
        """Those of entries of a catalogue; made has those that have been made."""
        self._entries, self.made = entries, made

    def __getitem__(self, name: str) -> Gadget:
        """The gadget of that name. Unsupported if the catalogue is damaged."""
        if name not in self.made:
            entry = self._entries[name]
            with _whole():
                self.made[name] = _read(name, entry)
        return self.made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def seen(self) -> Gadgets:
        """Those that are not hidden."""
        with _whole():
            seen = {name: entry for name, entry in self._entries.items() if not entry.get("hidden")}
        return Gadgets(seen, self.made)


@contextmanager
def _whole() -> Iterator[None]:
    """Unsupported where the catalogue turns out to be damaged."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Unsupported(f"{CATALOGUE} is damaged: install kubectl-gadget and its agent again") from None


def _read(name: str, entry: Mapping[str, Any]) -> Gadget:
    return Gadget(
        name,
        **{
            **entry,
            "schema": Schema.from_json(entry["schema"]),
            "parameters": [Parameter(**item) for item in entry["parameters"]],
            "tree": Tree(**entry["tree"]) if entry.get("tree") else None,
            "story": Story(**entry["story"]) if entry.get("story") else None,
        },
    )


@cache
def _catalogue() -> Any:
    return orjson.loads(CATALOGUE.read_bytes())


def record_fields(program: str, name: str) -> Any:
    """The layout of a program's RECORD struct, as the catalogue has it."""
    return _catalogue()["programs"][program]["records"][name]


def constants(program: str, enum: str) -> dict[str, int]:
    """The values of an enum of a program's RECORD(names), by name."""
    (field,) = (item for item in record_fields(program, "names") if item["name"] == enum)
    return {name: int(value) for value, name in field["values"].items()}


def setting(program: str, name: str) -> tuple[int, int]:
    """Where in a program's .rodata a setting is, and its size, in bytes."""
    offset, size = _catalogue()["programs"][program]["settings"][name]
    return offset, size


@cache
def record(program: str, name: str) -> np.dtype[np.void]:
    """The numpy type of a program's RECORD struct, as long as its last member."""
    return record_dtype([Field.from_json(item) for item in record_fields(program, name)])


@cache
def _all() -> Gadgets:
    return parse(CATALOGUE.read_bytes())


@cache
def load() -> Gadgets:
    """Every gadget that users see, by name."""
    return _all().seen()


def parse(data: bytes) -> Gadgets:
    """Every gadget of a catalogue. Unsupported if it is damaged."""
    with _whole():
        return Gadgets(dict(orjson.loads(data)["gadgets"]), {})


def find(name: str) -> Gadget:
    """The gadget of that name, also a hidden one. UsageError that names all others if there is none."""
    try:
        return _all()[name]
    except KeyError:
        raise UsageError(f"unknown gadget {name!r}: there is {', '.join(load())}") from None
