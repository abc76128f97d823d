"""Alerts: what rules say of events, in Falco's forms."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from gadget.kinds.times import exact_clock, rfc3339
from gadget.rules.checks import Event
from gadget.rules.files import PRIORITIES
from gadget.rules.processes import Program
from gadget.rules.recent import Happened
from gadget.rules.ruleset import Ruleset

#: The source of alerts that are about detect itself.
INTERNAL = "internal"


class Fired(Protocol):
    """What an alert says of its rule."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def priority(self) -> str:
        """One of PRIORITIES."""

    @property
    def source(self) -> str:
        """What its events come from."""

    @property
    def tags(self) -> frozenset[str]:
        """Its tags."""


@dataclass(frozen=True)
class Alert:
    """A rule that fired on an event at a time, in nanoseconds since 1970.

    count is on how many events it fired that were equal in process and descriptor, incomplete which of its fields could
    not be known. since_ns: when the first of several was, 0 if it is alone or that is not known. program: what the
    process runs. cgroup_id and node: where that was; 0 and empty if it is not an event of a process, or not known.
    ancestry has the process and its ancestors. happened is what the container did before; None if nobody looked.
    pod: the namespace and name of its pod, if it is of one.
    """

    rule: Fired
    time_ns: int
    text: str
    fields: dict[str, Any]
    count: int = 1
    cgroup_id: int = 0
    incomplete: tuple[str, ...] = ()
    node: str = ""
    since_ns: int = 0
    program: Hashable = None
    id: str = ""
    ancestry: tuple[Program, ...] = ()
    happened: tuple[Happened, ...] | None = None
    pod: tuple[str, str] = ("", "")

    def line(self) -> str:
        """Falco's line of text: local time, priority, output."""
        return f"{exact_clock(self.time_ns)}: {self.rule.priority} {self.text}"

    def json(self, hostname: str) -> bytes:
        """Falco's JSON, keys sorted, to the byte (falco_formats.cpp). hostname: of an event whose node is not known."""
        return dumps(self._said(hostname))

    def whole_json(self, hostname: str) -> bytes:
        """The same with what Falco does not tell: id, count, ancestry, incomplete."""
        more = {
            "id": self.id,
            "count": self.count,
            "incomplete": list(self.incomplete),
            "ancestry": [each._asdict() for each in self.ancestry],
        }
        return dumps(self._said(hostname) | more)

    def _said(self, hostname: str) -> dict[str, Any]:
        counted = {"evt.count": self.count} if self.count > 1 else {}  # in Falco it is 1 wherever a rule shows it
        return {
            "hostname": self.node or hostname,
            "output": self.line(),
            "output_fields": {**self.fields, **counted, "evt.time": self.time_ns},
            "priority": self.rule.priority,
            "rule": self.rule.name,
            "source": self.rule.source,
            "tags": sorted(self.rule.tags),
            "time": rfc3339(self.time_ns),
        }


def dumps(what: Any) -> bytes:
    """JSON with sorted keys. Texts of processes need not be UTF-8: what is not becomes U+FFFD."""
    try:
        return orjson.dumps(what, option=orjson.OPT_SORT_KEYS)
    except TypeError:
        return orjson.dumps(valid(what), option=orjson.OPT_SORT_KEYS)


def alerts(rules: Ruleset, event: Event, source: str, time_ns: int, *, first: bool = False) -> Iterator[Alert]:
    """What rules say of an event."""
    for rule in rules.matching(event, source, first=first):
        yield Alert(rule, time_ns, rule.output.text(event), rule.output.values(event))


def valid(what: Any) -> Any:
    """The same with texts that are UTF-8, where U+FFFD stands for bytes that are not, and numbers of 64 bits."""
    if isinstance(what, str):
        return what.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    if isinstance(what, dict):
        return {valid(key): valid(value) for key, value in what.items()}
    if isinstance(what, list | tuple):
        return [valid(each) for each in what]
    return what if not isinstance(what, int) or abs(what) < 1 << 63 else str(what)


def at_least(priority: str) -> frozenset[str]:
    """The priorities that are as urgent as one, or more."""
    return frozenset(PRIORITIES[: PRIORITIES.index(priority) + 1])
