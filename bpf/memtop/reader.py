"""Memory of containers, by the files of their cgroups: of version 2, or of version 1 beside it with the same path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from agent.containers.tracker import Cgroup
from agent.files import read_text
from agent.readers import Reading
from gadget.errors import Unsupported
from gadget.kinds.numbers import COUNT_UNKNOWN

#: Version 1 has no word for no limit: what is above is more than a machine has.
_NONE = 1 << 62
_STAT_BYTES = 1 << 14

Values = dict[str, int]


class Reader:
    """Reads memory, and remembers what was read last of each container."""

    def __init__(self, mount: Path, proc: Path) -> None:
        """Where cgroup2 is mounted at mount. Unsupported if no version has the controller."""
        self._mount, self._first = mount, mount.parent / "memory"
        self._last: dict[int, Values] = {}
        if "memory" in _text(mount / "cgroup.controllers").split():
            self._read: Callable[[Path], Values | None] = self._version_2
        elif (self._first / "memory.usage_in_bytes").exists():
            self._read = self._version_1
        else:
            raise Unsupported(
                "this node counts no memory: no cgroup version has the memory controller (cgroup_disable?)"
            )

    def read(self, containers: Sequence[Cgroup]) -> Iterator[Reading]:
        """Each container that runs, and once more each that was there the last time and is not any more."""
        before, self._last = self._last, {}
        for each in containers:
            if values := self._read(Path(each.path.lstrip("/"))):
                self._last[each.id] = values
                yield Reading(each.id, values)
        for id_, values in before.items():
            if id_ not in self._last:
                yield Reading(id_, {**values, "ended": 1})

    def _version_2(self, below: Path) -> Values | None:
        folder = self._mount / below
        usage = _number(folder / "memory.current")
        if usage is None:  # it has ended, or the controller is off there
            return None
        stat, events = _pairs(folder / "memory.stat"), _pairs(folder / "memory.events")
        return {
            "usage": usage,
            "limit": self._least(self._mount, below, "memory.max"),
            "rss": stat.get("anon", 0),
            "cache": stat.get("file", 0),
            "peak": _known(_number(folder / "memory.peak")),
            **{name: _known(events.get(name)) for name in ("high", "max", "oom", "oom_kill")},
        }

    def _version_1(self, below: Path) -> Values | None:
        folder = self._first / below
        usage = _number(folder / "memory.usage_in_bytes")
        if usage is None:
            return None
        stat, control = _pairs(folder / "memory.stat"), _pairs(folder / "memory.oom_control")
        return {
            "usage": usage,
            "limit": self._least(self._first, below, "memory.limit_in_bytes"),
            "rss": stat.get("total_rss", 0),
            "cache": stat.get("total_cache", 0),
            "peak": _known(_number(folder / "memory.max_usage_in_bytes")),
            "high": COUNT_UNKNOWN,
            "max": _known(_number(folder / "memory.failcnt")),
            "oom": COUNT_UNKNOWN,
            "oom_kill": _known(control.get("oom_kill")),
        }

    @staticmethod
    def _least(top: Path, below: Path, name: str) -> int:
        """The least limit of a cgroup and those above it; 0 if none has one."""
        limits = [_number(top / each / name) for each in (below, *below.parents)]
        return min((limit for limit in limits if limit is not None and limit < _NONE), default=0)


def _known(value: int | None) -> int:
    return COUNT_UNKNOWN if value is None else value


def _text(path: Path) -> str:
    with suppress(OSError):
        return read_text(path, _STAT_BYTES)
    return ""


def _number(path: Path) -> int | None:
    """None also for "max"."""
    with suppress(ValueError):
        return int(_text(path))
    return None


def _pairs(path: Path) -> Mapping[str, int]:
    found = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    return found
