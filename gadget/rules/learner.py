"""Learns what containers do from batches of the gadget `detect`: programs, files written, ports, peers.

What is learned of is said by rules in Falco's language, and those of a baseline begin with the same conditions. So what
was learned is what is judged. Python looks at each process and descriptor once, not at each event.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any

import numpy as np

from gadget.rules.batch import EventBatch, Places
from gadget.rules.calls import CallFields
from gadget.rules.live import Judge, WholeEvent
from gadget.rules.processes import ProcessSurroundings
from gadget.rules.ruleset import load
from gadget.rules.sections import Packed
from gadget.rules.seen import FILES, PEERS, PORTS, PROGRAMS, Seen
from gadget.schema import Schema

#: A runtime at work in a container until it starts the container's program, which is looked at. runc and crun run from
#: a mount of their own or from memory; a program that is called like that has to be started, which is seen.
RUNTIME = (
    'proc.name startswith "runc" or proc.name in (crun, youki, conmon) or proc.cmdline = "exe init"',
    'proc.exepath in ("/", "/runc", "/crun") or proc.exepath startswith "/memfd:runc_cloned:" '
    'or proc.exepath startswith "/memfd:crun" or proc.exepath endswith "bin/runc" or proc.exepath endswith "bin/crun" '
    'or proc.exepath endswith "bin/youki" or proc.exepath endswith "bin/conmon"',
)
#: What runc begins in a container's cgroup, or just before it is there: itself, from a mount of its own or from memory.
_RUNC = (
    'proc.cmdline in ("runc init", "exe init") and proc.pname startswith "runc" '
    'and (proc.exepath in ("/", "/runc") or proc.exepath startswith "/memfd:runc_cloned:")'
)
_WHOSE = f"not (({RUNTIME[0]}) and ({RUNTIME[1]}))"
#: Devices that anybody writes to.
DEVICES = "/dev/null, /dev/zero, /dev/full, /dev/tty, /dev/ptmx, /dev/pts, /dev/console, /dev/random, /dev/urandom"
OPENED = "opened"
#: What is watched, by what it tells: conditions on events, which a baseline's rules have too.
CONDITIONS = {
    PROGRAMS: f"evt.type in (execve, execveat) and evt.rawres >= 0 and proc.exepath exists and not ({_RUNC})",
    OPENED: "evt.type in (open, openat, openat2, creat) and fd.num >= 0 and fd.name exists "
    f"and (evt.is_open_write = true or evt.type = creat) and not fd.name pmatch ({DEVICES}) and {_WHOSE}",
    FILES: "evt.type in (rename, renameat, renameat2, link, linkat) and evt.rawres >= 0 and evt.arg.newpath exists "
    f"and {_WHOSE}",
    PORTS: "(evt.type = listen or (evt.type = bind and fd.l4proto = udp)) and evt.rawres >= 0 and fd.lport > 0 "
    f"and {_WHOSE}",
    PEERS: "(evt.type = connect or (evt.type in (sendto, sendmsg) and fd.l4proto = udp)) and fd.sip exists "
    f"and {_WHOSE}",
}
#: Containers that are known at once; of more the one of which nothing was new for longest is forgotten.
MOST_CONTAINERS = 1024
#: How long a peer waits for the answer of DNS that names it, which comes another way, and how often it is looked for
#: again: a program may keep an address for longer than its answer counts.
NAMED_SECONDS, AGAIN_SECONDS = 1.0, 60.0
#: Peers of all containers that wait.
MOST_WAITING = 16_384
#: What processes differ in by their number.
_NUMBERED = re.compile(r"^/proc/[0-9]+(/task/[0-9]+)?/")

New = dict[str, list[str]]


class Learner(Judge):
    """Knows what each container does."""

    def __init__(
        self, schema: Schema, surroundings: ProcessSurroundings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Learn of events in a schema."""
        super().__init__(load([("baseline", _rules())]), schema, surroundings)
        self._clock = clock
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._new: dict[str, New] = {}
        self._waiting: dict[tuple[str, bytes], tuple[int, float]] = {}
        self._pairs: dict[str, set[int]] = {}
        self._versions: tuple[int, ...] = ()
        self._again_at = 0.0
        #: a cgroup of each container that was seen
        self.cgroups: dict[str, int] = {}
        #: containers that were forgotten, and peers that had no room to wait
        self.forgotten = self.crowded = 0

    def learn(self, sections: Iterable[Packed], clock_offset_ns: int) -> None:
        """Take in a batch. Times since boot lack so many nanoseconds."""
        for rule, places, batch in self.fired(sections, clock_offset_ns):
            versions = tuple(table.version for table in self._tables)
            if versions != self._versions:  # ids mean something else
                self._versions = versions
                self._pairs = {}
            self._take(rule.name, places, batch)

    def add(self, key: str, kind: str, value: str) -> None:
        """Note that a container does something. The container need not have been seen by learn()."""
        if new := self._of(key).add(kind, value):
            self._new.setdefault(key, {}).setdefault(kind, []).append(new)

    def collect(self, *, whole: bool = False) -> dict[str, New]:
        """What is new since the last call, by container; with whole also peers that still wait for their names."""
        now = self._clock()
        for (key, address), (cgroup_id, since) in list(self._waiting.items()):
            if whole or now - since >= NAMED_SECONDS:
                del self._waiting[key, address]
                names = self._surroundings.domains(cgroup_id, address)
                for value in names or (str(ip_address(address)),):
                    self.add(key, PEERS, value)
        if now >= self._again_at:
            self._again_at = now + AGAIN_SECONDS
            self._pairs.pop(PEERS, None)
        new, self._new = self._new, {}
        return new

    def more(self, key: str) -> dict[str, int]:
        """How often there was no room for something of a container, by kind."""
        return dict(self._seen[key].more) if key in self._seen else {}

    def _of(self, key: str) -> Seen:
        if key not in self._seen:
            self._seen[key] = Seen()
            if len(self._seen) > MOST_CONTAINERS:
                oldest, _ = self._seen.popitem(last=False)
                self.cgroups.pop(oldest, None)
                self.forgotten += 1
        self._seen.move_to_end(key)
        return self._seen[key]

    def _take(self, what: str, places: Places, batch: EventBatch) -> None:
        _, process, descriptor = (ids[places].astype(np.uint64) for ids in batch.ids)
        pairs, first = np.unique(process << np.uint64(32) | descriptor, return_index=True)
        known = self._pairs.setdefault(what, set())
        for pair, place in zip(pairs.tolist(), first.tolist(), strict=True):
            if pair not in known:
                known.add(pair)
                call = batch.own[places[place]]
                assert isinstance(call, CallFields)
                self._look(what, call)

    def _look(self, what: str, call: CallFields) -> None:
        """Take in the first event of a process and descriptor."""
        cgroup_id, event = call.process.now.cgroup_id, WholeEvent(call)
        key = event.get("container.id")
        if not key or key == "host":
            return
        self.cgroups.setdefault(key, cgroup_id)
        if what == PEERS:
            self._wait(key, cgroup_id, event)
        else:
            kind, value = _VALUES[what](event)
            self.add(key, kind, value)

    def _wait(self, key: str, cgroup_id: int, event: WholeEvent) -> None:
        own = f"{event.get('fd.l4proto')}/{event.get('fd.lport')}"
        if event.get("evt.type") != "connect" and self._of(key).has(PORTS, own):
            return  # an answer
        address = event.get("fd.sip")
        if len(self._waiting) < MOST_WAITING:
            self._waiting.setdefault((key, address), (cgroup_id, self._clock()))
        else:
            self._of(key).more[PEERS] += 1
            self.crowded += 1


def numberless(path: str) -> str:
    """A path with a star in place of each process number."""
    return _NUMBERED.sub(lambda found: "/proc/*/task/*/" if found[1] else "/proc/*/", path)


_VALUES: dict[str, Callable[[WholeEvent], tuple[str, Any]]] = {
    PROGRAMS: lambda event: (PROGRAMS, event.get("proc.exepath")),
    OPENED: lambda event: (FILES, numberless(event.get("fd.name"))),
    FILES: lambda event: (FILES, event.get("evt.arg.newpath")),
    PORTS: lambda event: (PORTS, f"{event.get('fd.l4proto') or 'other'}/{event.get('fd.lport')}"),
}


def _rules() -> str:
    return "".join(
        f"- rule: {what}\n  desc: learned of\n  condition: '{condition}'\n  output: seen\n  priority: DEBUG\n"
        for what, condition in CONDITIONS.items()
    )
