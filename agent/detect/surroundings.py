"""What this node knows of processes beside what events tell: containers, users, names of addresses, and /proc."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agent.containers.accounts import HOST, Accounts
from agent.containers.tracker import Cgroup
from agent.detect.running import RunningProcesses
from agent.domains import Domains, Follower
from agent.service import ServiceContext
from gadget.rules.containers import Unknown, container_field
from gadget.rules.processes import KnownProcess

#: Containers whose fields are ready.
MOST = 4096


class Fields:
    """The fields of a container, read when a rule first asks for one that its name does not tell."""

    def __init__(self, context: ServiceContext, cgroup: Cgroup) -> None:
        self._context, self._cgroup = context, cgroup

    def get(self, key: str, /) -> Any:
        """The value of a field; None if it is missing."""
        return container_field(self._context.tracker.facts(self._cgroup), key)


class Surroundings:
    """What is known of this node's processes. Names of addresses are known from when answers of DNS are followed."""

    def __init__(self, context: ServiceContext, *, domains: bool, known: Domains | None = None) -> None:
        """With domains, follow the answers of DNS; known are those of before."""
        self._context, self._tracker = context, context.tracker
        self._running = RunningProcesses(self._tracker.proc)
        self._accounts = Accounts(self._folder, self._tracker.proc)
        #: may be those of others, who know of the same answers
        self.known_domains = self._domains = known or Domains()
        self._until_ns, self._wait_again = 0, 0.0
        self._ready: OrderedDict[int, Fields] = OrderedDict()
        self.follower = Follower(self._domains, context.runs, self._tracker, context.budget) if domains else None

    def container(self, cgroup_id: int) -> Fields | Unknown | None:
        """The fields container.… and k8s.… of the container of a cgroup; None outside containers."""
        if found := self._ready.get(cgroup_id):
            return found
        cgroup = self._tracker.resolve(cgroup_id)
        if cgroup is None:
            return Unknown()
        if cgroup.container is None or cgroup.container.sandbox:
            return None
        found = self._ready[cgroup_id] = Fields(self._context, cgroup)
        if len(self._ready) > MOST:
            self._ready.popitem(last=False)
        return found

    def user(self, cgroup_id: int, pid: int, uid: int) -> str | None:
        """The name of a user, as the container of the process has it."""
        return self._accounts.user(self._whose(cgroup_id), uid)

    def group(self, cgroup_id: int, pid: int, gid: int) -> str | None:
        """The name of a group, as the container of the process has it."""
        return self._accounts.group(self._whose(cgroup_id), gid)

    def domains(self, cgroup_id: int, address: bytes) -> tuple[str, ...]:
        """The names for which the container got an address (4 or 16 bytes) as an answer of DNS."""
        found = self._domains.names(cgroup_id, address)
        if found or not self.follower or self._domains.read_ns >= self._until_ns:
            return found
        self._catch_up(self.follower)
        return self._domains.names(cgroup_id, address)

    def begin(self, until_ns: int) -> None:
        """Prepare for questions about events up to a time (nanoseconds since 1970)."""
        self._until_ns = until_ns

    def _catch_up(self, follower: Follower) -> None:
        """Wait for what DNS answered up to then, as a connect comes after its answer. A tenth of the time at most."""
        began = time.monotonic()
        if began >= self._wait_again:
            follower.catch_up(self._until_ns)
            self._wait_again = began + 10 * (time.monotonic() - began)

    def answers(self, cgroup_id: int, most: int) -> list[tuple[bytes, tuple[str, ...]]]:
        """The addresses that the container got last, and their names: see Domains."""
        return self._domains.answers(cgroup_id, most)

    def process(self, pid: int) -> KnownProcess | None:
        """A process as it is now, its start in ticks."""
        return self._running.find(pid)

    def running(self) -> Iterable[KnownProcess]:
        """All running processes, their starts in ticks."""
        return self._running.all()

    def close(self) -> None:
        """Follow nothing more."""
        if self.follower:
            self.follower.close()

    def _folder(self, cgroup_id: int) -> Path:
        cgroup = self._tracker.resolve(cgroup_id)
        return self._tracker.folder(cgroup) if cgroup else Path("/gone")

    def _whose(self, cgroup_id: int) -> int:
        return cgroup_id if self.container(cgroup_id) else HOST
