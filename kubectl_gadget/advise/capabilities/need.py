"""What workloads were asked for: the checks of their processes, added up. A pure function of rows and names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gadget.workload import SAFE, name_by_pod, workload

#: Programs and calls that are named of each capability; a container may make any number of names.
MOST_USES = 16
#: Processes of which it is known how many of their checks were counted; the oldest makes room.
MOST_COUNTED = 100_000
_REPLICAS = re.compile(rf"(.+)-{SAFE}{{6,10}}")


class Who(NamedTuple):
    """The containers of one name in all pods of a workload. kind is empty where nobody knows it."""

    namespace: str
    kind: str
    name: str
    container: str


class CapabilityCheck(NamedTuple):
    """A row: how often a process was asked so far. call is empty outside calls."""

    node: str
    namespace: str
    pod: str
    container: str
    id: str
    pid: int
    comm: str
    capability: str
    granted: bool
    times: int
    call: str
    level: int
    runtime: bool


class Use(NamedTuple):
    """A program that was asked in a call."""

    comm: str
    call: str


@dataclass
class CapabilityUses:
    """What is known of one capability: at least how often it was asked for in each program and call; the first ones."""

    uses: dict[Use, int] = field(default_factory=dict)
    times: int = 0

    def add(self, use: Use, times: int) -> None:
        """Count so many more checks."""
        self.times += times
        if use in self.uses or len(self.uses) < MOST_USES:
            self.uses[use] = self.uses.get(use, 0) + times


@dataclass
class Need:
    """What a workload's containers of one name were asked for.

    own are capabilities that were asked for in user namespaces below the node's alone: a process that makes one has
    them there, whatever the container has. containers is how many there were, older how many of these began before the
    watch.
    """

    who: Who
    granted: dict[str, CapabilityUses] = field(default_factory=dict)
    denied: dict[str, CapabilityUses] = field(default_factory=dict)
    own: dict[str, CapabilityUses] = field(default_factory=dict)
    containers: set[str] = field(default_factory=set)
    older: set[str] = field(default_factory=set)

    @property
    def add(self) -> list[str]:
        """What the workload needs, as Kubernetes has it, in the order of the alphabet."""
        return sorted(name.removeprefix("CAP_") for name in self.granted if name.startswith("CAP_"))

    @property
    def unknown(self) -> list[str]:
        """What it needs that has no name here."""
        return sorted(name for name in self.granted if not name.startswith("CAP_"))


class PodKey(NamedTuple):
    """A pod by name."""

    namespace: str
    name: str


class CapabilityNeeds:
    """Adds up checks."""

    def __init__(self) -> None:
        """Nothing was asked for yet."""
        self._checks: dict[tuple[str, str, str, str], dict[tuple[str, str, Use], int]] = {}
        self._counted: dict[tuple[object, ...], int] = {}

    def take(self, check: CapabilityCheck) -> None:
        """Take in a row. The counts of a process grow; where one begins anew, another process has its number."""
        if check.runtime or not check.id:
            return
        of = (check.node, check.id, check.pid, check.capability, check.granted, check.level > 0)
        before = self._counted.pop(of, 0)
        if len(self._counted) >= MOST_COUNTED:
            del self._counted[next(iter(self._counted))]
        self._counted[of] = check.times
        which = "own" if check.level else "granted" if check.granted else "denied"
        key = (check.namespace, check.pod, check.container, check.id)
        uses = self._checks.setdefault(key, {})
        use = (which, check.capability, Use(check.comm, check.call))
        if use not in uses and len(uses) >= 64 * MOST_USES:
            use = (which, check.capability, Use("", ""))
        uses[use] = uses.get(use, 0) + (check.times - before if check.times > before else check.times)

    def of(
        self, containers: Iterable[tuple[str, str, str, str]], older: set[str], owners: Mapping[PodKey, str]
    ) -> list[Need]:
        """What each workload needs, also those that were asked for nothing.

        containers that were watched: namespace, pod, name, id; older are the ids of those that began before. owners are
        KIND/NAME.
        """
        found: dict[Who, Need] = {}
        for namespace, pod, container, id_ in sorted({*containers, *self._checks}):
            who = who_is(namespace, pod, container, owners.get(PodKey(namespace, pod)))
            need = found.setdefault(who, Need(who))
            need.containers.add(id_)
            if id_ in older:
                need.older.add(id_)
            for (which, capability, use), times in self._checks.get((namespace, pod, container, id_), {}).items():
                getattr(need, which).setdefault(capability, CapabilityUses()).add(use, times)
        return [found[who] for who in sorted(found)]


def who_is(namespace: str, pod: str, container: str, owner: str | None) -> Who:
    """Whose container it is: by the owner of its pod, or where nobody was asked by the pod's name."""
    if owner:
        kind, _, name = owner.partition("/")
        revision = name.rpartition("-")[2] if kind == "ReplicaSet" and _REPLICAS.fullmatch(name) else ""
        return Who(namespace, *_split(workload(pod, owner, revision)), container)
    if owner is None and pod and (name := name_by_pod(pod)) != pod:
        kind = workload(pod, "", "").partition("/")[0]
        return Who(namespace, kind if kind == "Deployment" else "", name, container)
    return Who(namespace, *_split(workload(pod, "", "")), container)


def _split(text: str) -> tuple[str, str]:
    kind, _, name = text.partition("/")
    return kind, name
