"""Events of any gadget as lines: when, who, a word for the kind, and what happened."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import Any, NamedTuple

from gadget.catalog import Gadget
from gadget.kinds import Cut
from gadget.kinds.base import NONE, UNKNOWN
from gadget.kinds.times import Duration, clock
from gadget.schema import Column, Row, Schema
from gadget.story import Part, Story, read_line
from gadget.text import counted, escape
from kubectl_gadget.output import Output, all_fields, terminal, text_of
from kubectl_gadget.output.forms.documents import JsonLines
from kubectl_gadget.output.stdout import write_all, write_text
from kubectl_gadget.text import fit, fit_endpoint, pad, width

#: The columns stand so far apart.
GAP = "  "
#: What a field may come down to where the line has no room, if that saves enough.
LEAST, SAVES = 8, 4
#: How runc calls the processes by which it prepares a container, and the word for all that they do.
RUNTIME, PREPARES = "runc:[", "start"
#: Pods that are remembered, to know which have several containers.
MOST_PODS = 10_000
#: What every line begins with is made of these.
_WHO = ("timestamp", "namespace", "pod", "container")
_CUTTERS: Mapping[Cut, Callable[..., str]] = {
    Cut.MIDDLE: partial(fit, middle=True),
    Cut.END: fit,
    Cut.HOST: fit_endpoint,
}


class _Piece(NamedTuple):
    """A piece of a line: text alone if at is None, or the value at a place in the row, with text around it.

    One that is spare, a time or a word that the error behind it says again, goes first where there is no room, then one
    that is aside: in brackets or behind a comma. One that differs is a time, which is not told of several alike.
    """

    before: str
    behind: str = ""
    at: int | None = None
    text: Callable[[Any], str] = str
    silent: frozenset[str] = frozenset()
    may_go: bool = False
    cut: Callable[..., str] | None = None
    spare: bool = False
    differs: bool = False


class Teller:
    """Tells the events of one gadget, in the words of one agent."""

    def __init__(self, gadget: Gadget, story: Story, schema: Schema, *, every: bool, named: bool = False) -> None:
        """Fields have every field of an event, or those that a line needs. named: the user asked for just this kind."""
        self.kind, self._is_failure = story.kind, story.is_failure
        known = _in_words_of(gadget.schema, schema)
        failing = [name for name, item in known.items() if item.means.is_failure or name in gadget.good]
        names = [*all_fields(gadget.schema)] if every else [*dict.fromkeys((*_WHO, *story.fields, *failing))]
        self.fields: Sequence[Column] = [known[name] for name in names]
        at = {name: number for number, name in enumerate(names)}

        def said_again(behind: Part | None) -> bool:
            return behind is not None and behind.field == "error" and behind.before == " ("

        def piece(part: Part, behind: Part | None) -> _Piece:
            if not part.field:
                return _Piece(part.before)
            item, silent = known[part.field], frozenset(story.silent.get(part.field, ()))
            cut = _CUTTERS[item.means.cut] if item.means.cut else None
            differs = part.may_go and isinstance(item.means, Duration)
            spare = differs or (part.may_go and said_again(behind))
            text = text_of(item)
            return _Piece(part.before, part.behind, at[part.field], text, silent, part.may_go, cut, spare, differs)

        def pieces(line: str) -> list[_Piece]:
            parts = read_line(line)
            return [piece(part, behind) for part, behind in zip_longest(parts, parts[1:])]

        self._pieces: list[_Piece] = []
        self._failed: list[_Piece] = []
        if not every:
            self._pieces, self._failed = pieces(story.line), pieces(story.failed or story.line)
        self._runtime = "" if named else story.runtime
        self._comm = at["comm"] if self._runtime and "comm" in at else 0
        self._failing = [] if every else [(at[name], _test(known[name], gadget.good.get(name))) for name in failing]
        told = [each.at for each in (*self._pieces, *self._failed) if each.at is not None and not each.differs]
        #: what those events have in common that have the same line
        self._alike = sorted({*told, *(at for at, _ in self._failing), *(at[name] for name in _WHO[1:])})

    def has_failed(self, values: Row) -> bool:
        """Whether an event is a failure."""
        return self._is_failure or any(test(values[at]) for at, test in self._failing)

    def prepares(self, values: Row) -> bool:
        """Whether an event is of a runtime that prepares a container, and no news. It is told by name alone."""
        if not self._runtime or not str(values[self._comm]).startswith(RUNTIME):
            return False
        return self.has_failed(values) == (self._runtime == "failed")

    def alike(self, values: Row) -> list[Any]:
        """What is the same of events whose lines are, but for times."""
        return [values[at] for at in self._alike]

    def line(self, values: Row, room: int | None, count: int = 1) -> str:
        """What happened, in at most room cells, or in all that it takes. The end, which has the error, stays.

        count: of so many events alike.
        """
        if count > 1:
            times = f" ×{count}"
            return self._line(values, None if room is None else max(room - width(times), 1), several=True) + times
        return self._line(values, room, several=False)

    def _line(self, values: Row, room: int | None, *, several: bool) -> str:
        shown: list[tuple[_Piece, str]] = []
        for piece in self._failed if self.has_failed(values) else self._pieces:
            value = None if piece.at is None else values[piece.at]
            text = "" if piece.at is None else piece.text(value)
            says_nothing = not value or text in ("", NONE, UNKNOWN) or text in piece.silent
            if not (several and piece.differs) and not (piece.may_go and says_nothing):
                shown.append((piece, text))
        texts = [f"{piece.before}{text}{piece.behind}" for piece, text in shown]
        if room is None:
            return "".join(texts)
        for at, (piece, _) in enumerate(shown[:-1]):  # the last one is what became of it
            if piece.spare and width("".join(texts)) > room:
                texts[at] = ""
        for at, (piece, text) in reversed([*enumerate(shown[:-1])]):
            over = width("".join(texts)) - room
            if over <= 0 or not piece.may_go or not piece.before.startswith((" (", ", ")):
                continue
            if piece.cut and width(text) - over >= LEAST:
                texts[at] = f"{piece.before}{piece.cut(text, width(text) - over)}{piece.behind}"
                break
            texts[at] = ""
            if shown[at + 1][0].before == "[":
                texts[at + 1] = ""
        for at, (piece, text) in sorted(enumerate(shown), key=lambda each: -width(each[1][1])):
            over = width("".join(texts)) - room
            if over > 0 and texts[at] and piece.cut and width(text) >= LEAST + SAVES:
                short = piece.cut(text, max(width(text) - over, LEAST))
                texts[at] = f"{piece.before}{short}{piece.behind}"
        return fit("".join(texts), room, middle=True)


def _in_words_of(own: Schema, schema: Schema) -> dict[str, Column]:
    """The fields that this program knows, with what an agent calls their values."""
    theirs = all_fields(schema)
    return {
        name: replace(item, values={**item.values, **theirs[name].values}) if name in theirs else item
        for name, item in (all_fields(own) | own.parts).items()
    }


def _test(item: Column, good: Sequence[str] | None) -> Callable[[Any], bool]:
    """A test for failures among values. An unknown value is no failure."""
    if good is None:
        return bool
    numbers = {int(number) for number, word in item.values.items() if word in good}
    return lambda value: value is not None and value not in numbers


#: An event: who can tell it, and its values.
Event = tuple[Teller, Row]


class StoryLines(Output):
    """Writes a line for each event, with the pod where there are several."""

    fields = ()

    def __init__(self, kinds: Sequence[str]) -> None:
        """Of these kinds."""
        self._kinds = max(map(len, kinds))
        self._terminal, self._coloured = sys.stdout.isatty(), terminal.has_colours()
        #: the first container of each pod; None once there is another one
        self._pods: dict[tuple[str, str], str | None] = {}
        self._namespaces: set[str] = set()
        #: the widest of pods' names, as they are while there is one namespace, and with it
        self._widest = [0, 0]
        self._begun = False

    def start(self, names: Sequence[Sequence[str]], rows: Sequence[Row] = ()) -> None:
        """Note the containers that exist."""
        for _, namespace, pod, container, *_ in names:
            self._notice(namespace, pod, container)

    def write(self, rows: Sequence[Row]) -> None:
        """Write lines, cut where the terminal ends. It is told the pod first if there is one, which no line names."""
        for _, values in rows:
            self._notice(*values[1:4])
        total = terminal.columns() if self._terminal else None
        prepared: dict[tuple[str, ...], Counter[str]] = {}
        told: list[tuple[Teller | None, Row]] = []
        for teller, values in rows:
            if not teller.prepares(values):
                told.append((teller, values))
                continue
            if (container := tuple(values[1:4])) not in prepared:
                prepared[container] = Counter()
                told.append((None, values))
            prepared[container][teller.kind] += 1
        lines = []
        for (one, _), alike in groupby(told, key=lambda row: (row[0], row[0].alike(row[1]) if row[0] else row[1][:4])):
            (_, values), *others = alike
            if one:
                lines.append(self._line(one, values, total, 1 + len(others)))
            else:
                lines.append(self._prepared(values, prepared[tuple(values[1:4])], total))
        if not self._begun and total and len(self._pods) == 1 and any(rows[0][1][1:4]):
            who = fit(_called(*rows[0][1][1:4], namespaced=True, contained=False), total)
            lines.insert(0, f"{terminal.BOLD}{who}{terminal.PLAIN}" if self._coloured else who)
        self._begun = True
        write_text("\n".join(lines) + "\n")

    def _notice(self, namespace: str, pod: str, container: str) -> None:
        pods = self._pods
        key = namespace, pod or container
        if pods.get(key, "") == container:
            return
        if len(pods) >= MOST_PODS:
            pods.clear()
        before = pods.get(key)
        pods[key] = None if key in pods else container
        if len(self._namespaces) < MOST_PODS:
            self._namespaces.add(namespace)
        for name in filter(None, [container, before]):  # one that was alone has its container's name with it now
            for namespaced in (False, True):
                called = _called(namespace, pod, name, namespaced=namespaced, contained=pods[key] is None)
                self._widest[namespaced] = max(self._widest[namespaced], width(called))

    def _who(self, namespace: str, pod: str, container: str) -> str:
        several = self._pods.get((namespace, pod or container), "") is None
        return _called(namespace, pod, container, namespaced=len(self._namespaces) > 1, contained=several)

    def _line(self, teller: Teller, values: Row, total: int | None, count: int) -> str:
        cells, room = self._begin(values, total)
        told = f"{teller.kind.ljust(self._kinds)}{GAP}{teller.line(values, room, count)}"
        red = self._coloured and teller.has_failed(values)
        return GAP.join([*cells, f"{terminal.RED}{told}{terminal.PLAIN}" if red else told])

    def _prepared(self, values: Row, kinds: Counter[str], total: int | None) -> str:
        """The line for all that a runtime did to prepare a container."""
        cells, room = self._begin(values, total)
        said = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common())
        text = f"{counted(kinds.total(), 'event')} of runc, before the program ({said})"
        word = PREPARES.ljust(self._kinds)
        text = text if room is None else fit(text, max(room + self._kinds - len(word), 1))
        return GAP.join([*cells, f"{word}{GAP}{text}"])

    def _begin(self, values: Row, total: int | None) -> tuple[list[str], int | None]:
        """The time and who it was; and the room that is left for what happened."""
        time, *who = values[:4]
        cells = [clock(time)[:-3]]
        plain = len(cells[0])
        if len(self._pods) > 1:
            room = self._widest[len(self._namespaces) > 1]
            room = room if total is None else min(room, max(total // 5, LEAST))
            cell = pad(fit(self._who(*who), room, middle=True), room)
            colour = terminal.colour_of(who[1])
            cells.append(f"{colour}{cell}{terminal.PLAIN}" if self._coloured else cell)
            plain += len(GAP) + room
        plain += len(GAP) + self._kinds + len(GAP)
        return cells, None if total is None else max(total - plain, 1)


def _called(namespace: str, pod: str, container: str, *, namespaced: bool, contained: bool) -> str:
    name = [pod, container if contained else ""] if pod else [container]
    return escape("/".join(filter(None, [namespace if namespaced else "", *name]))) or NONE


class StoryDocuments(Output):
    """Writes each event as JSON: its kind, and all fields that its gadget has."""

    fields = ()

    def __init__(self) -> None:
        """Nothing has been written yet."""
        self._encoders: dict[Teller, JsonLines] = {}

    def write(self, rows: Sequence[Row]) -> None:
        """Write events at once."""
        parts = []
        for teller, events in groupby(rows, key=itemgetter(0)):
            if teller not in self._encoders:
                if len(self._encoders) >= MOST_PODS:
                    self._encoders.clear()  # agents that begin anew have new ones
                self._encoders[teller] = JsonLines([Column("kind", "identity"), *teller.fields])
            parts.append(self._encoders[teller].encoded([(teller.kind, *values) for _, values in events]))
        write_all(b"".join(parts))
