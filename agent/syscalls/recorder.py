"""Records which system calls each workload makes: what the kernel notes, taken over from time to time."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent.bpf.bpf_object import Program
from agent.clock import clock_offset
from agent.containers.identity import Container
from agent.containers.tracker import Cgroup, Tracker
from agent.syscalls.settings import Settings
from agent.syscalls.table import CallTable
from agent.syscalls.workloads import CallingWorkloads, SeenCalls, WorkloadContainer
from agent.threads import Worker
from gadget.selector import Requirement
from gadget.workload import workload

log = logging.getLogger(__name__)

#: How long the API server may take to tell whose a new pod is.
OWNER_SECONDS = 30.0


class SyscallRecorder:
    """The recorder of this machine."""

    def __init__(self, tracker: Tracker, folder: Path, state: Path, settings: Settings) -> None:
        """Begin to record, or go on where an earlier agent was. Its pins are in folder, its file in state."""
        self._tracker, self._state, self._settings = tracker, state, settings
        self._table = CallTable(folder, tracker, settings.limit)
        self._workloads = CallingWorkloads(state / "workloads.json", settings.keep)
        if self._table.is_new:
            self._workloads.begin()
        self._lock = threading.Lock()  # of the workloads
        self._ended = False
        self.worker = Worker("syscalls", self._care)
        self._take_over()
        self.worker.start()

    @property
    def save_problem(self) -> str:
        """Why what was seen would be lost if the machine ended; empty if it is saved."""
        return self._workloads.problem

    @property
    def began_ns(self) -> int:
        """When it began, in nanoseconds since 1970."""
        return self._workloads.began

    def losses(self) -> dict[str, int]:
        """How much is not known, by reason."""
        return {
            **self._table.losses(),
            "removed to make room": self._workloads.evicted,
            "containers that came and went while no agent was there": self._workloads.nameless,
        }

    def programs(self) -> list[Program]:
        """What the kernel says of the programs that record."""
        return self._table.programs()

    def count(self) -> int:
        """Containers of workloads that are remembered."""
        return len(self._workloads.found)

    def read(self) -> dict[WorkloadContainer, SeenCalls]:
        """What each container of a workload has called up to now."""
        self._take_over()
        with self._lock:
            return {who: replace(calls) for who, calls in self._workloads.found.items()}

    def having(self, labels: Sequence[Requirement]) -> set[WorkloadContainer]:
        """Those a container of which is known to be, or to have been, in a pod with such labels."""
        found = set()
        for each in self._tracker.containers():
            own = self._tracker.labels(each.container) if each.container else None
            if each.container and own is not None and all(one.matches(own) for one in labels):
                found.add(self._who(each.container))
        return found

    @property
    def knows_labels(self) -> bool:
        """Whether pods' labels are known."""
        return self._tracker.knows_labels

    def close(self) -> None:
        """Let go. Recording goes on."""
        self.worker.stop()
        if not self._ended:
            self._take_over()
        self._table.close()

    def end(self) -> None:
        """Stop recording, and leave nothing in bpffs or on disk."""
        self.worker.stop()
        self._ended = True
        self._table.end()
        shutil.rmtree(self._state, ignore_errors=True)

    def _care(self, worker: Worker) -> None:
        while not worker.stopping:
            worker.wait(self._settings.care_seconds)
            self._take_over()

    def _take_over(self) -> None:
        """Take in what the kernel has noted, and save it. Of containers that are gone nothing more will come."""
        with self._lock:
            self._tracker.catch_up()
            cgroups = self._table.cgroups()
            for cgroup_id in cgroups:
                self.worker.beat()
                self._take(cgroup_id)
            for cgroup_id in self._workloads.live.keys() - set(cgroups):
                if not self._tracker.is_there(cgroup_id):
                    self._workloads.forget(cgroup_id)
            self._workloads.save()

    def _take(self, cgroup_id: int) -> None:
        """Take in one entry of the table."""
        cgroup = self._tracker.resolve(cgroup_id)
        own = cgroup.id if cgroup else cgroup_id  # it may be one inside the container's
        if cgroup and not cgroup.shown:  # the host's
            self._table.remove(cgroup_id)
            return
        named = cgroup is not None and cgroup.container is not None and not cgroup.container.nameless
        if not named and own not in self._workloads.live:
            self._workloads.miss()
            self._table.remove(cgroup_id)
            return
        live = self._workloads.live.get(own)
        gone = cgroup is None or bool(cgroup.ended)
        if cgroup and cgroup.container and named and not (live and live.counted):
            live = self._workloads.come(own, self._who(cgroup.container), self._is_older(cgroup))
            if not gone and not self._is_sure(cgroup, cgroup.container):
                return
        first, calls, compat = self._table.look(cgroup_id)  # after it was asked whether it is gone: more may have come
        if live and calls | compat:
            now = time.time_ns()
            last = cgroup.ended + clock_offset() if cgroup and cgroup.ended else now
            self._workloads.see(live, calls, compat, first + clock_offset(), last)
        if gone or cgroup_id != own:
            self._table.remove(cgroup_id)
        if gone:
            self._workloads.forget(own)

    def _is_older(self, cgroup: Cgroup) -> bool:
        return cgroup.started + clock_offset() < self._workloads.began

    def _is_sure(self, cgroup: Cgroup, container: Container) -> bool:
        """Whether no more is to be learnt about whose a container is."""
        pods = self._tracker.pods
        waited = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - cgroup.started
        return pods is None or pods.get(container.pod_uid) is not None or waited > OWNER_SECONDS * 1e9

    def _who(self, container: Container) -> WorkloadContainer:
        pod = self._tracker.pods.get(container.pod_uid) if self._tracker.pods else None
        revision = pod.labels.get("pod-template-hash", "") if pod else ""
        found = workload(container.pod, pod.owner if pod else "", revision)
        return WorkloadContainer(container.namespace if found else "", found, container.name or container.id[:12])
