"""Keeps a ring for each container: makes, adopts, evicts. The programs stay attached when this process ends.

In bpffs it is kept as agent/persistence.py says: beside the maps, such as rings (which container has which ring), there
is ring-CGROUP for each container, living or gone. An agent with another layout saves the rings to disk first.

One thread does all of it, as who tells of containers must not wait: a ring takes a millisecond to make, and the kernel
some 20 more to say that the program sees it.
"""

from __future__ import annotations

import logging
import mmap
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import orjson

from agent.bpf import libbpf
from agent.bpf.bpf_object import BpfObject, Program
from agent.bpf.bpffs import open_pinned, remove, remove_if_empty
from agent.bpf.objects import read_object
from agent.containers.cgroups import processes_in
from agent.containers.identity import Container
from agent.containers.tracker import Cgroup, Tracker
from agent.persistence import PinnedFolder, stop_programs
from agent.processes import SETTLED_SECONDS, first_of
from agent.threads import Worker
from agent.traceloop import rings
from agent.traceloop.pointers import Pointers
from agent.traceloop.rings import About, Ring
from agent.traceloop.spares import Spares
from gadget import catalog, syscalls
from gadget.errors import GadgetError

log = logging.getLogger(__name__)

SLOTS = 4096
TOTAL_BYTES = 128 << 20
BOOT = Path("/proc/sys/kernel/random/boot_id")
#: A person may be about to look at what ended badly.
KEPT_SECONDS = 60.0
#: How often the thread shows that it lives, and how long a caller waits for it.
IDLE_SECONDS, ANSWER_SECONDS = 1.0, 5.0
#: How soon to decide whether a cgroup keeps its spare ring, and how long its container may stay unknown.
FRESH_SECONDS, STRANGE_SECONDS = 0.1, 2.0
#: Processes of a container, and cgroups in it, among which its first one is looked for.
LOOKED_AT = 256
#: How much room there must be for other rings for each spare one.
ROOM_FOR_SPARES = 8
OPT_OUT = "kubectl-gadget/traceloop"  # a pod's annotation; "off" is the only value that means something


@dataclass
class RecorderSettings:
    """What is recorded: folder in bpffs, where rings of another layout are saved, whom, how much in bytes.

    kept_seconds: how long the recording of a bad end stays, even if room is needed.
    """

    folder: Path
    saved: Path
    wants: Callable[[Container], bool]
    total_bytes: int = TOTAL_BYTES
    slots: int = SLOTS
    kept_seconds: float = KEPT_SECONDS


