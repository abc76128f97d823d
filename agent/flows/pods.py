"""The pods that flows belong to: names, labels, and which addresses each had when. Outlives the pods and the agent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.containers.identity import Container
from agent.files import StateFile

if TYPE_CHECKING:
    from agent.containers.pods import PodInfo

#: How many pods are remembered, about 500 bytes each. The living ones stay longest.
MOST = 8192
#: How many earlier addresses of a pod are remembered.
MOST_FORMER = 16
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass
class NodePod:
    """A pod of this node. first and last are nanoseconds since 1970; last is 0 while the pod exists.

    addresses: the pod's present or last addresses, and since when. former: its earlier addresses, with from and to.
    told: the addresses come from the API server. object_uid: the UID that the API server has for a static pod.
    """

    uid: str
    namespace: str
    name: str
    first: int
    last: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    owner: str = ""
    addresses: list[str] = field(default_factory=list)
    host_network: bool = False
    ports: list[tuple[str, str, int]] = field(default_factory=list)
    cgroups: list[int] = field(default_factory=list)  # of its containers
    since: int = 0
    former: list[tuple[str, int, int]] = field(default_factory=list)
    told: bool = False
    object_uid: str = ""

    def give(self, addresses: list[str], told: bool) -> None:
        """Set the addresses that the pod has from now on. Addresses that were only a guess until now are forgotten."""
        if not set(self.addresses) <= set(addresses) and (self.told or not told):
            self.part()
        self.addresses, self.told = addresses, told
        self.since = self.since or self.first

    def part(self) -> None:
        """Note that the pod no longer has its addresses. They ended now, or with the pod."""
        now = time.time_ns()
        self.former += [(address, self.since or self.first, self.last or now) for address in self.addresses]
        del self.former[:-MOST_FORMER]
        self.addresses, self.since, self.told = [], now, False


def _number(value: Any, most: int = (1 << 63) - 1) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"not a number up to {most}: {value!r}")
    return value


def _read(item: dict[str, Any]) -> NodePod:
    """A pod from its saved form. ValueError, TypeError or KeyError if that makes no sense."""
    pod = NodePod(**item)
    pod.ports = [(name, protocol, _number(port, 0xFFFF)) for name, protocol, port in pod.ports]
    pod.former = [(address, _number(first), _number(last)) for address, first, last in pod.former]
    texts = [pod.uid, pod.object_uid, pod.namespace, pod.name, pod.owner]
    texts += [*pod.addresses, *(former[0] for former in pod.former), *pod.labels, *pod.labels.values()]
    texts += [text for name, protocol, _ in pod.ports for text in (name, protocol)]
    switches = (pod.host_network, pod.told)
    if not all(isinstance(text, str) for text in texts) or not all(type(each) is bool for each in switches):
        raise ValueError(f"not a pod: {item}")
    for number in (pod.first, pod.last, pod.since, *pod.cgroups):
        _number(number)
    return pod


class NodePods:
    """Remembers pods, in a file too."""

    def __init__(self, file: Path, boot: str = "") -> None:
        """Go on with the pods in file, as far as it can be read. boot is the id of the machine's present boot."""
        self._memory = StateFile(file, "names of pods that are gone")
        self._dirty = False
        self.pods: dict[str, NodePod] = {}
        #: when the table of flows began (nanoseconds since 1970), and how many of its flows have been removed since
        self.began, self.evicted = time.time_ns(), 0
        #: how many connections it found without being able to tell which side had connected
        self.unclear = 0
        self._boot = boot or _BOOT.read_text().strip()
        self._memory.recall(self._recall)
        self.owners = {cgroup: pod.uid for pod in self.pods.values() for cgroup in pod.cgroups}

    @property
    def problem(self) -> str:
        """Why the file is not up to date; empty if it is."""
        return self._memory.problem

    def _recall(self, saved: dict[str, Any]) -> None:
        pods = {pod.uid: pod for pod in map(_read, saved["pods"])}
        began, evicted, unclear = _number(saved["began"]), _number(saved["evicted"]), _number(saved.get("unclear", 0))
        self.began, self.evicted, self.unclear, self.pods = began, evicted, unclear, pods
        if saved.get("boot", self._boot) != self._boot:
            self._reboot()

    def _reboot(self) -> None:
        """The machine has been rebooted: every pod has ended, and cgroups get new ids."""
        ended = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for pod in self.pods.values():
            pod.last, pod.cgroups = pod.last or max(ended, pod.first), []
        self._dirty = True

    def begin(self) -> None:
        """Note that the table of flows is new."""
        self.began, self.evicted, self.unclear, self._dirty = time.time_ns(), 0, 0, True

    def came(self, cgroup_id: int, container: Container) -> NodePod:
        """Note a container that began, or was there already. Returns its pod."""
        uid = container.pod_uid or container.id
        pod = self.pods.get(uid)
        if pod is None:
            pod = self.pods[uid] = NodePod(uid, container.namespace, container.pod, time.time_ns())
        elif not pod.cgroups:  # the same pod after a reboot, with another network
            pod.part()
        if cgroup_id not in pod.cgroups:
            pod.cgroups.append(cgroup_id)
        pod.last = 0
        self.owners[cgroup_id] = uid
        self._dirty = True
        self._forget()
        return pod

    def gone(self, cgroup_id: int, still_there: bool) -> None:
        """Note that a container ended. still_there: another container of its pod has not."""
        pod = self.pods.get(self.owners.get(cgroup_id, ""))
        if pod and not still_there and not pod.last:
            pod.last = time.time_ns()
            self._dirty = True

    def forget_cgroups(self, needed: Callable[[int], bool]) -> None:
        """Forget the cgroups of containers that are gone and that no flow belongs to any more."""
        for cgroup_id in [each for each in self.owners if not needed(each)]:
            pod = self.pods.get(self.owners.pop(cgroup_id))
            if pod and cgroup_id in pod.cgroups and (len(pod.cgroups) > 1 or pod.last):
                pod.cgroups.remove(cgroup_id)
                self._dirty = True

    def learn(self, pod: NodePod, info: PodInfo | None, addresses: tuple[str, ...]) -> None:
        """Note what the API server knows of a pod, or addresses that were found without it."""
        before = replace(pod)
        if info:
            pod.labels, pod.owner, pod.host_network = info.labels, info.owner, info.host_network
            pod.ports, pod.object_uid = list(info.ports), info.object_uid
        if info and info.ips:
            pod.give(list(info.ips), told=True)
        elif addresses and not pod.told:
            pod.give(list(addresses), told=False)
        self._dirty |= before != pod

    def count_evicted(self, number: int) -> None:
        """Count flows that have been removed."""
        self.evicted += number
        self._dirty = True

    def count_unclear(self, number: int) -> None:
        """Count connections that were found without their direction."""
        self.unclear += number
        self._dirty |= bool(number)

    def _forget(self) -> None:
        if len(self.pods) <= MOST:
            return
        gone = sorted((pod for pod in self.pods.values() if pod.last), key=lambda pod: pod.last)
        for pod in gone[: len(self.pods) - MOST]:
            del self.pods[pod.uid]
            for cgroup_id in pod.cgroups:
                self.owners.pop(cgroup_id, None)

    def save(self) -> None:
        """Write the file, if something has changed."""
        if not self._dirty:
            return
        content: dict[str, Any] = {
            "began": self.began,
            "evicted": self.evicted,
            "unclear": self.unclear,
            "boot": self._boot,
        }
        content["pods"] = list(self.pods.values())
        self._dirty = not self._memory.write(content)  # tried again the next time
