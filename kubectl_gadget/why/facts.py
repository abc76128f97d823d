"""The facts about a container, before any conclusion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from kubectl_gadget.why.history import CallHistory


@dataclass(frozen=True)
class Earlier:
    """How an earlier run of the same container ended: status as wait(2) gives it, seconds how long it ran."""

    status: int
    seconds: float


class PodEvent(NamedTuple):
    """What happened to a pod, or to one container of it, the last of so many times: nanoseconds since 1970."""

    time_ns: int
    reason: str
    message: str
    container: str = ""
    times: int = 1
    first_ns: int = 0


@dataclass(frozen=True)
class Kubernetes:
    """What the API server says of the pod and of this run of the container.

    newest: no other run came after it. waiting and terminated are the container's reasons (CrashLoopBackOff,
    OOMKilled); message is the one beside them. pod_reason and pod_message are the pod's own (Evicted), disruption is
    why it was ended (EvictionByEvictionAPI), disrupted_ns since when, as far as that is told. conditions are those that
    do not hold: by type, reason and message. events are the newest last, of the pod and of this container. deleted: its
    pod was asked to go, or is gone, at deleted_ns if that is known. init: it runs before the pod's others; waits_for is
    the one that this one waits for, waits_begun whether that has run. started: its startup probe has succeeded. mounts
    has by path what lies there (ConfigMap cart-config). probes has by kind (liveness) what is asked. memory_limit is in
    bytes, 0 for none.
    """

    newest: bool = True
    phase: str = ""
    pod_reason: str = ""
    pod_message: str = ""
    disruption: str = ""
    disrupted_ns: int = 0
    conditions: dict[str, tuple[str, str]] = field(default_factory=dict)
    waiting: str = ""
    terminated: str = ""
    message: str = ""
    exit_code: int | None = None
    restarts: int = 0
    init: bool = False
    waits_for: str = ""
    waits_begun: bool = False
    ready: bool | None = None
    started: bool | None = None
    deleted: bool = False
    deleted_ns: int = 0
    restart_policy: str = "Always"
    memory_limit: int = 0
    grace_seconds: int = 30
    image: str = ""
    events: tuple[PodEvent, ...] = ()
    mounts: dict[str, str] = field(default_factory=dict)
    probes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Component:
    """A part of a path as it is now: mode as stat(2) has it. names are those that are most like one that is missing.

    link is where a symbolic link leads, the rest what is there. error is why it could not be looked at.
    """

    path: str
    exists: bool
    mode: int = 0
    uid: int = 0
    gid: int = 0
    names: tuple[str, ...] = ()
    link: str = ""
    error: str = ""


@dataclass(frozen=True)
class MountUsage:
    """Where a path lies: what is free for users other than root. No inodes in total: they do not run out."""

    path: str
    read_only: bool = False
    free_bytes: int = 0
    total_bytes: int = 0
    free_inodes: int = 0
    total_inodes: int = 0


@dataclass(frozen=True)
class FileUser:
    """The user and group that a process has for files, as the node numbers them."""

    uid: int
    gid: int
    groups: frozenset[int] = frozenset()
    capabilities: int = 0


@dataclass(frozen=True)
class NodeFacts:
    """What the node says of the container now, or of the one that runs in its place.

    paths has for each path that was asked about its components, mounts where the last that is there lies. limits are by
    name, soft limits; used what of them is in use. listeners has by port who listens there. holders has by thread that
    waits who holds what it waits for, children its child, waits what its descriptors are. descriptors names by process
    and number what a file descriptor is: KIND NAME, as a History's Thing. identity is the first process's.
    """

    paths: dict[str, tuple[Component, ...]] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    listeners: dict[int, str] = field(default_factory=dict)
    holders: dict[int, str] = field(default_factory=dict)
    descriptors: dict[tuple[int, int], str] = field(default_factory=dict)
    mounts: dict[str, MountUsage] = field(default_factory=dict)
    children: dict[int, str] = field(default_factory=dict)
    waits: dict[int, tuple[str, ...]] = field(default_factory=dict)
    identity: FileUser | None = None


@dataclass(frozen=True)
class Facts:
    """One container. Times are nanoseconds since 1970, 0 if they are not known; status is as wait(2) gives it.

    known: its end was seen. oom: a process of it was killed for want of memory. names has who an address is, by its
    text; notes what else is known of it, likewise. missing are the sources that could not be asked, and why, in words.
    left_out are calls that are recorded and not in history.
    unrecorded is why there is no recording, empty if there is one.
    """

    namespace: str = ""
    pod: str = ""
    container: str = ""
    id: str = ""
    node: str = ""
    running: bool = False
    known: bool = False
    started_ns: int = 0
    ended_ns: int = 0
    now_ns: int = 0
    status: int = 0
    oom: bool = False
    history: CallHistory = field(default_factory=CallHistory)
    left_out: int = 0
    kubernetes: Kubernetes | None = None
    live: NodeFacts | None = None
    earlier: tuple[Earlier, ...] = ()
    names: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    unrecorded: str = ""
    missing: tuple[str, ...] = ()

    @property
    def recorded(self) -> bool:
        """Whether there is a recording of it."""
        return not self.unrecorded

    @property
    def ended_by_oom(self) -> bool:
        """Whether that kill was its end, or what its end followed; others may be long ago."""
        own = self.history.ends.get(self.history.main)
        return self.oom and (
            not own or any(end.oom for pid in self.history.chain for end in self.history.ends.get(pid, []))
        )

    @property
    def signal(self) -> int:
        """The signal that ended its first program; 0 if none did."""
        return self.status & 0x7F

    @property
    def code(self) -> int:
        """What its first program exited with."""
        return self.status >> 8 & 0xFF

    @property
    def name(self) -> str:
        """namespace/pod, or the container's name outside pods."""
        return "/".join(part for part in (self.namespace, self.pod or self.container) if part) or self.id[:12]
