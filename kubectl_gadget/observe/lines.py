"""A flow as a line: when, who, to whom, what became of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from gadget.catalog import Gadget
from gadget.endpoints import RAW, Endpoint
from gadget.kinds.base import UNKNOWN
from gadget.kinds.times import DURATION_UNKNOWN, clock, short_duration
from gadget.schema import Column, Row
from gadget.text import escape
from kubectl_gadget.output import Output, all_fields, terminal, text_of
from kubectl_gadget.output.stdout import write_text
from kubectl_gadget.text import fit, width

FIELDS = (
    "timestamp", "node", "pid", "comm", "type", "verdict", "direction", "protocol", "src", "dst", "version", "reason",
    "error", "drop", "domain", "domain_by", "sent", "received", "retransmits", "duration", "rtt",
)  # fmt: skip
_WORDS = ("type", "verdict", "direction", "protocol", "reason", "error", "domain_by")
#: Says something of a row, by its fields and words: whether that is bad news, and what; "" for nothing.
Remark = Callable[[Mapping[str, Any], Mapping[str, str]], tuple[bool, str]]
_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


def amount(size: int) -> str:
    """Bytes for people, in powers of 1000, as networks count."""
    unit, value = 0, float(size)
    while value >= 999.5 and unit < len(_UNITS) - 1:
        unit, value = unit + 1, value / 1000
    return f"{value:.1f} {_UNITS[unit]}" if unit and value < 99.95 else f"{value:.0f} {_UNITS[unit]}"


def named(end: Endpoint | None) -> str:
    """An end of a flow: a pod as NAMESPACE/POD, anything else as elsewhere."""
    return escape(str(end).removeprefix("pod/")) if end else UNKNOWN


def amounts(row: Mapping[str, Any], word: Mapping[str, str]) -> str:
    """Bytes of a flow both ways, up those that came from the end which began it."""
    up, down = row["sent"], row["received"]
    if word["direction"] == "ingress":
        up, down = down, up
    return f"{amount(up)}↑ {amount(down)}↓"


class FlowText(Output):
    """What forms of flows have in common: the fields that they need, and what became of a flow in words."""

    def __init__(self, gadget: Gadget, known: Mapping[str, Column]) -> None:
        """The fields as an agent knows them."""
        own = all_fields(gadget.schema)
        self.fields = [known.get(name, own[name]) for name in FIELDS]
        texts = {item.name: text_of(item) for item in self.fields}
        self._texts = {name: texts[name] for name in _WORDS}

    def words(self, row: Mapping[str, Any]) -> dict[str, str]:
        """The words for what a row says in numbers."""
        return {name: text(row[name]) for name, text in self._texts.items()}

    def how(self, row: Mapping[str, Any], word: Mapping[str, str], less: int = 0) -> str:
        """The outcome of a flow beside its verdict, with so many details less. Bytes up come from who began it."""
        took = "" if row["duration"] in (None, DURATION_UNKNOWN) else short_duration(row["duration"])
        if word["type"] == "begun":
            return f"begun in {took}" if took else "begun"
        if word["type"] == "waiting":
            return f"for {took} so far" if took else "so far"
        if word["type"] == "failed":
            after = f"after {took}" if took and row["duration"] else ""
            return " ".join(filter(None, [after, escape(row["drop"] or "")]))
        rtt = "" if row["rtt"] in (None, DURATION_UNKNOWN) else f"rtt {short_duration(row['rtt'])}"
        again = f"{row['retransmits']} sent again" if row["retransmits"] else ""
        end = word["reason"] if word["reason"] in ("reset", "aborted", "timed out") else ""
        details = [rtt if less < 1 else "", again if less < 2 else "", end]
        return " ".join(filter(None, [amounts(row, word), took if less < 3 else "", *details]))


@dataclass(frozen=True)
class Shape:
    """How much of a flow a line has room for.

    pod, namespace, word: the most cells of a name of these; 0 is any. is_brief: the namespace of who is asked goes if
    it is that of who asks. less: how many details go. tail: how much of the time goes.
    """

    pod: int = 0
    is_brief: bool = False
    has_other: bool = True
    has_process: bool = True
    less: int = 0
    tail: int = 3
    word: int = 0
    namespace: int = 0


#: What goes, one after the other, as a terminal gets narrower: not who it is about, nor what became of it.
_CHANGES: Sequence[dict[str, Any]] = (
    {"pod": 16},
    {"pod": 12},
    {"is_brief": True},
    {"less": 1},
    {"has_other": False},
    {"less": 3},
    {"word": 16},
    {"pod": 6},
    {"word": 8},
    {"namespace": 5},
    {"has_process": False},
)
#: On a narrower terminal times have no milliseconds: in all lines, so that these begin alike.
_EXACT_COLUMNS, _SECONDS = 100, 7
_SHAPES = [*accumulate(_CHANGES, lambda shape, change: replace(shape, **change), initial=Shape())]


class FlowLines(FlowText):
    """Writes a line for each row; red if the flow has failed. Behind its fields may be the row of the other end."""

    #: what there is to say of a row besides, by its fields and words: whether that is bad news, and what
    remarks: Sequence[Remark] = ()

    def __init__(self, gadget: Gadget, known: Mapping[str, Column]) -> None:
        """The fields as an agent knows them."""
        super().__init__(gadget, known)
        self._terminal, self._coloured = sys.stdout.isatty(), terminal.has_colours()

    def write(self, rows: Sequence[Row]) -> None:
        """Write lines that are no longer than the terminal is wide."""
        room = terminal.columns() if self._terminal else None
        write_text("".join([f"{self._line(row, room)}\n" for row in rows]))

    def _line(self, values: Row, room: int | None) -> str:
        row = dict(zip(FIELDS, values[: len(FIELDS)], strict=True))
        other = dict(zip(FIELDS, values[-1], strict=True)) if len(values) > len(FIELDS) and values[-1] else None
        flow = _Flow(self, row, other)
        told = other or row
        remarks = [remark(told, self.words(told)) for remark in self.remarks]
        said, denied = "".join(text for _, text in remarks), any(bad for bad, _ in remarks)
        tail = _SECONDS if room is not None and room < _EXACT_COLUMNS else Shape.tail
        line = f"{flow.line(replace(_SHAPES[0], tail=tail))}{said}"
        if room is not None and width(line) > room:
            below = fit(f"  {said.lstrip('; ')}", room)
            line = _narrow(flow, room, tail) + (f"\n{below}" if said else "")
        return f"{terminal.RED}{line}{terminal.PLAIN}" if self._coloured and (denied or flow.has_failed) else line


def _narrow(flow: _Flow, room: int, tail: int) -> str:
    """A flow in so many cells: what it has to lose goes, and what is left of the room is for what was cut."""
    for shape in (replace(each, tail=tail) for each in _SHAPES):
        line = flow.line(shape)
        if (spare := room - width(line)) < 0:
            continue
        if shape.word and width(wider := flow.line(replace(shape, word=shape.word + spare))) <= room:
            shape = replace(shape, word=shape.word + spare)
            line, spare = wider, room - width(wider)
        return flow.line(replace(shape, pod=shape.pod + spare // 2)) if shape.pod else line
    return fit(line, room)


class _Flow:
    """A flow, to be a line of some shape."""

    def __init__(self, told: FlowText, row: Mapping[str, Any], other: Mapping[str, Any] | None) -> None:
        self._told, self._row, self._other = told, row, other
        self._word = told.words(row)
        self._other_word = told.words(other) if other else None

    @property
    def has_failed(self) -> bool:
        """Whether one of its ends tells that it came to nothing."""
        return any(word["verdict"] != "forwarded" for word in (self._word, self._other_word) if word)

    def line(self, shape: Shape) -> str:
        """The line."""
        row, other, word = self._row, self._other, self._word
        egress = word["direction"] == "egress"
        client, server = (row["src"], row["dst"]) if egress else (row["dst"], row["src"])
        process, others = (
            process_of(row) if shape.has_process else "",
            process_of(other) if other and shape.has_other else "",
        )
        domain = cut(domain_of(row, word), shape.word)
        name = shown(server, shape, client)
        if other and other["src"][:2] != server[:2]:
            asked = str(server).removeprefix(f"svc/{other['src'].namespace}/").removeprefix("svc/").removeprefix("pod/")
            asked = asked.removesuffix(f":{other['src'].port}")
            kind = "svc" if server.kind == "svc" else "as"
            name = f"{shown(other['src'], shape, client)} ({kind} {cut(escape(asked), shape.word)})"
        ends = [shown(client, shape).rpartition(":")[0] or UNKNOWN, f"{name}{others}{domain}"]
        ends[0 if egress else 1] = f"{ends[0]}{process}" if egress else f"{name}{process}{domain}"
        what = f"{word['protocol']} {word['verdict']}".upper()
        time = min(row["timestamp"], other["timestamp"]) if other else row["timestamp"]
        how = f"{self._told.how(row, word, shape.less)}{self._difference()}"
        return f"{clock(time)[: -shape.tail]} {ends[0]} → {ends[1]} {what} {how}".rstrip()

    def _difference(self) -> str:
        """How the other end's account differs."""
        if not self._other or not self._other_word:
            return ""
        verdict = self._other_word["verdict"] if self._other_word["verdict"] != self._word["verdict"] else ""
        ours, theirs = amounts(self._row, self._word), amounts(self._other, self._other_word)
        exactly = (self._row["sent"], self._row["received"]) == (self._other["received"], self._other["sent"])
        differs = self._word["type"] == "ended" and not exactly
        if differs and ours == theirs:
            theirs = f"{self._other['received']} B↑ {self._other['sent']} B↓"
        said = " ".join(filter(None, [verdict.upper(), theirs if differs else ""]))
        return f"; the other end: {said}" if said else ""