class Recorder:
    """The flight recorder of this machine."""

    def __init__(self, tracker: Tracker, settings: RecorderSettings) -> None:
        """Begin to record, or go on with what an earlier agent began.

        KernelLacks if it cannot be on this kernel, Unsupported if another agent records.
        """
        self._tracker = tracker
        self._settings = settings
        self._size = rings.ring_bytes(settings.slots)
        self._memory = rings.memory_bytes(self._size)
        #: Guards the tables below. Only the worker changes them.
        self._lock = threading.Lock()
        self._todo: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._known: dict[int, Ring] = {}
        self._refused: dict[int, Container] = {}
        #: the last state of rings whose container is gone: hundreds of them may be looked at for each new one
        self._dead: dict[int, dict[str, int]] = {}
        self._retry_at = 0.0
        self._lost: Counter[str] = Counter()
        self._gap = ""
        #: containers that were not recorded from their beginning, and when to look for the process of their program
        self._late: dict[int, float] = {}
        #: cgroups with a spare ring of which nothing is known (yet), and since when
        self._strangers: dict[int, float] = {}
        self._review_due = False
        self._kept = PinnedFolder(settings.folder, orjson.dumps([rings.own_layout(), self._size]), self._save_all)
        self._folder = self._kept.folder
        # spare rings take room from others, which must have enough
        number = min(rings.SPARES, settings.total_bytes // self._memory // ROOM_FOR_SPARES)
        self._pointers, self._spares = self._attach(number)
        for path in self._folder.glob("ring-*"):
            self._adopt(path)
        self._forget_unwanted()
        self._shrink()
        self._load_saved()
        self.worker = Worker("traceloop", self._work)
        self._watch = tracker.watch(self._came, self._gone, self._changed)
        for item in self._watch.existing:
            self._came(item)
        self.worker.start()

    @property
    def workers(self) -> list[Worker]:
        """The threads that it cannot do without."""
        return [self.worker, *self._pointers.workers]

    def close(self) -> None:
        """Let go. Recording goes on."""
        self._watch.close()
        self.worker.stop()
        self._pointers.finish()
        self._spares.close()
        self._pointers.close()
        self._kept.close()

    def end(self) -> None:
        """Stop recording, and leave nothing in bpffs or on disk."""
        self._ask(self._end_all)

    def _end_all(self) -> None:
        self._settings.wants = lambda container: False
        with self._lock:
            self._known.clear()
            self._refused.clear()
        self._pointers.finish()  # what a thread of it pins would stay
        self._kept.end()
        remove_if_empty(self._kept.root.parent)
        shutil.rmtree(self._settings.saved, ignore_errors=True)

    def _came(self, cgroup: Cgroup) -> None:
        self._later(partial(self._begin, cgroup))

    def _gone(self, cgroup: Cgroup) -> None:
        self._later(partial(self._finish, cgroup))

    def _changed(self) -> None:
        if not self._review_due:
            self._review_due = True
            self._later(self._review)

    def _later(self, task: Callable[[], None]) -> None:
        """Let the worker do a task. The queue is bounded: two tasks for each container, and the requests of clients."""
        self._todo.put(task)
        self.worker.wake()

    def _ask(self, task: Callable[[], None]) -> None:
        """As _later, and wait until it is done. GadgetError if that takes too long."""
        done: Future[None] = Future()

        def answer() -> None:
            try:
                task()
            except Exception as error:  # it is the asker's
                done.set_exception(error)
            else:
                done.set_result(None)

        self._later(answer)
        try:
            done.result(ANSWER_SECONDS)
        except TimeoutError:
            raise GadgetError(f"traceloop is busy: {self.worker.problem or 'try again'}") from None

    def _work(self, worker: Worker) -> None:
        while not worker.stopping:
            worker.wait(FRESH_SECONDS if self._spares.waiting() else IDLE_SECONDS)
            with suppress(Empty):
                while not worker.stopping:
                    self._todo.get_nowait()()
                    worker.beat()
            self._look_at_fresh()
            self._look_at_late()
            if self._retry_at and time.monotonic() >= self._retry_at:
                self._retry_at = 0.0
                self._retry()

    def rings(self) -> list[Ring]:
        """Every ring that the program writes to or has written to, of living containers and gone ones."""
        with self._lock:
            return [ring for key, ring in self._known.items() if self._has_begun(key, ring)]

    def _has_begun(self, key: int, ring: Ring) -> bool:
        """Whether the program knows a ring: that of an older container only some milliseconds after it is made."""
        change = self._pointers.change(key)
        return change is None or change.done() or ring.about.recorded == ring.about.created

    def refused(self) -> dict[int, Container]:
        """Containers that run and have no ring, because the memory for rings is used up."""
        with self._lock:
            return dict(self._refused)

    def find(self, cgroup_id: int) -> Ring | None:
        """The ring of a container, by its cgroup."""
        return self._known.get(cgroup_id)

    def memory(self) -> tuple[int, int]:
        """Bytes that rings take, and may take at most."""
        return (len(self._pinned()) + self._spares.number) * self._memory, self._settings.total_bytes

    def missed(self) -> int:
        """Records that are missing in any ring, as the program was busy on that CPU, since it was attached.

        From Linux 7.0 on a program may be preempted (kernel commit a46023d5616e), and until it goes on the kernel skips
        it for all other threads of that CPU.
        """
        return self._kept.missed()

    def programs(self) -> list[Program]:
        """What the kernel says of the programs that record."""
        return self._kept.programs()

    @property
    def lost(self) -> str:
        """How many recordings of an earlier agent could not be kept, and why, and what it missed; empty if nothing."""
        return "; ".join([f"{number} of an older agent lost: {why}" for why, number in self._lost.items()]
                         + [self._gap] * bool(self._gap))  # fmt: skip

    def losses(self) -> dict[str, int]:
        """How much is missing in recordings, by reason."""
        older = {f"recordings of an older agent: {why}": number for why, number in self._lost.items()}
        return {"calls while the program was busy": self.missed(), **older}

    def _pinned(self) -> dict[int, Ring]:
        with self._lock:
            return {key: ring for key, ring in self._known.items() if not ring.saved}

    def processes(self, ring: Ring, most: int = 4096) -> list[int]:
        """The processes of a ring's container, so many at most."""
        cgroup = self._tracker.resolve(ring.about.cgroup_id)
        return processes_in(self._tracker.folder(cgroup), most) if cgroup else []

    def is_running(self, ring: Ring) -> bool:
        """Whether the container of a ring has not ended."""
        return self.is_there(ring) and ring.state()["known"] != rings.END_INIT

    def is_there(self, ring: Ring) -> bool:
        """Whether the cgroup of a ring's container still is there, so that its ring is in use."""
        return not ring.saved and self._tracker.is_there(ring.about.cgroup_id)

    def delete(self, cgroup_id: int) -> None:
        """Forget a ring. A container that still runs is recorded no more."""
        self._ask(partial(self._delete, cgroup_id))

    def _delete(self, cgroup_id: int) -> None:
        if cgroup_id in self._known:
            self._unlink(cgroup_id)
            self._retry()

    def _attach(self, spares: int) -> tuple[Pointers, Spares]:
        """Make sure that this agent's program runs, and looks where it is told."""
        elf, plans = read_object("traceloop"), _plans()
        with BpfObject(elf, "traceloop") as recorder:
            recorder.configure(catalog.setting("traceloop", "plans")[0], plans)
            mask = np.uint32(self._settings.slots - 1).tobytes()
            recorder.configure(catalog.setting("traceloop", "slot_mask")[0], mask)
            recorder.resize_inner("rings", self._size)
            recorder.resize_inner("spares", self._size)

            def take_over() -> tuple[Pointers, Spares]:
                pointers = Pointers(recorder.map_fd("rings"), recorder.map_fd("recorded"))
                ready = recorder.map_fd("spares"), pointers.table, self._folder, self._size, spares
                return pointers, Spares(*ready, pointers.later)

            pins = {name: name for name in ("rings", "recorded", "spares")}
            found = self._kept.adopt(recorder, elf + plans, self._tracker, pins, ["recorded"])
            if found.adopted:
                log.info("traceloop: adopted, it has been recording all the time")
                return take_over()
            if found.why_not:
                self._gap = f"nothing was recorded until this agent came: {found.why_not}"
                log.warning("traceloop: %s", self._gap)
            self._kept.load(recorder)
            taken = take_over()
            self._kept.attach(recorder, recorder.attach)
            return taken

    def _adopt(self, path: Path) -> None:
        try:
            ring = Ring(path)
        except (OSError, ValueError) as error:
            log.warning("traceloop: %s: %s: removed", path, error)
            self._lost[_reason(error)] += 1
            if path.is_dir():
                remove(path)
            else:
                path.unlink()
            return
        self._known[ring.about.cgroup_id] = ring
        if not self.is_there(ring):
            self._note_end(ring, 0)

    def _forget_unwanted(self) -> None:
        """What an earlier agent left to record, and is to be recorded no more: it is gone, or others are wanted now."""
        for key, ring in self._pinned().items():
            if self.is_running(ring) and not self._wants(ring.about.container):
                self._unlink(key)
        for cgroup_id in self._pointers.ids():
            known = self._known.get(cgroup_id)
            if known is None or not self.is_there(known):
                self._pointers.remove(cgroup_id)

    def _load_saved(self) -> None:
        """Load saved rings of other layouts, as far as the limit allows. The oldest files beyond it are removed."""
        found = sorted(self._settings.saved.glob("*-ring-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in found:
            total += path.stat().st_size
            try:
                ring = Ring(path, saved=True)
            except (OSError, ValueError) as error:
                log.warning("traceloop: %s: %s: left alone", path, error)
                continue
            if total > self._settings.total_bytes:
                path.unlink()
            else:
                self._known[ring.key] = ring

    def _begin(self, cgroup: Cgroup) -> None:
        """Record a container, if it is wanted, from now on."""
        container, fresh = cgroup.container, self._spares.has(cgroup.id)
        if container is None or not self._wants(container):
            self._spares.replace(cgroup.id)
            return
        there = self._tracker.is_there(cgroup.id)
        if not there and not fresh:
            return
        try:
            ring = self._known.get(cgroup.id) or self._make(cgroup, container)
            if ring and there:
                self._pointers.set(cgroup.id, ring, partial(self._later, partial(self._refuse, cgroup, ring)))
            if fresh:
                self._spares.replace(cgroup.id, self._pointers.change(cgroup.id))
            if ring is None:
                return
            if cgroup.ended:
                self._note_end(ring, cgroup.ended)
            if there and not fresh:
                self._late[cgroup.id] = time.monotonic() + SETTLED_SECONDS
                self._find_first(ring)
        except (OSError, ValueError) as error:  # no memory, or somebody has been in bpffs
            self._unlink(cgroup.id)
            if fresh:
                (self._folder / f"ring-{cgroup.id}").unlink(missing_ok=True)
                self._spares.replace(cgroup.id)
            log.warning("traceloop: %s is not recorded: %s", container.pod or container.id[:12], error)
            self._put_refused({cgroup.id: container})

    def _find_first(self, ring: Ring) -> None:
        """Note which process runs the program of a container that began before it was recorded."""
        first = first_of(self.processes(ring, LOOKED_AT), self._tracker.proc)
        if first and ring.state()["first"] in (0, rings.FIRST_MISSED):
            ring.set_state(first=first)

    def _look_at_late(self) -> None:
        """Look again where a runtime may have been at work still."""
        for cgroup_id in [key for key, due in self._late.items() if time.monotonic() > due]:
            del self._late[cgroup_id]
            self.worker.beat()
            with suppress(OSError, ValueError):
                if ring := self._known.get(cgroup_id):
                    self._find_first(ring)

    def _refuse(self, cgroup: Cgroup, ring: Ring) -> None:
        """It could not be told to the program."""
        log.warning("traceloop: the map of rings has no room for %s", ring.about.container.id[:12])
        self._unlink(cgroup.id)
        if self._tracker.is_there(cgroup.id):
            self._put_refused({cgroup.id: ring.about.container})

    def _put_refused(self, more: dict[int, Container]) -> None:
        with self._lock:
            self._refused |= more

    def _wants(self, container: Container) -> bool:
        return self._settings.wants(container) and self._tracker.annotations(container).get(OPT_OUT) != "off"

    def _review(self) -> None:
        """Forget the rings of pods that turn out to want none: annotations come after the container."""
        self._review_due = False
        for key, ring in list(self._known.items()):
            if self._tracker.annotations(ring.about.container).get(OPT_OUT) == "off":
                self._delete(key)

    def _retry(self) -> None:
        """Make rings that there was no room for, if there is room now."""
        for cgroup_id in list(self._refused):
            self.worker.beat()
            if not self._make_room():
                return
            with self._lock:
                del self._refused[cgroup_id]
            cgroup = self._tracker.resolve(cgroup_id)
            if cgroup:
                self._begin(cgroup)

    def _make(self, cgroup: Cgroup, container: Container) -> Ring | None:
        if not self._make_room():
            self._put_refused({cgroup.id: container})
            log.warning("traceloop: no memory for a ring of %s/%s", container.pod, container.name or container.id[:12])
            return None
        machine = os.uname().machine
        fresh = self._spares.has(cgroup.id)
        since = cgroup.started if fresh else time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        about = About(container, cgroup.id, cgroup.started, machine, rings.own_layout(), recorded=since).to_json()
        if len(about) > rings.ABOUT_BYTES:
            raise ValueError("its names are too long")
        path = self._folder / f"ring-{cgroup.id}"
        if fresh:
            self._spares.take(cgroup.id, path)
            fd = open_pinned(path)
        else:
            fd = rings.create(self._size)
        try:
            with mmap.mmap(fd, mmap.PAGESIZE * 2) as page:
                page.write(about)
            if not fresh:
                libbpf.check(libbpf.library().bpf_obj_pin(fd, os.fsencode(path)), f"pin {path}")
        finally:
            os.close(fd)
        ring = Ring(path)
        if not fresh:  # who executes something next is perhaps not who began
            ring.set_state(first=rings.FIRST_MISSED)
        with self._lock:
            self._known[cgroup.id] = ring
        return ring

    def _look_at_fresh(self) -> None:
        """Decide on cgroups that the program has given a spare ring."""
        fresh = self._spares.waiting()
        now = time.monotonic()
        for cgroup_id in fresh:
            cgroup = self._tracker.resolve(cgroup_id)
            self.worker.beat()
            if cgroup and cgroup.shown and cgroup.id == cgroup_id:
                self._begin(cgroup)
            elif cgroup or now - self._strangers.setdefault(cgroup_id, now) > STRANGE_SECONDS:
                self._spares.replace(cgroup_id)
        self._strangers = {key: since for key, since in self._strangers.items() if key in fresh}

    def _finish(self, cgroup: Cgroup) -> None:
        """A container has gone."""
        self._pointers.remove(cgroup.id)
        with self._lock:
            self._refused.pop(cgroup.id, None)
        if ring := self._known.get(cgroup.id):
            with suppress(OSError):  # its pin is gone: nothing is left to say of it
                self._note_end(ring, cgroup.ended)
            self._retry()

    def _note_end(self, ring: Ring, when: int) -> None:
        """Note when a container went, if the kernel did not see its first program end."""
        state = ring.state()
        if not state["ended"]:
            state["ended"] = when or ring.span()[1] or ring.about.created
            ring.set_state(ended=state["ended"])
        self._dead[ring.key] = state

    def _unlink(self, key: int) -> None:
        """Forget a ring."""
        with self._lock:
            ring = self._known.pop(key, None)
        if ring:
            if not ring.saved:
                self._pointers.remove(ring.about.cgroup_id)
            ring.path.unlink(missing_ok=True)

    def _make_room(self) -> bool:
        """Whether one more ring fits. The ring of the container that ended first goes for it."""
        while self._fit < 1:
            self._dead = {key: state for key, state in self._dead.items() if key in self._known}
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            crashed = {key: state for key, state in self._dead.items() if _crashed(state)}
            kept = {
                key: state["ended"] + int(self._settings.kept_seconds * 1e9) - now for key, state in crashed.items()
            }
            free = [(state["ended"], key) for key, state in self._dead.items() if kept.get(key, 0) <= 0]
            if not free:
                if kept:  # try again when something that crashed need not be kept any more
                    self._retry_at = self._retry_at or time.monotonic() + min(kept.values()) / 1e9
                return False
            self._unlink(min(free)[1])
        return True

    @property
    def _fit(self) -> int:
        """How many more rings there is room for."""
        return self._settings.total_bytes // self._memory - len(self._pinned()) - self._spares.number

    def _shrink(self) -> None:
        """Keep the limit, if an earlier agent had a higher one: rings of the oldest ends go, then the youngest."""

        def worth(key: int) -> tuple[bool, int]:
            ring = self._known[key]
            running = self.is_running(ring)
            return running, -ring.about.created if running else ring.state()["ended"]

        for key in sorted(self._pinned(), key=worth)[: max(0, -self._fit)]:
            self._unlink(key)

    def _save_all(self, folder: Path) -> None:
        """Save rings that another layout's program has filled, and remove the program."""
        stop_programs(folder)
        self._settings.saved.mkdir(parents=True, exist_ok=True, mode=0o700)
        boot = BOOT.read_text()[:8]  # cgroup ids begin anew with each
        for path in folder.glob("ring-*"):
            target = self._settings.saved / f"{folder.name}-{path.name}-{boot}"
            try:
                ring = Ring(path)
                if self.is_running(ring):  # of an exec in it, if any: it is not how the container ended
                    ring.set_state(known=0, status=0, ended=0)
                ring.save(target)
                log.info("traceloop: %s saved in %s: it has another layout", path.name, self._settings.saved)
            except (OSError, ValueError) as error:
                log.warning("traceloop: %s of another layout is lost: %s", path.name, error)
                self._lost[_reason(error)] += 1
                target.unlink(missing_ok=True)  # the part that did fit
        remove(folder)


def _crashed(state: dict[str, int]) -> bool:
    return bool(state["status"] or state["oom"])


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _plans() -> bytes:
    """Which memory of each call the program copies: the array plans in its .rodata."""
    kind = catalog.record("traceloop", "plan")
    table = np.zeros(catalog.setting("traceloop", "plans")[1] // kind.itemsize, kind)
    machine = os.uname().machine
    for number, plan in syscalls.plan(machine).items():
        if number < len(table):
            for at, capture in enumerate(plan):
                row = table[number]["captures"][at]
                row["argument"], row["how"] = capture.argument, capture.how
                row["size"], row["after_success"] = capture.size, capture.after_success
    for number, call in syscalls.table(machine).items():
        if number < len(table):
            table[number]["arguments"] = len(call.arguments)
    return table.tobytes()
