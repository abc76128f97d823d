"""The pods that flows belong to, remembered beyond their end and the agent's: names, labels, addresses, when."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from agent.identity import Container
from agent.pods import PodInfo

log = logging.getLogger(__name__)

#: Pods remembered, the living ones first; about 500 bytes each.
MOST = 8192


@dataclass
class Pod:
    """A pod of this node. first and last are nanoseconds since 1970; last 0 while it is there."""

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


class Pods:
    """Remembers pods, in a file too."""

    def __init__(self, file: Path) -> None:
        """Go on with what is in file, as far as it can be read."""
        self._file = file
        self._dirty = False
        #: why the file is not up to date; empty if it is
        self.problem = ""
        self.pods: dict[str, Pod] = {}
        #: when the table of flows began (nanoseconds since 1970), and how many of its flows have been removed since
        self.began, self.evicted = time.time_ns(), 0
        try:
            saved = orjson.loads(file.read_bytes())
            self.began, self.evicted = saved["began"], saved["evicted"]
            self.pods = {item["uid"]: Pod(**item) for item in saved["pods"]}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("flows: %s: %s: names of pods that are gone are lost", file, error)
        self.owners = {cgroup: pod.uid for pod in self.pods.values() for cgroup in pod.cgroups}

    def begin(self) -> None:
        """The table of flows is new."""
        self.began, self.evicted, self._dirty = time.time_ns(), 0, True

    def came(self, cgroup_id: int, container: Container) -> None:
        """A container began, or was there already."""
        uid = container.pod_uid or container.id
        pod = self.pods.get(uid)
        if pod is None:
            pod = self.pods[uid] = Pod(uid, container.namespace, container.pod, time.time_ns())
        if cgroup_id not in pod.cgroups:
            pod.cgroups.append(cgroup_id)
        pod.last = 0
        self.owners[cgroup_id] = uid
        self._dirty = True
        self._forget()

    def gone(self, cgroup_id: int, still_there: bool) -> None:
        """A container ended; still_there says whether another of its pod has not."""
        pod = self.pods.get(self.owners.get(cgroup_id, ""))
        if pod and not still_there and not pod.last:
            pod.last = time.time_ns()
            self._dirty = True

    def learn(self, pod: Pod, info: PodInfo | None, addresses: tuple[str, ...]) -> None:
        """Take over what the API server knows, or the addresses that were found without it."""
        before = (pod.labels, pod.owner, pod.addresses, pod.host_network, pod.ports)
        if info:
            pod.labels, pod.owner, pod.host_network = info.labels, info.owner, info.host_network
            pod.ports = list(info.ports)
            pod.addresses = list(info.ips) or pod.addresses
        elif addresses:
            pod.addresses = list(addresses)
        self._dirty |= before != (pod.labels, pod.owner, pod.addresses, pod.host_network, pod.ports)

    def count_evicted(self, number: int) -> None:
        """Flows have been removed."""
        self.evicted += number
        self._dirty = True

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
        content: dict[str, Any] = {"began": self.began, "evicted": self.evicted}
        content["pods"] = [asdict(pod) for pod in self.pods.values()]
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = self._file.with_suffix(".new")
            new.write_bytes(orjson.dumps(content))
            os.replace(new, self._file)
            self._dirty, self.problem = False, ""
        except OSError as error:  # tried again the next time
            problem = error.strerror or str(error)
            if problem != self.problem:
                log.warning("flows: %s: %s", self._file, error)
            self.problem = problem
