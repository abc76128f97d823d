"""Records who talks to whom: the kernel's table, kept from filling up, and the pods that its flows belong to."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.bpf.bpf_object import Program
from agent.containers.addresses import first_pid, network_of
from agent.containers.tracker import Cgroup, Tracker
from agent.flows.names import NamesOfPods
from agent.flows.pods import NodePod, NodePods
from agent.flows.settings import Settings
from agent.flows.sockets import connections_of, established_in
from agent.flows.table import Flows, FlowTable, Keys, oldest_of_the_greatest
from agent.threads import Worker
from gadget import catalog

log = logging.getLogger(__name__)

SAVE_SECONDS, SAVE_NAMES_SECONDS = 1.0, 60.0
#: How often the recorder asks how many flows came, and looks up what it does not know yet of new pods.
LOOK_SECONDS = 0.25
#: A container's network is made with its cgroup or soon after. A container without an address by then is in the
#: host's network.
NETWORK_SECONDS = 10.0
#: How long after a pod's end the API server may still know something about it.
LEARN_SECONDS = 60.0
_TCP = 6


class FlowRecorder:
    """The flow recorder of this machine."""

    def __init__(
        self,
        tracker: Tracker,
        folder: Path,
        state: Path,
        settings: Settings = Settings(),  # noqa: B008
        constants: Mapping[str, int] | None = None,
    ) -> None:
        """Begin to record, or go on where an earlier agent was. Its pins are in folder, its file in state.

        constants replace the program's own.
        """
        self._settings = settings
        self._tracker = tracker
        self._table = FlowTable(folder, tracker, settings.limit, constants)
        #: the table when it was last read: flows that were put into it, flows that were lost, flows that it held
        self._made, self._lost, self._kept = 0, self._table.lost(), settings.limit
        self._state = state
        self._pods = NodePods(state / "pods.json")
        #: for which names pods got addresses, if that is followed
        self.names = NamesOfPods(state / "names.json", lambda cgroup_id: self._pods.owners.get(cgroup_id))
        self._ended = False
        #: Guards the pods and the notes about them. It is held only for look-ups and assignments, as the thread that
        #: reports containers waits for it. While holding it, ask the tracker for nothing that has to be read first.
        self._lock = threading.Lock()
        self._making_room = threading.Lock()  # so that no flow is counted twice as removed
        self._changed = True
        #: whether a pod has no address yet
        self._waiting = False
        #: pods whose addresses the API server has not told yet
        self._new: dict[str, NodePod] = {}
        #: called between the steps of a round to show that the thread gets on; there may be many steps: each network,
        #: pod, cgroup
        self.worker = Worker("flows", self._care)
        self._watch = tracker.watch(self._came, self._gone, self._review)
        for item in self._watch.existing:
            self._came(item)
        self._forget_ended()
        self._learn()
        if self._table.is_new:
            self._pods.begin()
        if not self._table.adopted:
            self._find_older()
        self._pods.save()
        self.worker.start()

    @property
    def udp_problem(self) -> str:
        """Why UDP is not recorded; empty if it is."""
        return self._table.udp_problem

    @property
    def save_problem(self) -> str:
        """Why the names of pods would be lost if this agent ended; empty if they are saved."""
        return self._pods.problem

    @property
    def began_ns(self) -> int:
        """When the table began, in nanoseconds since 1970."""
        return self._pods.began

    def losses(self) -> dict[str, int]:
        """How many flows are not in the table, by reason."""
        return {
            "table full": self._table.lost(),
            "removed to make room": self._pods.evicted,
            "program busy": self._table.missed(),
            "from before the agent, and nobody knows who connected": self._pods.unclear,
        }

    def programs(self) -> list[Program]:
        """What the kernel says of the programs that record."""
        return self._table.programs()

    def close(self) -> None:
        """Let go. Recording goes on."""
        self._watch.close()
        self.worker.stop()
        if not self._ended:
            self._learn()
            self._pods.save()
            self.names.save()
        self._table.close()

    def end(self) -> None:
        """Stop recording, and leave nothing in bpffs or on disk."""
        self.worker.stop()
        self._ended = True
        self._table.end()
        shutil.rmtree(self._state, ignore_errors=True)

    def count(self) -> int:
        """How many flows there are."""
        return len(self._table.read()[0])

    def pods(self) -> list[NodePod]:
        """Every pod that is remembered."""
        self._changed |= self._tracker.pods is None  # no event tells of addresses that came later
        self._learn()
        with self._lock:
            return [replace(pod) for pod in self._pods.pods.values()]

    def labels(self, pod_uid: str) -> dict[str, str] | None:
        """The labels of a pod, which may be gone; None if they are not known."""
        pod = self._pods.pods.get(pod_uid)
        return (pod and pod.labels) or None

    def read(self) -> tuple[Keys, Flows, list[str]]:
        """All flows of containers, each with the UID of its pod; empty if the pod is forgotten.

        A flow with an open connection counts as seen now, however long ago it connected.
        """
        keys, flows = self._table.read()
        uids = {cgroup_id: self._uid(cgroup_id) for cgroup_id in np.unique(keys["cgroup_id"]).tolist()}
        of_containers = np.array([uids[each] is not None for each in keys["cgroup_id"].tolist()], bool)
        keys, flows = keys[of_containers], flows[of_containers]
        flows["last"] = self._last_seen(keys, flows)
        return keys, flows, [uids[each] or "" for each in keys["cgroup_id"].tolist()]

    def _last_seen(self, keys: Keys, flows: Flows) -> npt.NDArray[np.uint64]:
        """When each flow was last seen: now if it has a connection."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        ingress = catalog.constants("flows", "direction")["DIRECTION_INGRESS"]
        connected = set()
        for cgroup, process in self._networks():
            owner = self._pods.owners.get(cgroup.id)
            for each in established_in(process):
                connected.add((owner, each.peer, each.local_port, True))
                connected.add((owner, each.peer, each.peer_port, False))
        last = flows["last"].copy()
        rows = np.flatnonzero(keys["protocol"] == _TCP) if connected else ()
        for at in rows:
            key = keys[at]
            owner = self._pods.owners.get(int(key["cgroup_id"]))
            if (owner, bytes(key["peer"]), int(key["port"]), int(key["direction"]) == ingress) in connected:
                last[at] = max(now, last[at])
        return last

    def _uid(self, cgroup_id: int) -> str | None:
        """The UID of a cgroup's pod. Empty if the cgroup went before its pod was known, None for the host's."""
        self.worker.beat()
        if uid := self._pods.owners.get(cgroup_id):
            return uid
        cgroup = self._tracker.resolve(cgroup_id)
        if cgroup is None:
            return ""
        if cgroup.container is None or cgroup.container.sandbox:
            return None
        return self._pods.owners.get(cgroup.id, "")

    def _came(self, cgroup: Cgroup) -> None:
        if cgroup.container:
            with self._lock:
                pod = self._pods.came(cgroup.id, cgroup.container)
                self._changed = True
                if self._tracker.pods and not pod.told:
                    self._new[pod.uid] = pod
            self._learn_new()

    def _gone(self, cgroup: Cgroup) -> None:
        with self._lock:
            pod = self._pods.pods.get(self._pods.owners.get(cgroup.id, ""))
            others = [each for each in pod.cgroups if each != cgroup.id] if pod else []
            self._pods.gone(cgroup.id, any(map(self._tracker.is_there, others)))

    def _review(self) -> None:
        self._changed = True
        self._learn_new()

    def _learn_new(self) -> None:
        """Look up new pods at once: the API server may forget them the next moment."""
        with self._lock:
            for pod in list(self._new.values()):
                if self._tracker.pods and (info := self._tracker.pods.get(pod.uid)):
                    self._pods.learn(pod, info, ())
                if pod.told or _is_past(pod):
                    del self._new[pod.uid]

    def _forget_ended(self) -> None:
        """Note the end of pods that ended while no agent was there."""
        with self._lock:
            for pod in self._pods.pods.values():
                if not pod.last and not any(map(self._tracker.is_there, pod.cgroups)):
                    for cgroup_id in pod.cgroups:
                        self._pods.gone(cgroup_id, False)

    def _learn(self) -> None:
        """Look up labels and addresses of pods that may have changed, or of which something is still missing."""
        if not self._changed and not self._waiting:
            return
        changed, self._changed = self._changed, False
        self._waiting = False
        known = self._tracker.pods
        now = time.time_ns()
        with self._lock:
            pods = list(self._pods.pods.values())
        for pod in pods:
            self.worker.beat()
            waits = not pod.addresses and not pod.last and now - pod.first < NETWORK_SECONDS * 1e9
            if waits or (changed and not _is_past(pod)):
                addresses = () if pod.told else self._addresses(pod)
                with self._lock:
                    self._pods.learn(pod, known.get(pod.uid) if known else None, addresses)
                self._waiting |= waits

    def _addresses(self, pod: NodePod) -> tuple[str, ...]:
        """The addresses of a pod's own network; none if its containers are in the host's."""
        cgroups = map(self._tracker.resolve, filter(self._tracker.is_there, list(pod.cgroups)))
        return next(filter(None, (self._tracker.addresses_of(cgroup) for cgroup in cgroups if cgroup)), ())

    def _care(self, worker: Worker) -> None:
        saved = saved_names = cared = time.monotonic()
        while not worker.stopping:
            worker.wait(LOOK_SECONDS)
            now = time.monotonic()
            try:
                self._learn()
                if now - saved > SAVE_SECONDS:
                    saved = now
                    self._pods.save()
                if now - saved_names > SAVE_NAMES_SECONDS:
                    saved_names = now
                    self.names.save()
                if self._is_filling() or now - cared > self._settings.care_seconds:
                    cared = now
                    self.make_room()
            except OSError as error:
                log.warning("flows: %s", error)

    def _is_filling(self) -> bool:
        """Whether the table may be nearly full."""
        came = self._table.made() - self._made
        return self._kept + came > self._table.entries * self._settings.full or self._table.lost() > self._lost

    def make_room(self) -> None:
        """Remove flows of the host that were taken for a container's, and the oldest flows if there are too many."""
        with self._making_room:
            self._make_room()

    def _make_room(self) -> None:
        self._made, self._lost = self._table.made(), self._table.lost()
        keys, flows = self._table.read()
        every = set(np.unique(keys["cgroup_id"]).tolist())
        host = {each for each in every if self._uid(each) is None}
        with self._lock:
            self._pods.forget_cgroups(lambda each: each in every or self._tracker.is_there(each))
        of_host = np.isin(keys["cgroup_id"], list(host))
        self._table.remove(keys[of_host])
        keys, flows = keys[~of_host], flows[~of_host]
        self._kept = len(keys)
        if len(keys) > self._table.entries * self._settings.full:
            flows["last"] = self._last_seen(keys, flows)
            chosen = oldest_of_the_greatest(keys, flows, int(self._table.entries * self._settings.roomy))
            self._table.remove(keys[chosen])
            self._kept -= len(chosen)
            self._pods.count_evicted(len(chosen))
            log.warning("flows: removed the %d oldest: the table was nearly full", len(chosen))

    def _find_older(self) -> None:
        """Put connections that are older than the table into it."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        directions = catalog.constants("flows", "direction")
        for cgroup, process in self._networks():
            every = connections_of(process)
            found = sorted(each for each in every if each.ingress is not None)
            self._pods.count_unclear(len(every) - len(found))
            keys, flows = np.zeros(len(found), self._table.key), np.zeros(len(found), self._table.flow)
            for at, connection in enumerate(found):
                keys[at]["cgroup_id"], keys[at]["protocol"] = cgroup.id, _TCP
                keys[at]["peer"], keys[at]["port"] = connection.peer, connection.port
                keys[at]["direction"] = directions["DIRECTION_INGRESS" if connection.ingress else "DIRECTION_EGRESS"]
                flows[at]["first"] = flows[at]["last"] = now
                flows[at]["count"] = flows[at]["older"] = 1
                flows[at]["local"] = connection.local
            self._table.add(keys, flows)

    def _networks(self) -> Iterator[tuple[Cgroup, Path]]:
        """For each network but the host's, one of its containers and a process of that."""
        seen = {network_of(self._tracker.proc / "1")}
        for cgroup in self._tracker.containers():
            self.worker.beat()
            pid = 0 if cgroup.ended else first_pid(self._tracker.folder(cgroup))
            process = self._tracker.proc / str(pid)
            network = network_of(process) if pid else ""
            if network and network not in seen:
                seen.add(network)
                yield cgroup, process


def _is_past(pod: NodePod) -> bool:
    """Whether nothing more can be learnt about a pod."""
    return bool(pod.last) and time.time_ns() - pod.last > LEARN_SECONDS * 1e9
