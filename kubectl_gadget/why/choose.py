"""Which container a user means who asks why: of all that have a name, the one that is worst off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gadget.errors import UsageError
from gadget.pod_choice import ChosenPods
from gadget.text import escape
from kubectl_gadget.pods import name_choices, read_pods
from kubectl_gadget.stream.request import Selection
from kubectl_gadget.traceloop import instances
from kubectl_gadget.traceloop.instances import Instance
from kubectl_gadget.why.cluster import key_of
from kubectl_gadget.why.pod import PodContainer, containers, parse_time

#: How badly off a container is, the higher the worse.
DONE, RUNS, WAS_BAD, NOT_READY, CRASHED, STUCK, INIT = range(7)
#: What a container waits for that is on its way.
_STARTING = ("", "ContainerCreating", "PodInitializing")
_CRASH_LOOP = "CrashLoopBackOff"
#: Statuses of processes that a runtime ended.
_STOPPED = (9, 15, 137 << 8, 143 << 8)
#: An end within the last while says more of what does not get ready than what it does now, nanoseconds.
_RECENT_NS = 600_000_000_000


@dataclass(frozen=True)
class Candidate:
    """A container that a name stands for: its recordings, what the API server has of it, or both."""

    namespace: str
    pod: str
    container: str
    runs: tuple[Instance, ...] = ()
    status: PodContainer | None = None
    pod_known: bool = False
    rank: int = field(default=RUNS, init=False)

    def __post_init__(self) -> None:
        """Find out how badly off it is."""
        object.__setattr__(self, "rank", self._rank())

    @property
    def name(self) -> str:
        """namespace/pod/container, as far as they are known; fit for a terminal."""
        return escape("/".join(part for part in (self.namespace, self.pod, self.container) if part))

    @property
    def newest(self) -> Instance | None:
        """Its newest run that is recorded."""
        return max(self.runs, key=lambda each: each.newest, default=None)

    @property
    def crash(self) -> Instance | None:
        """The newest run that ended badly."""
        return max((each for each in self.runs if self._bad(each)), key=lambda each: each.newest, default=None)

    @property
    def instance(self) -> Instance | None:
        """The recording that tells most of why it is as it is; None if none does."""
        status, newest, crash = self.status, self.newest, self.crash
        if status is None or newest is None:
            return crash or newest
        if self.rank in (STUCK, INIT) and status.waiting and status.waiting.get("reason") != _CRASH_LOOP:
            # what keeps it from running now, the recording of an earlier run does not have
            return newest if newest.container.id == status.id and not newest.item.running else None
        if self.rank == NOT_READY and crash and newest.item.running:
            return crash if newest.item.started_ns - crash.item.ended_ns < _RECENT_NS and len(self.runs) > 2 else newest
        if status.runs and not newest.item.running and newest.container.id != status.id:
            return crash
        return crash or newest

    @property
    def when_ns(self) -> int:
        """When its present state began."""
        if crash := self.crash:
            return crash.item.ended_ns or crash.newest
        if self.status and self.status.ended:
            return parse_time(self.status.ended.get("finishedAt"))
        if self.status:
            return since_ns(self.status)
        return max((each.newest for each in self.runs), default=0)

    def _bad(self, run: Instance) -> bool:
        if run.crashed:
            return True
        # of what Kubernetes starts again whenever it ends, no end is good
        ended = not run.item.running and run.item.known
        spec = (self.status.pod.get("spec") or {}) if self.status else {}
        return ended and bool(spec) and not self.status.init and spec.get("restartPolicy", "Always") == "Always"  # type: ignore[union-attr]

    def _rank(self) -> int:
        if self.status is None:
            return self._rank_of_recordings()
        rank = rank_of(self.status)
        return WAS_BAD if rank in (RUNS, DONE) and self.crash and rank == RUNS else rank

    def _rank_of_recordings(self) -> int:
        crash, newest = self.crash, self.newest
        if crash is None or newest is None:
            return RUNS if newest and newest.item.running else DONE
        if self.pod_known:  # and so the pod is gone
            return DONE if crash.item.status in _STOPPED and not crash.item.oom else WAS_BAD
        return WAS_BAD if newest.item.running else CRASHED


def rank_of(status: PodContainer) -> int:
    """How badly off a container is, from the API server's status."""
    pod = status.pod.get("status") or {}
    reason = status.waiting.get("reason") or ""
    ended = status.ended
    bad_end = bool(ended.get("exitCode"))
    if pod.get("phase") == "Succeeded" or (status.done and status.init):
        return DONE
    if reason and reason not in (*_STARTING, _CRASH_LOOP):
        return INIT if status.init else STUCK
    if reason == _CRASH_LOOP or (bad_end and not status.runs):
        return INIT if status.init or (status.sidecar and not _initialized(status)) else CRASHED
    if pod.get("phase") == "Failed" and not status.done:
        return CRASHED
    if pod.get("phase") == "Pending" and not status.status and not _scheduled(status):
        return STUCK
    if reason == "PodInitializing" and not status.init:
        return WAS_BAD  # it is the init container that is asked about
    if status.runs:
        return NOT_READY if status.init or not status.status.get("ready") else RUNS
    return DONE if status.done else NOT_READY