def cut(text: str, cells: int) -> str:
    """A text, in so many cells if that is not 0."""
    return fit(text, cells, middle=True) if cells else text


def shown(end: Endpoint | None, shape: Shape, beside: Endpoint | None = None) -> str:
    """An end of a flow in a line of some shape; beside: the end that stands before it."""
    if end is None:
        return UNKNOWN
    if end.kind == RAW.kind:
        return escape(str(end))
    namespace = "" if shape.is_brief and beside and beside.namespace == end.namespace else end.namespace
    kind = "" if end.kind == "pod" else end.kind
    parts = (kind, cut(escape(namespace), shape.namespace), cut(escape(end.name), shape.pod))
    return f"{'/'.join(filter(None, parts))}:{end.port}"


def process_of(row: Mapping[str, Any]) -> str:
    """A process, to stand behind its end; nothing if it is not known."""
    return f" {escape(row['comm'])}[{row['pid']}]" if row["pid"] else ""


def domain_of(row: Mapping[str, Any], word: Mapping[str, str]) -> str:
    """The name that a flow was made for, to stand behind the end that has it; nothing if that end says as much."""
    if not row["domain"] or (word["domain_by"] != "sni" and row["dst"] and row["dst"].kind != RAW.kind):
        return ""
    return f" {escape(row['domain'])}" + " (stale)" * (word["domain_by"] == "stale")
