"""Rules applied to many events at once, each part of a condition to each distinct process, file or call once.

An event has a row in each of three tables: its call (evt.*, and the number of its descriptor), its process (proc.*,
user.*, container.*, …) and its descriptor (fd.*). Events repeat: a process opens thousands of files, thousands of
processes open a file. So a condition is split into parts that ask one table alone. A part is asked once for each row,
and the answer kept; for an event it is looked up. What asks several tables at once, or is an event's own, is asked for
each event that has come so far.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from gadget.rules.checks import Compiler, Event, Test, checks, folded, names
from gadget.rules.fields import SYSCALL
from gadget.rules.parser import Check, Junction, Node, Not
from gadget.rules.ruleset import Rule, Ruleset

CALL, PROCESS, DESCRIPTOR, OWN = range(4)
#: What parts of these are asked of, once for each.
_ASKED = ("call", "process", "file", "event")
_PATHS = ("name", "path", "filename", "target", "linkpath", "oldpath", "newpath")
#: Where a field is, by the beginning of its name; the longest counts. An event's own are asked last.
_TABLES = {
    **dict.fromkeys(("evt.", "syscall.", "fd.num"), CALL),
    **dict.fromkeys((f"evt.arg.{name}" for name in ("flags", "mode", "domain", "request", "cmd")), CALL),
    **dict.fromkeys(("fd.", "fs."), DESCRIPTOR),
    **dict.fromkeys((f"evt.arg.{name}" for name in _PATHS), DESCRIPTOR),
    **dict.fromkeys(("evt.arg", "evt.rawarg", "evt.info", "evt.buffer", "evt.abspath", "evt.num"), OWN),
    **dict.fromkeys(("evt.time", "evt.rawtime", "evt.datetime", "fd.connected", "fd.name_changed"), OWN),
    **dict.fromkeys(("proc.duration", "proc.ppid.duration", "container.duration", "thread.tid", "thread.ismain"), OWN),
    **dict.fromkeys((f"fd.{which}ip.name" for which in "sclr"), OWN),
}  # fmt: skip
_UNKNOWN, _NO, _YES = 0, 1, 2

Ids = npt.NDArray[np.uint32]
Places = npt.NDArray[np.intp]


@cache
def table_of(name: str) -> int:
    """The table that has a field."""
    prefixes = (name[:size] for size in range(len(name), 0, -1))
    return next((_TABLES[prefix] for prefix in prefixes if prefix in _TABLES), PROCESS)


@dataclass
class Rows:
    """A table: rows in the order of their ids."""

    rows: list[Event] = field(default_factory=list)
    version: int = 0
    size: int = 0

    def add(self, row: Event, size: int = 0) -> int:
        """Add a row of about so many bytes. Returns its id."""
        self.rows.append(row)
        self.size += size
        return len(self.rows) - 1

    def clear(self) -> None:
        """Forget all rows. Earlier ids mean nothing any more."""
        self.rows.clear()
        self.version += 1
        self.size = 0


@dataclass(frozen=True)
class EventBatch:
    """Events: of each its type, by its place in names; the ids of its rows in the three tables; and what is its own."""

    names: Sequence[str]
    types: npt.NDArray[np.integer[Any]]
    ids: tuple[Ids, Ids, Ids]
    own: Sequence[Event]

    def __len__(self) -> int:
        return len(self.types)


class _Whole:
    """An event as one: asked field by field in the tables that have them."""

    def __init__(self, parts: tuple[Event, Event, Event, Event]) -> None:
        self._parts = parts

    def get(self, key: str, /) -> Any:
        return self._parts[table_of(key)].get(key)


@dataclass
class _Part:
    """A part of a condition that asks one table; answers by id of the row."""

    table: int
    test: Test
    answers: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(1024, np.uint8))
    version: int = 0


@dataclass(frozen=True)
class _Joined:
    """Parts joined by `and` or `or`, the cheapest first."""

    both: bool
    children: tuple[_Plan, ...]


@dataclass(frozen=True)
class _Negated:
    child: _Plan


_Plan = _Part | _Joined | _Negated


class BatchRules:
    """Rules prepared for batches. tables: the rows that ids in batches refer to."""

    def __init__(self, rules: Ruleset, tables: tuple[Rows, Rows, Rows], *, first: bool = False) -> None:
        self._tables, self._first = tables, first
        self._pattern_bytes = rules.pattern_bytes
        self._plans: dict[bytes, _Plan] = {}
        self._rules = [
            (rule, self._plan(rule.condition if node is True else node))
            for rule in rules.rules if rule.enabled and rule.source == SYSCALL and rule.types
            for node in [folded(rule.condition)] if node is not False
        ]  # fmt: skip

    def parts(self) -> dict[str, int]:
        """How many different parts the rules have, by the table that each part asks."""
        found = Counter(_ASKED[plan.table] for plan in self._plans.values() if isinstance(plan, _Part))
        return {word: found[word] for word in _ASKED}

    def matching(self, batch: EventBatch) -> list[tuple[Rule, Places]]:
        """The rules that fire, and on which events of a batch, in the order of the rules."""
        by_type = _by_type(batch)
        found = []
        for rule, plan in self._rules:
            places = [by_type[name] for name in by_type.keys() & rule.types if len(by_type[name])]
            for each in places:
                fired = self._holding(plan, batch, each)
                if not len(fired):
                    continue
                found.append((rule, fired))
                if self._first:
                    name = batch.names[batch.types[fired[0]]]
                    by_type[name] = np.setdiff1d(by_type[name], fired, assume_unique=True)
        return found

    def _holding(self, plan: _Plan, batch: EventBatch, places: Places) -> Places:
        """The events among some for which a plan holds."""
        if isinstance(plan, _Part):
            return places[self._answers(plan, batch, places)]
        if isinstance(plan, _Negated):
            return places[~self._mask(plan.child, batch, places)]
        if plan.both:
            for child in plan.children:
                if not len(places):
                    break
                places = self._holding(child, batch, places)
            return places
        return places[self._mask(plan, batch, places)]

    def _mask(self, plan: _Plan, batch: EventBatch, places: Places) -> npt.NDArray[np.bool_]:
        """For which of some events a plan holds."""
        if isinstance(plan, _Part):
            return self._answers(plan, batch, places)
        if isinstance(plan, _Negated):
            return ~self._mask(plan.child, batch, places)
        mask = np.full(len(places), plan.both)
        open_ = np.arange(len(places))  # those that are not decided yet
        for child in plan.children:
            if not len(open_):
                break
            held = self._mask(child, batch, places[open_])
            decided = ~held if plan.both else held
            mask[open_[decided]] = not plan.both
            open_ = open_[~decided]
        return mask

    def _answers(self, part: _Part, batch: EventBatch, places: Places) -> npt.NDArray[np.bool_]:
        """The answers of a part for some events: looked up, and asked where that is the first time."""
        if part.table == OWN:
            return np.fromiter((bool(part.test(self._whole(batch, at))) for at in places.tolist()), bool, len(places))
        table, ids = self._tables[part.table], batch.ids[part.table][places]
        if part.version != table.version:
            part.answers, part.version = np.zeros(1024, np.uint8), table.version
        if len(part.answers) < len(table.rows):
            more = np.zeros(max(2 * len(part.answers), len(table.rows)), np.uint8)
            more[: len(part.answers)] = part.answers
            part.answers = more
        found = part.answers[ids]
        if not found.all():
            for row in set(ids[found == _UNKNOWN].tolist()):
                part.answers[row] = _YES if part.test(table.rows[row]) else _NO
            found = part.answers[ids]
        yes: npt.NDArray[np.bool_] = found == _YES
        return yes

    def _whole(self, batch: EventBatch, at: int) -> Event:
        call, process, descriptor = (
            table.rows[ids[at]] for table, ids in zip(self._tables, batch.ids, strict=True)
        )  # fmt: skip
        return _Whole((call, process, descriptor, batch.own[at]))

    # how a condition is split

    def _plan(self, node: Node) -> _Plan:
        """The plan of a condition. Equal parts of several rules are one, and asked once."""
        key = sha256(repr(_without_places(node)).encode("utf-8", "surrogatepass")).digest()  # the text may be long
        if key not in self._plans:
            self._plans[key] = self._made(node)
        return self._plans[key]

    def _made(self, node: Node) -> _Plan:
        tables = {table_of(name) for check in checks(node) for name in _names(check)}
        if len(tables) <= 1 or isinstance(node, Check):
            return _Part(tables.pop() if len(tables) == 1 else OWN, Compiler(SYSCALL, self._pattern_bytes).test(node))
        if isinstance(node, Not):
            return _Negated(self._plan(node.child))
        assert isinstance(node, Junction)
        grouped: dict[int, list[Node]] = {}
        rest: list[Node] = []
        for child in node.children:
            own = {table_of(name) for check in checks(child) for name in _names(check)}
            grouped.setdefault(own.pop(), []).append(child) if len(own) == 1 else rest.append(child)
        alone = [each[0] if len(each) == 1 else Junction(node.word, tuple(each)) for each in grouped.values()]
        children = [self._plan(child) for child in (*alone, *rest)]
        return _Joined(node.word == "and", tuple(sorted(children, key=_cost)))


def _cost(plan: _Plan) -> int:
    """What is asked first: what has fewest rows, then what is joined of several, then what each event is asked."""
    if isinstance(plan, _Part):
        return {CALL: 0, DESCRIPTOR: 1, PROCESS: 2, OWN: 1000}[plan.table]
    if isinstance(plan, _Negated):
        return 3 + _cost(plan.child)
    return 3 + sum(map(_cost, plan.children))


def _names(check: Check) -> Iterable[str]:
    for side in (check.left, check.right):
        if side is not None:
            yield from names(side)


def _without_places(node: Any) -> Any:
    """A tree as plain tuples, without the positions of its parts."""
    if isinstance(node, tuple):
        return tuple(map(_without_places, node))
    if not hasattr(node, "__dataclass_fields__"):
        return node
    parts = (getattr(node, name) for name in node.__dataclass_fields__ if name != "at")
    return (type(node).__name__, *map(_without_places, parts))


def _by_type(batch: EventBatch) -> dict[str, Places]:
    present = np.flatnonzero(np.bincount(batch.types, minlength=len(batch.names)))
    return {batch.names[which]: np.flatnonzero(batch.types == which) for which in present.tolist()}
