"""The system calls of workloads, also of those that are gone: in a file that outlives the agent and the machine."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from agent.files import StateFile

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MOST_NUMBER = 1 << 62
#: Of the bits of calls, as hexadecimal digits.
_LONGEST_HEX = 512 // 4


class WorkloadContainer(NamedTuple):
    """A container of a workload, KIND/NAME; outside Kubernetes a container alone."""

    namespace: str
    workload: str
    container: str


@dataclass
class SeenCalls:
    """What the containers of a workload called: a bit for each number. Times are nanoseconds since 1970.

    containers is how many there were, older how many of these began before they were watched.
    """

    calls: int = 0
    compat: int = 0
    containers: int = 0
    older: int = 0
    first: int = 0
    last: int = 0


@dataclass
class Live:
    """A container that is there. older: it began before it was watched. counted: as one of its workload's."""

    who: WorkloadContainer
    older: bool
    counted: bool = False


class CallingWorkloads:
    """Remembers what workloads called."""

    def __init__(self, file: Path, most: int, boot: str = "") -> None:
        """Go on with what is in file, as far as it can be read; of most containers of workloads at most."""
        self._memory, self._most, self._dirty = StateFile(file, "system calls seen before"), most, False
        self.found: dict[WorkloadContainer, SeenCalls] = {}
        self.live: dict[int, Live] = {}
        #: since when calls are recorded; how much was removed to make room; containers of which no names are known
        self.began, self.evicted, self.nameless = time.time_ns(), 0, 0
        self._boot = boot or _BOOT.read_text().strip()
        self._memory.recall(self._recall)

    @property
    def problem(self) -> str:
        """Why the file is not up to date; empty if it is."""
        return self._memory.problem

    def _recall(self, saved: dict[str, Any]) -> None:
        began, evicted, nameless = (_number(saved[name]) for name in ("began", "evicted", "nameless"))
        found = {
            _who(who): SeenCalls(_bits(calls), _bits(compat), *map(_number, numbers))
            for who, calls, compat, *numbers in saved["workloads"]
        }
        live = {
            _number(cgroup_id): Live(_who(who), bool(older), bool(counted))
            for cgroup_id, who, older, counted in saved["live"]
        }
        if saved["boot"] != self._boot:  # cgroups have other ids
            live = {}
        self.began, self.evicted, self.nameless, self.found, self.live = began, evicted, nameless, found, live

    def begin(self) -> None:
        """Note that the kernel's table is new: who runs now is older."""
        self.began, self.live, self._dirty = time.time_ns(), {}, True

    def come(self, cgroup_id: int, who: WorkloadContainer, older: bool) -> Live:
        """Note a container. Whose it is may be known better later, until its calls are taken in."""
        live = self.live.get(cgroup_id)
        if live is None:
            live = self.live[cgroup_id] = Live(who, older)
            self._dirty = True
        elif not live.counted and live.who != who:
            live.who, self._dirty = who, True
        return live

    def see(self, live: Live, calls: int, compat: int, first: int, last: int) -> None:
        """Take in what a container has called so far."""
        known = self.found.setdefault(live.who, SeenCalls())
        known.calls |= calls
        known.compat |= compat
        known.first, known.last = min(known.first or first, first), max(known.last, last)
        if not live.counted:
            live.counted = True
            known.containers, known.older = known.containers + 1, known.older + live.older
        self._dirty = True
        while len(self.found) > self._most:
            self._make_room()

    def _make_room(self) -> None:
        """Remove the one that was not seen for longest, of the namespace that has most."""
        crowds = Counter(who.namespace for who in self.found)
        crowded = max(crowds, key=lambda name: (crowds[name], name))
        del self.found[
            min((who for who in self.found if who.namespace == crowded), key=lambda who: self.found[who].last)
        ]
        self.evicted += 1

    def miss(self) -> None:
        """Count a container that came and went while no agent was there."""
        self.nameless, self._dirty = self.nameless + 1, True

    def forget(self, cgroup_id: int) -> None:
        """A container is gone, and all that it called is known."""
        self._dirty |= self.live.pop(cgroup_id, None) is not None

    def save(self) -> None:
        """Write the file, if something has changed."""
        if not self._dirty:
            return
        content: dict[str, Any] = {
            "boot": self._boot,
            "began": self.began,
            "evicted": self.evicted,
            "nameless": self.nameless,
            "workloads": [
                [[*who], f"{each.calls:x}", f"{each.compat:x}", each.containers, each.older, each.first, each.last]
                for who, each in self.found.items()
            ],
            "live": [[at, [*each.who], each.older, each.counted] for at, each in self.live.items()],
        }
        self._dirty = not self._memory.write(content)  # tried again the next time


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST_NUMBER:
        raise ValueError(f"not a number: {value!r}")
    return value


def _bits(text: Any) -> int:
    if not isinstance(text, str) or not 0 < len(text) <= _LONGEST_HEX:
        raise ValueError(f"not the bits of calls: {text!r}")
    return int(text, 16)


def _who(value: Any) -> WorkloadContainer:
    who = WorkloadContainer(*value)
    if not all(isinstance(each, str) for each in who):
        raise ValueError(f"not a container of a workload: {value!r}")
    return who
