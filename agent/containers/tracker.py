"""Knows every container of this machine from its first process on, and the container of every cgroup.

A small program reports each cgroup as it is made or removed. It leaves out cgroups inside a known container: there may
be any number of these, and the kernel finds their container by walking up the tree. A report is read here before any
event of that cgroup is looked at, since the kernel queued it before a process could run there.

There are two locks. The thread that holds `_reading` reads changes, and the runtimes' files with them. `lock` guards
the tables, and is held only for look-ups and assignments.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.bpf.bpf_object import BpfObject
from agent.bpf.bpffs import digest, remove_if_empty, unpin
from agent.bpf.objects import read_object
from agent.bpf.ring import RingBuffer
from agent.clock import clock_offset
from agent.containers.addresses import Addresses
from agent.containers.cgroups import CgroupTree, find_cgroup2
from agent.containers.identity import CgroupPath, Container, parse_path
from agent.containers.runtimes import Runtimes
from agent.containers.started import started_at
from agent.threads import Worker
from gadget import catalog
from gadget.container_facts import ContainerFacts
from gadget.runtimes import State

if TYPE_CHECKING:
    from agent.containers.pods import PodWatch

log = logging.getLogger(__name__)

#: How many gone containers keep their names, at about 1 KB each, for events that arrive late.
GONE_REMEMBERED = 8192
#: How long they keep them at least, unless more than that many have gone meanwhile.
GONE_SECONDS = 300.0
#: How many cgroups inside containers are remembered that were reported before their container was known.
INSIDE_REMEMBERED = 8192
POLL_SECONDS = 0.25
#: How many cgroups of the host are known, here and in the kernel's map. It is three quarters of the map, as a user of
#: the machine can make any number, and containers must have room.
HOST_REMEMBERED = 49_152
#: How long a thread waits for another one to read the changes.
READ_SECONDS = 1.0
#: How often the tree is read again at most, if more changes come than the queue holds.
WALK_SECONDS = 1.0
OF_HOST, OF_OTHERS = 0, 1  # CGROUP_OF_HOST and CGROUP_OF_OTHERS in bpf/include/containers.h


@dataclass
class Cgroup:
    """A container's own cgroup; of the host's only the id is known. Times are CLOCK_BOOTTIME, nanoseconds."""

    id: int
    container: Container | None
    started: int
    path: str = ""
    ended: int = 0
    addresses: tuple[str, ...] = ()

    @property
    def shown(self) -> bool:
        """Whether it is a container for users, and of this node."""
        return self.container is not None and not self.container.sandbox


Watcher = Callable[[Cgroup], None]


@dataclass(frozen=True, eq=False)
class Watch:
    """What somebody is told by the tracker, until it is closed: came and gone of a container, changed of pods."""

    came: Watcher
    gone: Watcher
    changed: Callable[[], None]
    #: the containers that there were when it began
    existing: Sequence[Cgroup]
    _end: Callable[[Watch], None]

    def close(self) -> None:
        """Tell no more. Others go on being told. Callable again."""
        self._end(self)


class Tracker:
    """Follows the cgroup tree. A context manager; its map_fd is the kernel's view, for other objects to share."""

    def __init__(
        self,
        host_root: Path = Path("/"),
        pins: Path | None = None,
        pod_uid: str = "",
        states: Sequence[State] = (),
        *,
        most_of_host: int = HOST_REMEMBERED,
    ) -> None:
        """Look at the cgroup tree of the host whose root is mounted at host_root. Names are looked for in states first.

        The map of containers is kept in pins, a folder of bpffs, for programs that outlive this process. pod_uid is
        this agent's own pod. If several nodes share a kernel, pods in another part of the tree are other nodes'.
        most_of_host bounds how many cgroups outside containers the kernel is told of.
        """
        elf = read_object("tracker")
        #: Names the layout of the map of containers: programs of another layout must not use this map.
        self.layout = digest(elf)
        self._pinned = pins / f"containers-{self.layout}" if pins else None
        mounted = host_root / "proc"
        self._proc = mounted if (mounted / "1").exists() else Path("/proc")  # a pod with hostPID has the host's
        self._runtimes = Runtimes(host_root, states, self._proc)
        self._tree = CgroupTree(find_cgroup2(host_root))
        self._node = self._find_node(pod_uid) if pod_uid else ""
        #: living containers, other nodes' too, by id and by path
        self._containers: dict[int, Cgroup] = {}
        self._paths: dict[str, Cgroup] = {}
        #: pause containers among these, by pod: no program of a pod can move them into another network
        self._pauses: dict[str, Cgroup] = {}
        self._addresses = Addresses(self._proc)
        self._gone: OrderedDict[int, Cgroup] = OrderedDict()
        self._inside: OrderedDict[int, int] = OrderedDict()
        #: cgroups of the host; also the latest that are gone or too many, so that their events do not count as unknown
        #: containers'
        self._host: set[int] = set()
        self._most_of_host = most_of_host
        self._gone_of_host: OrderedDict[int, None] = OrderedDict()
        self._host_is_full = False
        self.lock = threading.Lock()
        self._reading = threading.Lock()
        self._watches: tuple[Watch, ...] = ()  # replaced as a whole: `changed` is read without a lock
        self._walked, self._walked_losses = 0.0, 0
        self.pods: PodWatch | None = None
        #: Grows with every container that comes, goes or changes.
        self.generation = 0
        self._object = BpfObject(elf, "tracker")
        self._change = catalog.record("tracker", "change")
        try:
            self._object.preallocate("containers")
            adopted = self._adopt()
            self._object.load()
            if self._pinned and not adopted:
                self._object.pin("containers", self._pinned)
            self._ring = RingBuffer(self._object.map_fd("changes"), self._object.resize("changes", None))
            self._object.attach()
            with self._reading:
                self._walk()
            for cgroup_id, _ in list(self._object.items("containers")) if adopted else ():
                if self._find(cgroup_id) is None:  # it ended while no agent was there
                    self._object.delete("containers", cgroup_id)
        except BaseException:
            self._object.close()
            raise
        self.worker = Worker("tracker", self._follow)
        self.worker.start()

    def _adopt(self) -> bool:
        """Use the map that an earlier agent pinned, if it fits. Returns whether it does."""
        if self._pinned is None:
            return False
        for other in _pinned_containers(self._pinned.parent):
            if other != self._pinned:  # of another layout
                unpin(other)
        return bool(self._object.share_pinned({"containers": self._pinned}))

    @property
    def object(self) -> BpfObject:
        """The loaded object."""
        return self._object

    @property
    def cgroups(self) -> str:
        """v2, or hybrid where cgroup2 is beside version 1."""
        return "hybrid" if self._tree.mount.endswith("/unified") else "v2"

    @property
    def mount(self) -> Path:
        """Where cgroup2 is mounted."""
        return Path(self._tree.mount)

    @property
    def proc(self) -> Path:
        """The host's /proc, or our own if we may see nothing else."""
        return self._proc

    @property
    def map_fd(self) -> int:
        """The map of containers."""
        return self._object.map_fd("containers")

    def resolve(self, cgroup_id: int) -> Cgroup | None:
        """The living or gone container of the cgroup with that id. A cgroup of the host has no container.

        None if it went before this tracker began, or while more changes came at once than the queue holds.
        """
        if known := self._find(cgroup_id):
            return known
        self.catch_up()
        if known := self._find(cgroup_id):
            return known
        with self._read() as may:  # if it goes after it has been found, that is still to be read
            path = self._tree.path(cgroup_id) if may else None
            if path is not None:
                self._add(cgroup_id, path, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        return self._find(cgroup_id)

    def _find(self, cgroup_id: int) -> Cgroup | None:
        with self.lock:
            cgroup_id = self._inside.get(cgroup_id, cgroup_id)
            if known := self._containers.get(cgroup_id) or self._gone.get(cgroup_id):
                return known
            of_host = cgroup_id in self._host or cgroup_id in self._gone_of_host
        return Cgroup(cgroup_id, None, 0) if of_host else None

    @property
    def knows_labels(self) -> bool:
        """Whether there is an API server to ask."""
        return self.pods is not None

    def labels(self, container: Container) -> dict[str, str] | None:
        """The labels of a container's pod; None if they are not known."""
        info = self.pods.get(container.pod_uid) if self.pods else None
        return info.labels if info else None

    def annotations(self, container: Container) -> dict[str, str]:
        """The annotations of a container's pod, as far as they are known."""
        info = self.pods.get(container.pod_uid) if self.pods else None
        return info.annotations if info else {}

    def facts(self, cgroup: Cgroup) -> ContainerFacts | None:
        """What rules ask of a container, as far as it is known by now; None for a cgroup of the host."""
        place = parse_path(cgroup.path)
        if cgroup.container is None or place is None:
            return None
        began = cgroup.started + clock_offset()
        return replace(
            self._runtimes.facts(place, cgroup.container), started_ns=began, labels=self.labels(cgroup.container)
        )

    def find_addresses(self) -> tuple[str, ...]:
        """Find this node's own addresses, and note the present addresses of its running containers."""
        for item in self.containers():
            item.addresses = self.addresses_of(item) or item.addresses  # if it is about to end its addresses stay
        return self._addresses.of(1)[1] if os.getpid() != 1 else ()  # without hostPID process 1 is this one

    def addresses_of(self, cgroup: Cgroup) -> tuple[str, ...]:
        """The addresses of a running container's own network, or of its pod's."""
        if cgroup.ended or cgroup.container is None:
            return ()
        with self.lock:
            asked = self._pauses.get(cgroup.container.pod_uid, cgroup)
        network, found = self._addresses.of_cgroup(self.folder(asked))
        return found if network != self._addresses.of(1)[0] else ()

    def unpin(self) -> None:
        """Let the map of containers end with this process."""
        if self._pinned:
            unpin_containers(self._pinned.parent)

    def watch(self, came: Watcher, gone: Watcher, changed: Callable[[], None]) -> Watch:
        """Call came for each new container from now on, and gone at its end, until the watch is closed.

        changed is called when something about pods has changed. The three are called in the middle of other work, so
        they may only note what there is to do.
        """
        with self._reading:
            existing = [item for item in self._containers.values() if item.shown]
            made = Watch(came, gone, changed, existing, self._unwatch)
            self._watches = (*self._watches, made)
            return made

    def _unwatch(self, watch: Watch) -> None:
        with self._reading:
            self._watches = tuple(each for each in self._watches if each is not watch)

    def folder(self, cgroup: Cgroup) -> Path:
        """The directory of a cgroup. It does not exist if the cgroup is gone."""
        return Path(self._tree.mount + (self._tree.path(cgroup.id) or "/gone"))

    def is_there(self, cgroup_id: int) -> bool:
        """Whether a container exists, according to the changes that were read."""
        with self.lock:
            return cgroup_id in self._containers

    def changed(self) -> None:
        """Something about pods has changed."""
        with self.lock:
            self.generation += 1
        for watch in self._watches:
            watch.changed()

    def containers(self) -> list[Cgroup]:
        """The running containers, and the gone ones that are remembered."""
        self.catch_up()
        with self.lock:
            every = [*self._gone.values(), *self._containers.values()]
        return [item for item in every if item.shown]

    def close(self) -> None:
        """Stop following."""
        if self.pods:
            self.pods.close()
        self.worker.stop()
        self._ring.close()
        self._object.close()
        self._tree.close()

    def catch_up(self) -> None:
        """Read the waiting changes, or wait until another thread has read them."""
        if self._ring.waiting or self._reading.locked() or self._is_behind():
            with self._read() as may:
                if may:
                    self._drain()
                    self._walk_again()

    @contextmanager
    def _read(self) -> Iterator[bool]:
        """Hold the lock for reading, if it is free soon."""
        may = self._reading.acquire(timeout=READ_SECONDS)
        try:
            yield may
        finally:
            if may:
                self._reading.release()

    def _follow(self, worker: Worker) -> None:
        with select.epoll() as poll:
            poll.register(self._ring.fd, select.EPOLLIN | select.EPOLLET)
            more = False
            while not worker.stopping:
                poll.poll(0 if more else POLL_SECONDS)  # edge-triggered: left-over changes wake nobody
                worker.beat()
                with self._reading:
                    more = self._drain()
                    self._walk_again()

    def _find_node(self, pod_uid: str) -> str:
        """The cgroup that this node's pods are in, found by the agent's own pod; empty if that is not there."""

        def in_pod(path: str) -> bool:
            place = parse_path(path)
            return bool(place and place.pod_uid)

        for path in self._tree.walk(in_pod):
            place = parse_path(path)
            if place and place.pod_uid == pod_uid:
                return place.node
        log.warning("pod %s has no cgroup here: pods of all cgroups are taken for this node's", pod_uid)
        return ""

    def _walk(self) -> None:
        """Read the tree without the cgroups inside containers. Changes meanwhile are in the ring."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for path in self._tree.walk(lambda path: path in self._paths):
            cgroup_id = self._tree.id(path)
            if cgroup_id and cgroup_id not in self._containers and cgroup_id not in self._host:
                began = started_at(Path(self._tree.mount + path), self._proc) if parse_path(path) else 0
                self._add(cgroup_id, path, began or now)

    def _changes_lost(self) -> int:
        return self._object.array_value("changes_lost", 0)

    def _is_behind(self) -> bool:
        return self._changes_lost() != self._walked_losses

    def _walk_again(self) -> None:
        """Read the tree again if changes were lost, but not all the time."""
        if not self._is_behind() or time.monotonic() - self._walked < WALK_SECONDS:
            return
        lost = self._changes_lost()
        log.warning("%d cgroup changes lost: reading the tree again", lost - self._walked_losses)
        self._walked, self._walked_losses = time.monotonic(), lost
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for cgroup_id in [each for each in (*self._containers, *self._host) if self._tree.path(each) is None]:
            self._remove(cgroup_id, now)
        self._walk()

    def _drain(self) -> bool:
        """Note all waiting changes, at most what the queue holds. Returns whether there were any."""
        records = self._ring.peek()
        if records is None:
            return False
        changes = records[:, : self._change.itemsize].copy().view(self._change)[:, 0]
        self._ring.release()
        for change in changes:
            if change["removed"]:
                self._remove(int(change["cgroup_id"]), int(change["timestamp"]))
            else:
                path = os.fsdecode(bytes(change["path"]).split(b"\0", 1)[0])
                self._add(int(change["cgroup_id"]), path, int(change["timestamp"]))
        return True

    def _add(self, cgroup_id: int, path: str, started: int) -> None:
        """Note a cgroup that was reported or found. The caller holds `_reading`."""
        place = parse_path(path)
        if place and self._holds_node(place.path):
            place = None
        around = self._around(path) if place else None
        if around is None and place and place.path != path and (above := self._tree.id(place.path)):
            self._add(above, place.path, started)  # its report is lost, or still to come
            around = self._around(path)
        if around:
            with self.lock:
                self._inside[cgroup_id] = around.id
                if len(self._inside) > INSIDE_REMEMBERED:
                    self._inside.popitem(last=False)
            return
        if place:
            self._add_container(cgroup_id, path, place, started)
            return
        with self.lock:
            fits = len(self._host) < self._most_of_host
            if fits:
                self._host.add(cgroup_id)
            else:
                self._remember_of_host(cgroup_id)
        if fits:
            self._tell_kernel(cgroup_id, OF_HOST)
        elif not self._host_is_full:
            self._host_is_full = True
            log.warning(
                "more than %d cgroups outside containers: events of the rest are decided here", self._most_of_host
            )

    def _remember_of_host(self, cgroup_id: int) -> None:
        self._gone_of_host[cgroup_id] = None
        if len(self._gone_of_host) > GONE_REMEMBERED:
            self._gone_of_host.popitem(last=False)

    def _holds_node(self, path: str) -> bool:
        """Whether a cgroup is of a node that is a container itself, and whose pods this agent looks at."""
        return f"{self._node}/".startswith(f"{path}/")

    def _around(self, path: str) -> Cgroup | None:
        """The known container that a path lies inside of."""
        at = path.find("/", 1)
        while at > 0:
            if known := self._paths.get(path[:at]):
                return known
            at = path.find("/", at + 1)
        return None

    def _add_container(self, cgroup_id: int, path: str, place: CgroupPath, started: int) -> None:
        ours = not self._node or place.node in ("", self._node)
        cgroup = Cgroup(cgroup_id, self._runtimes.identify(place) if ours else None, started, path)
        shown = cgroup.shown
        before = self._paths.get(path)
        if before and before.id != cgroup_id:  # the report of its end is lost
            self._remove(before.id, started)
        with self.lock:
            self._containers[cgroup_id] = self._paths[path] = cgroup
            if cgroup.container and cgroup.container.sandbox and cgroup.container.pod_uid:
                self._pauses[cgroup.container.pod_uid] = cgroup
            self._gone.pop(cgroup_id, None)  # an id that comes again is another cgroup
        self._tell_kernel(cgroup_id, cgroup_id if shown else OF_OTHERS)
        with self.lock:
            self.generation += 1
        for watch in self._watches if shown else ():
            watch.came(cgroup)

    def _tell_kernel(self, cgroup_id: int, container: int) -> None:
        if not self._object.set("containers", cgroup_id, container):
            log.warning("no room for cgroup %d in the map of containers: its events are decided here", cgroup_id)

    def _remove(self, cgroup_id: int, ended: int) -> None:
        self._object.delete("containers", cgroup_id)  # _add may have put it back after the kernel removed it
        with self.lock:
            self._inside.pop(cgroup_id, None)
            cgroup = self._containers.pop(cgroup_id, None)
            if cgroup_id in self._host:
                self._host.remove(cgroup_id)
                self._remember_of_host(cgroup_id)
            if cgroup is None:
                return
            cgroup.ended = ended
            if self._paths.get(cgroup.path) is cgroup:
                del self._paths[cgroup.path]
            if cgroup.container and self._pauses.get(cgroup.container.pod_uid) is cgroup:
                del self._pauses[cgroup.container.pod_uid]
            self._gone[cgroup_id] = cgroup
            oldest_kept = ended - int(GONE_SECONDS * 1e9)
            while len(self._gone) > GONE_REMEMBERED or next(iter(self._gone.values())).ended < oldest_kept:
                self._gone.popitem(last=False)
        with self.lock:
            self.generation += 1
        for watch in self._watches if cgroup.shown else ():
            watch.gone(cgroup)


def _pinned_containers(pins: Path) -> Iterator[Path]:
    return pins.glob("containers*")


def unpin_containers(pins: Path) -> None:
    """Remove the maps of containers that agents have left in a folder of bpffs."""
    for path in _pinned_containers(pins):
        unpin(path)
    remove_if_empty(pins)
