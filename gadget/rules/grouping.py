"""Groups equal alerts into one with a count."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import NamedTuple

from gadget.rules.alerts import Alert

#: How long equal alerts are counted before the count is told, and of how many at a time.
WINDOW_NS, MOST = 60 * 1_000_000_000, 4096
#: Of them those of one container; what else it does is counted by rule alone, so that it takes no room from others
#: where alerts are kept.
MOST_OF_ONE = 128
#: Fields that differ from event to event without that the alert says something else.
_OF_EVENT = re.compile(r"(evt\.(time|num|rawtime|datetime)|proc|thread|user|group)\b")


#: Such fields have the port of a client, which is another one for each connection.
_CONNECTION = re.compile(r"(.*):(\d+)(->.*)", re.DOTALL)
_PORTS = ("fd.lport", "fd.rport")


class _Key(NamedTuple):
    """What equal alerts have in common. With neither program nor fields: what is beyond the share of a container."""

    rule: str
    cgroup_id: int
    program: Hashable = None
    shown: tuple[tuple[str, str], ...] = ()


class Groups:
    """Lets the first of equal alerts pass at once, and tells how many came after it.

    Alerts are equal if the rule, the container, the program of the process and the fields that are not about the
    process are, but for the port of a client, of which a busy server sees thousands. A probe that a runtime starts each
    few seconds is another process each time. None is dropped: all are in the counts.
    """

    def __init__(self, most_of_one: int = MOST_OF_ONE) -> None:
        """None yet."""
        self._most_of_one = most_of_one
        self._open: OrderedDict[_Key, tuple[int, Alert | None]] = OrderedDict()
        self._of: Counter[int] = Counter()  # how many are open of each container

    def add(self, alert: Alert) -> Iterator[Alert]:
        """The alerts to send now."""
        yield from self.due(alert.time_ns)
        key = _key(alert)
        if key not in self._open and self._of[key.cgroup_id] >= self._most_of_one:
            key = _Key(key.rule, key.cgroup_id)
        if key not in self._open:
            if len(self._open) >= MOST:
                yield from self._close(next(iter(self._open)))
            self._open[key] = alert.time_ns + WINDOW_NS, None
            self._of[key.cgroup_id] += 1
            yield alert
            return
        until, before = self._open[key]
        count = alert.count + (before.count if before else 0)
        since = before.since_ns if before else alert.since_ns or alert.time_ns
        self._open[key] = until, replace(alert, count=count, since_ns=since)

    def due(self, now_ns: int) -> Iterator[Alert]:
        """The counts of groups whose time is over."""
        while self._open and next(iter(self._open.values()))[0] <= now_ns:
            yield from self._close(next(iter(self._open)))

    def rest(self) -> Iterator[Alert]:
        """All counts."""
        while self._open:
            yield from self._close(next(iter(self._open)))

    def _close(self, key: _Key) -> Iterator[Alert]:
        _, more = self._open.pop(key)
        self._of[key.cgroup_id] -= 1
        if not self._of[key.cgroup_id]:
            del self._of[key.cgroup_id]
        if more:
            yield more


def _key(alert: Alert) -> _Key:
    fields = {name: str(value) for name, value in sorted(alert.fields.items()) if not _OF_EVENT.match(name)}
    fields.pop("fd.cport", None)
    if found := _CONNECTION.fullmatch(fields.get("fd.name", "")):
        host, port, server = found.groups()
        fields = {name: value for name, value in fields.items() if name not in _PORTS or value != port}
        fields["fd.name"] = f"{host}{server}"
    shown = tuple(fields.items())
    return _Key(alert.rule.name, alert.cgroup_id, alert.program, shown)
