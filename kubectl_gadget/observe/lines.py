"""A flow as a line: when, who, to whom, what became of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from gadget.catalog import Gadget
from gadget.endpoints import RAW, Endpoint
from gadget.kinds.base import UNKNOWN
from gadget.kinds.times import DURATION_UNKNOWN, clock, short_duration
from gadget.schema import Column, Row
from gadget.text import escape
from kubectl_gadget.output import Output, all_fields, terminal, text_of
from kubectl_gadget.output.stdout import write_text
from kubectl_gadget.text import fit

FIELDS = (
    "timestamp", "node", "pid", "comm", "type", "verdict", "direction", "protocol", "src", "dst", "version", "reason",
    "error", "drop", "domain", "domain_by", "sent", "received", "retransmits", "duration", "rtt",
)  # fmt: skip
_WORDS = ("type", "verdict", "direction", "protocol", "reason", "error", "domain_by")
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


class Told(Output):
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

    def how(self, row: Mapping[str, Any], word: Mapping[str, str]) -> str:
        """What became of a flow, beside its verdict. Bytes up are those of the end that began it."""
        took = "" if row["duration"] in (None, DURATION_UNKNOWN) else short_duration(row["duration"])
        if word["type"] == "begun":
            return f"begun in {took}" if took else "begun"
        if word["type"] == "waiting":
            return f"for {took} so far" if took else "so far"
        if word["type"] == "failed":
            after = f"after {took}" if took and row["duration"] else ""
            return " ".join(filter(None, [after, escape(row["drop"] or "")]))
        up, down = row["sent"], row["received"]
        if word["direction"] == "ingress":
            up, down = down, up
        rtt = "" if row["rtt"] in (None, DURATION_UNKNOWN) else f"rtt {short_duration(row['rtt'])}"
        again = f"{row['retransmits']} sent again" if row["retransmits"] else ""
        end = word["reason"] if word["reason"] in ("reset", "aborted", "timed out") else ""
        return " ".join(filter(None, [f"{amount(up)}↑ {amount(down)}↓", took, rtt, again, end]))


class Lines(Told):
    """Writes a line for each row; red if the flow has failed."""

    def __init__(self, gadget: Gadget, known: Mapping[str, Column]) -> None:
        """The fields as an agent knows them."""
        super().__init__(gadget, known)
        self._terminal, self._coloured = sys.stdout.isatty(), terminal.has_colours()

    def write(self, rows: Sequence[Row]) -> None:
        """Write lines, cut where the terminal ends."""
        room = terminal.columns() if self._terminal else None
        write_text("".join([f"{self._line(dict(zip(FIELDS, row, strict=True)), room)}\n" for row in rows]))

    def _line(self, row: Mapping[str, Any], room: int | None) -> str:
        word, process = self.words(row), process_of(row)
        domain = domain_of(row, word)
        ends = [f"{_without_port(row['src'])}{process}", f"{named(row['dst'])}{domain}"]
        if word["direction"] == "ingress":
            ends = [_without_port(row["dst"]), f"{named(row['src'])}{process}{domain}"]
        what = f"{word['protocol']} {word['verdict']}".upper()
        line = f"{clock(row['timestamp'])[:-3]} {ends[0]} → {ends[1]} {what} {self.how(row, word)}".rstrip()
        line = line if room is None else fit(line, room, middle=True)
        return f"{terminal.RED}{line}{terminal.PLAIN}" if self._coloured and word["verdict"] != "forwarded" else line


def process_of(row: Mapping[str, Any]) -> str:
    """A process, to stand behind its end; nothing if it is not known."""
    return f" {escape(row['comm'])}[{row['pid']}]" if row["pid"] else ""


def domain_of(row: Mapping[str, Any], word: Mapping[str, str]) -> str:
    """The name that a flow was made for, to stand behind the end that has it; nothing if that end says as much."""
    if not row["domain"] or (word["domain_by"] != "sni" and row["dst"] and row["dst"].kind != RAW.kind):
        return ""
    return f" {escape(row['domain'])}" + " (stale)" * (word["domain_by"] == "stale")


def _without_port(end: Endpoint | None) -> str:
    text = named(end)
    return text.rpartition(":")[0] if end else text
