"""Every container of this machine, from its first process on: which cgroup is whose.

A small program tells of each cgroup as it is made or removed. What it tells is read here before any event of that
cgroup is looked at, since the kernel queued it before a process could run there.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.addresses import addresses_of, first_pid, network_of
from agent.bpf_object import BpfObject
from agent.bpffs import open_pinned, remove_if_empty
from agent.cgroups import CgroupTree, find_cgroup2
from agent.identity import Container, identify, parse_path
from agent.objects import read_object
from agent.pods import PodWatch
from agent.ring import Ring
from gadget import catalog

log = logging.getLogger(__name__)

#: Cgroups that are gone and still have names for events that arrive late, at about 1 KB each.
GONE_REMEMBERED = 8192
#: …and for how long at least unless more than that many went within it.
GONE_SECONDS = 300.0
POLL_SECONDS = 0.25
OF_HOST = 0  # CGROUP_OF_HOST in bpf/include/containers.h


@dataclass
class Cgroup:
    """A cgroup, and the container it belongs to; none for the host's. Times are CLOCK_BOOTTIME, nanoseconds."""

    id: int
    root: int
    container: Container | None
    started: int
    ended: int = 0
    addresses: tuple[str, ...] = ()


Watcher = Callable[[Cgroup], None]


class Tracker:
    """Follows the cgroup tree. A context manager; its map_fd is the kernel's view, for other objects to share."""

    def __init__(self, host_root: Path = Path("/"), pinned: Path | None = None, pod_uid: str = "") -> None:
        """Look at the cgroup tree of the host whose root is mounted at host_root.

        The map from cgroup to container is kept at pinned, in bpffs, for programs that outlive this process.
        pod_uid is this agent's own pod: where several nodes share a kernel, pods elsewhere than it are others'.
        """
        self._host_root = host_root
        self._pinned = pinned
        mounted = host_root / "proc"
        self._proc = mounted if (mounted / "1").exists() else Path("/proc")  # a pod with hostPID has the host's
        self._tree = CgroupTree(find_cgroup2(host_root))
        self._node = self._find_node(pod_uid) if pod_uid else ""
        self._cgroups: dict[int, Cgroup] = {}
        self._gone: OrderedDict[int, Cgroup] = OrderedDict()
        #: of the host, so that their late events are not taken for those of containers that nobody knows
        self._gone_of_host: OrderedDict[int, None] = OrderedDict()
        #: Held while anything here changes; who watches holds it too.
        self.lock = threading.RLock()
        self._watchers: list[tuple[Watcher, Watcher, Callable[[], None]]] = []
        self._stop = threading.Event()
        self._walked_losses = 0
        self.pods: PodWatch | None = None
        #: Grows with every container that comes, goes or changes.
        self.generation = 0
        self._object = BpfObject(read_object("tracker"), "tracker")
        self._change = catalog.record("tracker", "change")
        try:
            adopted = False
            if pinned and pinned.exists():
                adopted = True
                fd = open_pinned(pinned)
                self._object.share("containers", fd)
                os.close(fd)
            self._object.load()
            if pinned and not adopted:
                self._object.pin("containers", pinned)
            self._ring = Ring(self._object.map_fd("changes"), self._object.resize("changes", None))
            self._object.attach()
            for cgroup_id, _ in list(self._object.items("containers")) if adopted else ():
                if self._tree.path(cgroup_id) is None:  # it went while no agent was there
                    self._object.delete("containers", cgroup_id)
            self._walk()
        except BaseException:
            self._object.close()
            raise
        self._thread = threading.Thread(target=self._follow, name="tracker", daemon=True)
        self._thread.start()

    @property
    def object(self) -> BpfObject:
        """The loaded object."""
        return self._object

    @property
    def follows(self) -> bool:
        """Whether it still learns of changes: it would be a fault if not."""
        return self._thread.is_alive()

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
        """The host's /proc, or ours where that is all we may see."""
        return self._proc

    @property
    def map_fd(self) -> int:
        """The map from cgroup to container."""
        return self._object.map_fd("containers")

    def resolve(self, cgroup_id: int) -> Cgroup | None:
        """The cgroup of that id, living or gone.

        None if it went before this tracker began, or when more changes came at once than the queue holds.
        """
        with self.lock:
            if known := self._find(cgroup_id):
                return known
            self._drain()
            if known := self._find(cgroup_id):
                return known
            path = self._tree.path(cgroup_id)
            return self._add(cgroup_id, path, time.clock_gettime_ns(time.CLOCK_BOOTTIME)) if path else None

    def _find(self, cgroup_id: int) -> Cgroup | None:
        known = self._cgroups.get(cgroup_id) or self._gone.get(cgroup_id)
        return Cgroup(cgroup_id, OF_HOST, None, 0) if known is None and cgroup_id in self._gone_of_host else known

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

    def find_addresses(self) -> tuple[str, ...]:
        """This node's own addresses; and into their Cgroups those that its running containers have by now."""
        host = self._proc / "1"
        known: dict[str, tuple[str, ...]] = {"": (), network_of(host): ()}
        for item in self.containers():
            pid = 0 if item.ended else first_pid(self.folder(item))
            network = network_of(self._proc / str(pid)) if pid else ""
            if network not in known:  # containers of a pod share one
                known[network] = addresses_of(self._proc / str(pid))
            item.addresses = known[network] or item.addresses  # of one that is about to end they stay
        return addresses_of(host) if os.getpid() != 1 else ()  # without hostPID process 1 is this one

    def unpin(self) -> None:
        """Let the map from cgroup to container end with this process."""
        if self._pinned:
            self._pinned.unlink(missing_ok=True)
            remove_if_empty(self._pinned.parent)

    def watch(self, came: Watcher, gone: Watcher, changed: Callable[[], None]) -> None:
        """Call came for each cgroup of a container from now on, before anything can run there, and gone at its end.

        changed is called when something about pods has changed.
        """
        with self.lock:
            self._watchers.append((came, gone, changed))

    def unwatch(self) -> None:
        """Call nobody any more."""
        with self.lock:
            self._watchers.clear()

    def folder(self, cgroup: Cgroup) -> Path:
        """The directory of a cgroup that is there; one that does not exist if it is gone."""
        return Path(self._tree.mount + (self._tree.path(cgroup.id) or "/gone"))

    def is_there(self, cgroup_id: int) -> bool:
        """Whether a cgroup is there, by what has been read. Unlike resolve this reads nothing, so watchers may ask."""
        with self.lock:
            return cgroup_id in self._cgroups

    def family(self, root: int) -> list[int]:
        """The cgroups of a container that are there, by its own."""
        with self.lock:
            return [item.id for item in self._cgroups.values() if item.root == root]

    def changed(self) -> None:
        """Something about pods has changed."""
        with self.lock:  # the pod watch calls this from its own thread
            self.generation += 1
            for _, _, changed in self._watchers:
                changed()

    def containers(self) -> list[Cgroup]:
        """The containers that run, and those that are gone and remembered; each by its own cgroup."""
        with self.lock:
            self._drain()
            every = [*self._gone.values(), *self._cgroups.values()]
        return [item for item in every if item.container and item.id == item.root and not item.container.sandbox]

    def close(self) -> None:
        """Stop following."""
        if self.pods:
            self.pods.close()
        self._stop.set()
        self._thread.join()
        self._ring.close()
        self._object.close()
        self._tree.close()

    def _follow(self) -> None:
        with select.epoll() as poll:
            poll.register(self._ring.fd, select.EPOLLIN | select.EPOLLET)
            while not self._stop.is_set():
                poll.poll(POLL_SECONDS)
                with self.lock:
                    self._drain()

    def _find_node(self, pod_uid: str) -> str:
        """The cgroup that this node's pods are in, as one of them is; empty if it is not there."""
        for folder, _, _ in os.walk(self._tree.mount):
            place = parse_path(folder.removeprefix(self._tree.mount))
            if place and place.pod_uid == pod_uid:
                return place.node
        log.warning("pod %s has no cgroup here: pods of all cgroups are taken for this node's", pod_uid)
        return ""

    def _walk(self) -> None:
        """Read the whole tree. What changes meanwhile is in the ring."""
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for folder, _, _ in os.walk(self._tree.mount):
            try:
                cgroup_id = os.stat(folder).st_ino
            except OSError:
                continue  # gone since it was listed
            if cgroup_id not in self._cgroups:
                self._add(cgroup_id, folder.removeprefix(self._tree.mount) or "/", now)

    def _drain(self) -> None:
        while (records := self._ring.peek()) is not None:
            changes = records[:, : self._change.itemsize].copy().view(self._change)[:, 0]
            self._ring.release()
            for change in changes:
                if change["removed"]:
                    self._remove(int(change["cgroup_id"]), int(change["timestamp"]))
                else:
                    path = os.fsdecode(bytes(change["path"]).split(b"\0", 1)[0])
                    self._add(int(change["cgroup_id"]), path, int(change["timestamp"]))
        lost = self._object.array_value("changes_lost", 0)
        if lost != self._walked_losses:
            log.warning("%d cgroup changes lost: reading the tree again", lost - self._walked_losses)
            self._walked_losses = lost
            self._forget_missing()
            self._walk()

    def _add(self, cgroup_id: int, path: str, started: int) -> Cgroup:
        place = parse_path(path)
        container, root = None, OF_HOST
        if place and (not self._node or place.node in ("", self._node)):
            above = self._tree_id(place.path)
            root = cgroup_id if place.path == path or not above else above
            known = self._cgroups.get(root)
            container = known.container if known and known.container else identify(place, self._host_root)
        cgroup = Cgroup(cgroup_id, root, container, started)
        self._cgroups[cgroup_id] = cgroup
        self._gone.pop(cgroup_id, None)  # an id that comes again is another cgroup
        shown = container is not None and not container.sandbox
        if not self._object.set("containers", cgroup_id, root if shown else OF_HOST):
            log.warning("more than 65,536 cgroups: events of the rest are decided in user space")
        self.generation += bool(container)
        for came, _, _ in self._watchers if shown else ():
            came(cgroup)
        return cgroup

    def _tree_id(self, path: str) -> int:
        try:
            return os.stat(self._tree.mount + path).st_ino
        except OSError:
            return 0

    def _remove(self, cgroup_id: int, ended: int) -> None:
        self._object.delete("containers", cgroup_id)  # _add may have put it back after the kernel removed it
        cgroup = self._cgroups.pop(cgroup_id, None)
        if cgroup is None:
            return
        if cgroup.container is None:
            self._gone_of_host[cgroup_id] = None
            if len(self._gone_of_host) > GONE_REMEMBERED:
                self._gone_of_host.popitem(last=False)
            return
        cgroup.ended = ended
        self._gone[cgroup_id] = cgroup
        self.generation += 1
        for _, gone, _ in self._watchers:
            gone(cgroup)
        oldest_kept = ended - int(GONE_SECONDS * 1e9)
        while len(self._gone) > GONE_REMEMBERED or next(iter(self._gone.values())).ended < oldest_kept:
            self._gone.popitem(last=False)

    def _forget_missing(self) -> None:
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for cgroup_id in [each for each in self._cgroups if self._tree.path(each) is None]:
            self._remove(cgroup_id, now)
