"""What this node knows of processes beside what events tell."""

from __future__ import annotations

from collections.abc import Iterable

from agent.detect.running import Running
from agent.service import Context
from gadget.rules.checks import Event
from gadget.rules.processes import Process


class Names(dict[str, object]):
    """The fields of a container that its names tell."""


class Surroundings:
    """Containers, their users and groups, names of addresses, and the processes that run."""

    def __init__(self, context: Context) -> None:
        """Of the node of context."""
        self._tracker = context.tracker
        self._running = Running()

    def container(self, cgroup_id: int) -> Event | None:
        """The fields container.… and k8s.… of the container of a cgroup; None outside containers."""
        cgroup = self._tracker.resolve(cgroup_id)
        found = cgroup.container if cgroup else None
        if found is None:
            return None
        return Names(
            {
                "container.id": found.id[:12],
                "container.full_id": found.id,
                "container.name": found.name or None,
                "k8s.ns.name": found.namespace or None,
                "k8s.pod.name": found.pod or None,
                "k8s.pod.uid": found.pod_uid or None,
            }
        )

    def user(self, cgroup_id: int, pid: int, uid: int) -> str | None:
        """The name of a user, as the container of the process has it."""
        return "root" if uid == 0 else "<NA>"

    def group(self, cgroup_id: int, pid: int, gid: int) -> str | None:
        """The name of a group, likewise."""
        return "root" if gid == 0 else "<NA>"

    def domains(self, cgroup_id: int, address: bytes) -> tuple[str, ...]:
        """The names for which the container got an address (4 or 16 bytes) as an answer of DNS."""
        return ()

    def process(self, pid: int) -> Process | None:
        """A process as it is now, its start in ticks."""
        return self._running.find(pid)

    def running(self) -> Iterable[Process]:
        """All that run, likewise."""
        return self._running.all()
