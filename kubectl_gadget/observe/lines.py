"""A flow as a line: when, who, to whom, what became of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from gadget.catalog import Gadget
from gadget.endpoints import Endpoint
from gadget.kinds.base import UNKNOWN
from gadget.kinds.times import DURATION_UNKNOWN, clock, short_duration
from gadget.schema import Column, Row
from gadget.text import escape
from kubectl_gadget.output import Output, all_fields, terminal, text_of
from kubectl_gadget.output.stdout import write_text
from kubectl_gadget.text import fit

FIELDS = (
    "timestamp", "pid", "comm", "type", "verdict", "direction", "protocol", "src", "dst", "reason", "error", "drop",
    "sent", "received", "retransmits", "duration", "rtt",
)  # fmt: skip
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


class Lines(Output):
    """Writes a line for each row; red if the flow has failed."""

    def __init__(self, gadget: Gadget, known: Mapping[str, Column]) -> None:
        """The fields as an agent knows them."""
        own = all_fields(gadget.schema)
        self.fields = [known.get(name, own[name]) for name in FIELDS]
        self._texts = {item.name: text_of(item) for item in self.fields}
        self._terminal, self._coloured = sys.stdout.isatty(), terminal.has_colours()

    def write(self, rows: Sequence[Row]) -> None:
        """Write lines, cut where the terminal ends."""
        room = terminal.columns() if self._terminal else None
        write_text("".join([f"{self._line(dict(zip(FIELDS, row, strict=True)), room)}\n" for row in rows]))

    def _line(self, row: Mapping[str, Any], room: int | None) -> str:
        word = {name: self._texts[name](row[name]) for name in ("type", "verdict", "direction", "protocol")}
        process = f" {escape(row['comm'])}[{row['pid']}]" if row["pid"] else ""
        ends = [f"{_without_port(row['src'])}{process}", named(row["dst"])]
        up, down = row["sent"], row["received"]
        if word["direction"] == "ingress":
            ends, up, down = [_without_port(row["dst"]), f"{named(row['src'])}{process}"], down, up
        when = clock(row["timestamp"])[:-3]
        what = f"{word['protocol']} {word['verdict']}".upper()
        how = " ".join(filter(None, self._how(row, word["type"], up, down)))
        line = f"{when} {ends[0]} → {ends[1]} {what} {how}".rstrip()
        line = line if room is None else fit(line, room, middle=True)
        return f"{terminal.RED}{line}{terminal.PLAIN}" if self._coloured and word["verdict"] != "forwarded" else line

    def _how(self, row: Mapping[str, Any], kind: str, up: int, down: int) -> list[str]:
        took = "" if row["duration"] in (None, DURATION_UNKNOWN) else short_duration(row["duration"])
        if kind == "begun":
            return ["begun", f"in {took}" if took else ""]
        if kind == "waiting":
            return [f"for {took} so far" if took else "so far"]
        if kind == "failed":
            return [f"after {took}" if took and row["duration"] else "", escape(row["drop"] or "")]
        told = self._texts["reason"](row["reason"])
        rtt = "" if row["rtt"] in (None, DURATION_UNKNOWN) else f"rtt {short_duration(row['rtt'])}"
        again = f"{row['retransmits']} sent again" if row["retransmits"] else ""
        end = told if told not in ("closed", "none", "silent") else ""
        return [f"{amount(up)}↑ {amount(down)}↓", took, rtt, again, end]


def _without_port(end: Endpoint | None) -> str:
    text = named(end)
    return text.rpartition(":")[0] if end else text