def _condition(status: PodContainer, kind: str) -> Mapping[str, Any]:
    found = ((status.pod.get("status") or {}).get("conditions")) or ()
    return next((each for each in found if each.get("type") == kind), {})


def _scheduled(status: PodContainer) -> bool:
    return _condition(status, "PodScheduled").get("status") != "False"


def _initialized(status: PodContainer) -> bool:
    return _condition(status, "Initialized").get("status") == "True"


def since_ns(status: PodContainer) -> int:
    """Since when a pod has not been ready, or since when it is there."""
    ready = _condition(status, "Ready")
    return parse_time(ready.get("lastTransitionTime")) or parse_time(
        (status.pod.get("metadata") or {}).get("creationTimestamp")
    )


def candidates(
    found: Sequence[Instance], pods: Sequence[Mapping[str, Any]] | None, selection: Selection, name: str = ""
) -> list[Candidate]:
    """The containers that a name stands for, or all that are selected, the worst first.

    UsageError if there are none: it tells what there is.
    """
    here = instances.among(found, selection)
    chosen = selection.chosen()
    listed = [
        (key_of(pod), each)
        for pod in pods or ()
        for each in containers(pod)
        if chosen.matches(*key_of(pod), each.name, (pod.get("metadata") or {}).get("labels") or {}) is not False
    ]
    if name:
        exact = [(key, each) for key, each in listed if name in (key[1], "/".join(key))]
        recorded = [each for each in here if name in (each.container.pod, instances.full_name(each))]
        if exact or recorded:
            listed, here = exact, recorded
        else:
            listed = _begun_by(listed, name)
            try:
                here = instances.named(here, name, begins=True)
            except UsageError:
                if not listed:
                    raise
                here = []
    by_key: dict[tuple[str, str, str], list[Instance]] = defaultdict(list)
    for instance in here:
        container = instance.container
        by_key[container.namespace, container.pod, container.container or container.id].append(instance)
    statuses = {(*key, each.name): each for key, each in listed}
    made = [
        Candidate(*key, tuple(by_key.get(key, ())), statuses.get(key), pod_known=pods is not None and bool(key[1]))
        for key in dict.fromkeys([*statuses, *by_key])
    ]
    return sorted(made, key=lambda each: (-each.rank, -each.when_ns, each.name))


def _begun_by(
    listed: Sequence[tuple[tuple[str, str], PodContainer]], name: str
) -> list[tuple[tuple[str, str], PodContainer]]:
    try:
        pods = ChosenPods(name_choices(read_pods([name])))
    except UsageError:  # no name that a pod can have
        return []
    return [(key, each) for key, each in listed if pods.matches(*key, None)]
