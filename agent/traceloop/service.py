"""What the flight recorder answers over gRPC."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count

import orjson

from agent.blocked import ProcessMemory, find_blocked
from agent.bpf.bpf_object import Program
from agent.containers.identity import Container
from agent.service import Active, Number, Running, ServedCall
from agent.threads import Worker
from agent.traceloop.choice import ChosenRecords, choose
from agent.traceloop.last import last
from agent.traceloop.recorder import Recorder
from agent.traceloop.redact import Redactor
from agent.traceloop.rings import Ring, Snapshot, span
from agent.traceloop.settings import Settings
from agent.traceloop.wipe import wipe
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unsupported, UsageError


class TraceloopService(Running):
    """Lists, reads and deletes recordings."""

    def __init__(
        self,
        node: str,
        recorder: Recorder | None,
        redact: Redactor | None = None,
        why_not: str = "",
        labels: Callable[[Container], Mapping[str, str] | None] = lambda container: None,
        settings: Settings = Settings(),  # noqa: B008
    ) -> None:
        """Answer as node; without a recorder say why there is none. labels tells those of a container's pod."""
        self._labels, self._settings = labels, settings
        self._why_not = why_not or "start its agent with --traceloop all"
        self._node = node
        self._recorder = self._begun = recorder
        self._redact = redact
        self._memory = ProcessMemory(redact.mask if redact else None)

    def _on(self) -> Recorder:
        if self._recorder is None:
            raise Unsupported(f"traceloop is off on {self._node}: {self._why_not}")
        return self._recorder

    def list(self) -> pb.TraceloopListReply:
        """Every recording, and running containers without one."""
        recorder = self._on()
        items = []
        for ring in recorder.rings():
            with suppress(FileNotFoundError):  # it has made room for another, or was deleted, since
                items.append(self._item(ring))
        for cgroup_id, container in recorder.refused().items():
            names = pb.Container(cgroup_id=cgroup_id, namespace=container.namespace, pod=container.pod,
                                 container=container.name, id=container.id, runtime=container.runtime)  # fmt: skip
            labels = self._labels_of(container)
            items.append(pb.TraceloopItem(container=names, running=True, refused=True, labels=labels))
        used, total = recorder.memory()
        return pb.TraceloopListReply(node=self._node, items=items, used_bytes=used, total_bytes=total,
                                      lost=recorder.lost)  # fmt: skip

    def read(self, request: pb.TraceloopReadRequest, active: Callable[[], bool]) -> Iterator[pb.TraceloopReadReply]:
        """The calls of a container, then, to follow, new ones as long as active says so and it runs."""
        try:
            yield from self._read(self._find(request.cgroup_id), request, active)
        except FileNotFoundError as error:  # it has made room for another, or was deleted, since
            raise self._unknown() from error

    def last(self, cgroup_id: int, number: int, until_ns: int) -> pb.TraceloopReadReply:
        """The last calls of a container up to a time since 1970, so many; if none is that old, the last ones there are.

        Raises:
            Unsupported: Nothing is recorded here.
            UsageError: That container is not.

        """
        ring = self._find(cgroup_id)
        try:
            snapshot = ring.snapshot().whole()
            item = self._item(ring, span(snapshot.calls))
        except FileNotFoundError as error:
            raise self._unknown() from error
        calls, left_out = last(ring.about, snapshot.calls, number, until_ns - ring.clock_offset)
        chosen = snapshot._replace(calls=calls).whole()
        choice = (
            ChosenRecords(chosen, left_out, 0, b"") if left_out > 0 else None
        )  # else what is missing would be a loss
        return self._reply(ring, item, self._own(ring, chosen), choice)

    def ends(self, cgroup_ids: Iterable[int], active: Callable[[], bool]) -> Iterator[pb.TraceloopReadReply]:
        """What may tell why containers ended, in this order, as long as active says so."""
        recorder = self._on()
        for cgroup_id in cgroup_ids:
            if not active():
                return
            ring = recorder.find(cgroup_id)
            if ring is None or recorder.is_running(ring):
                continue
            try:
                snapshot = ring.snapshot().whole()
            except FileNotFoundError:  # it has made room for another since
                continue
            # before texts are masked: patterns see those of one call's argument, and calls are chosen whole
            chosen = choose(ring.about, snapshot)
            item = self._item(ring, span(snapshot.calls))
            yield self._reply(ring, item, self._own(ring, chosen.snapshot if chosen else snapshot), chosen)

    def delete(self, cgroup_id: int) -> None:
        """Forget a recording."""
        self._find(cgroup_id)
        self._on().delete(cgroup_id)

    def describe(self) -> str:
        """How much is recorded, or why nothing is."""
        if self._recorder is None:
            return f"off: {self._why_not}"
        used, total = self._recorder.memory()
        refused = len(self._recorder.refused())
        more = f", no memory for {refused} more" if refused else ""
        if missed := self._recorder.missed():
            more += f", {missed:,} calls missed by a busy program"
        lost = f", {self._recorder.lost}" if self._recorder.lost else ""
        return f"{len(self._recorder.rings())} in {used >> 20} of {total >> 20} MiB{more}{lost}"

    def numbers(self) -> Iterator[Number]:
        """How many recordings there are, and their memory."""
        if recorder := self._recorder:
            used, total = recorder.memory()
            yield Number("traceloop_recordings", "Containers of which calls are recorded.", len(recorder.rings()))
            yield Number(
                "traceloop_refused", "Containers for whose recording no memory is left.", len(recorder.refused())
            )
            yield Number("traceloop_memory_bytes", "Memory of recordings.", used)
            yield Number("traceloop_memory_limit_bytes", "Memory that recordings may take.", total)

    def programs(self) -> Sequence[Program]:
        """What the kernel says of the programs that record."""
        return self._recorder.programs() if self._recorder else ()

    def losses(self) -> Mapping[str, int]:
        """How much is missing in recordings, by reason."""
        return self._recorder.losses() if self._recorder else {}

    @property
    def workers(self) -> Sequence[Worker]:
        """The threads that record."""
        return self._begun.workers if self._begun else ()

    def calls(self) -> Sequence[ServedCall]:
        """What clients ask of recordings."""
        return (
            ServedCall("TraceloopList", lambda request, active: self.list()),
            ServedCall("TraceloopRead", self.read, stream=True, reads=True),
            ServedCall(
                "TraceloopEnds", lambda request, active: self.ends(request.cgroup_ids, active), True, reads=True
            ),
            ServedCall("TraceloopDelete", self._delete),
        )

    def _delete(self, request: pb.TraceloopDeleteRequest, active: Active) -> pb.TraceloopDeleteReply:
        self.delete(request.cgroup_id)
        return pb.TraceloopDeleteReply()

    def close(self) -> None:
        """Let go. Recording goes on."""
        if self._begun:
            self._begun.close()

    def end(self) -> None:
        """Stop recording for good."""
        if self._recorder:
            self._recorder.end()
            self._recorder, self._why_not = None, "it has been removed there"

    def _find(self, cgroup_id: int) -> Ring:
        ring = self._on().find(cgroup_id)
        if ring is None and cgroup_id in self._on().refused():
            raise UsageError(f"{self._node} does not record that container: there is no memory for it")
        if ring is None:
            raise self._unknown()
        return ring

    def _unknown(self) -> UsageError:
        return UsageError(f"{self._node} has no recording of that container any more")

    def _read(
        self, ring: Ring, request: pb.TraceloopReadRequest, active: Callable[[], bool]
    ) -> Iterator[pb.TraceloopReadReply]:
        recorder, after = self._on(), 0
        heads = deque([0], self._settings.follow_polls)
        for poll in count():
            running = recorder.is_there(ring)
            snapshot = ring.snapshot(after)
            if request.follow and running:
                # up to the first that is being written, which will be read next time. One that still is some polls
                # later has no record: it found its slot claimed
                awaited = snapshot.pending[snapshot.pending > heads[0]]
                heads.append(snapshot.state["head"])
                after = max(after, int(awaited[0]) - 1 if len(awaited) else heads[-1])
                snapshot = snapshot.until(after)
            else:
                snapshot = snapshot.whole()
            if len(snapshot.calls) or not poll:
                blocked = running and not request.follow
                yield self._reply(ring, self._item(ring), self._own(ring, snapshot), blocked=blocked)
            if not request.follow or not running or not active():
                return
            time.sleep(self._settings.follow_seconds)

    def _own(self, ring: Ring, snapshot: Snapshot) -> Snapshot:
        """The same without what may not leave the node."""
        wipe(ring.about, snapshot)
        if self._redact:
            self._redact(snapshot)
        return snapshot

    def _reply(
        self,
        ring: Ring,
        item: pb.TraceloopItem,
        snapshot: Snapshot,
        chosen: ChosenRecords | None = None,
        *,
        blocked: bool = False,
    ) -> pb.TraceloopReadReply:
        return pb.TraceloopReadReply(
            node=self._node,
            item=item,
            layout=orjson.dumps(ring.about.layout).decode(),
            machine=ring.about.machine,
            calls=snapshot.calls.tobytes(),
            more=snapshot.more.tobytes(),
            unread=snapshot.unread,
            clock_offset_ns=ring.clock_offset,
            blocked=self._blocked(ring) if blocked else (),
            sent_ns=time.time_ns(),
            chosen=pb.Chosen(left_out=chosen.left_out, failures=chosen.failures, alone=chosen.alone)
            if chosen
            else None,
        )

    def _blocked(self, ring: Ring) -> Sequence[pb.Blocked]:
        processes = partial(self._on().processes, ring)
        found = [*find_blocked(processes())]
        self._memory.add_to(found, processes, ring.key)
        return found

    def _item(self, ring: Ring, when: tuple[int, int] | None = None) -> pb.TraceloopItem:
        """What is told of a ring; when are the times of its oldest and its newest call, if they have been read."""
        about, state = ring.about, ring.state()
        first, last = when or ring.span()
        offset = ring.clock_offset
        running = self._on().is_running(ring)
        container = about.container
        return pb.TraceloopItem(
            container=pb.Container(
                cgroup_id=ring.key,
                namespace=container.namespace,
                pod=container.pod,
                container=container.name,
                id=container.id,
                runtime=container.runtime,
            ),
            running=running,
            started_ns=about.created + offset,
            ended_ns=state["ended"] + offset if state["ended"] and not running else 0,
            status=0 if running else state["status"],
            known=bool(state["known"]) and not running,
            oom=bool(state["oom"]),
            calls=state["calls"],
            dropped=state["dropped"],
            first_ns=first + offset if first else 0,
            last_ns=last + offset if last else 0,
            recorded_ns=about.recorded + offset if about.recorded else 0,
            labels=self._labels_of(container),
        )

    def _labels_of(self, container: Container) -> pb.Labels | None:
        labels = self._labels(container)
        return None if labels is None else pb.Labels(labels=labels)
