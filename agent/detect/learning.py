"""Learns what containers of this node do, until it is closed. One reader takes what is new."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

from agent.clock import clock_offset
from agent.containers.identity import Container
from agent.containers.tracker import Cgroup
from agent.detect.before import before
from agent.detect.settings import GADGET
from agent.detect.surroundings import Fields, Surroundings
from agent.detect.watching import Watching
from agent.run.batch import Batch
from agent.run.replies import container_messages
from agent.selection import Selection
from agent.service import ServiceContext
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.rules.learner import MOST_CONTAINERS, Learner, New
from gadget.rules.seen import FILES, KINDS, PEERS, PORTS, PROGRAMS

FORGOTTEN = "more containers than can be learnt of"
CROWDED = "peers came too fast to be named"
#: Bytes of what is new in one message.
MOST_BYTES = 1 << 20


class ChosenContainers(Surroundings):
    """Names the chosen containers only: processes of other containers count as outside containers."""

    def __init__(self, context: ServiceContext, selection: Selection) -> None:
        """Choose by selection; names of addresses are followed."""
        super().__init__(context, domains=True)
        self._labels, self._selection = context.tracker.labels, selection

    def container(self, cgroup_id: int) -> Fields | None:
        """The fields container.… and k8s.… of a container; None if it is not chosen, or none."""
        cgroup = self._tracker.resolve(cgroup_id)
        if cgroup is None or cgroup.container is None or self.decide(cgroup.container) is False:
            return None
        found = super().container(cgroup_id)
        return found if isinstance(found, Fields) else None

    def decide(self, container: Container) -> bool | None:
        """Whether a container is chosen; None if that is not known yet."""
        return self._selection.decide(container, self._labels(container))


class Learning(Watching):
    """A Learner at work on the events of this node."""

    def __init__(self, context: ServiceContext, selection: Selection) -> None:
        """Begin with what runs.

        Raises:
            Unsupported: This kernel cannot, or the choice needs labels that this agent does not have.
            Exhausted: There is no memory for one more run.

        """
        super().__init__("learn", context, selection)
        self._chosen = ChosenContainers(context, selection)
        self._learner = Learner(catalog.find(GADGET).schema, self._chosen)
        self._lock = threading.Lock()
        self._cgroups: dict[str, Cgroup] = {}
        self._since: dict[str, int] = {}
        self._pending: dict[str, New] = {}
        self.undecided = 0
        self._is_over = False
        self._begin(self._chosen, self._learner.parameters)

    @property
    def judged(self) -> int:
        """Events that were looked at so far."""
        return self._learner.judged

    @property
    def is_over(self) -> bool:
        """Whether nothing comes any more."""
        return self._is_over

    def take(self, *, whole: bool = False) -> Iterator[list[pb.Learnt]]:
        """What the reader does not know yet, in messages. whole: also what belongs to containers without a name."""
        with self._lock:
            for key, new in self._learner.collect(whole=whole).items():
                self._pending[key] = new if key not in self._pending else _joined(self._pending[key], new)
            for key in self._cgroups if whole else ():  # whose it is may be known by now
                self._pending.setdefault(key, {})
            pending, self._pending = self._pending, {}
            messages = [message for key, new in pending.items() for message in self._messages(key, new, whole=whole)]
        while messages:
            size, some = 0, list[pb.Learnt]()
            while messages and size < MOST_BYTES:
                some.append(messages.pop(0))
                size += some[-1].ByteSize()
            yield some

    def losses(self) -> list[pb.Loss]:
        """All that was lost so far."""
        lost = self._lost + Counter({FORGOTTEN: self._learner.forgotten, CROWDED: self._learner.crowded})
        return [*self._run_losses, *(pb.Loss(reason=reason, count=count) for reason, count in sorted(lost.items()))]

    def _look_before(self) -> None:
        """Take in what running containers do already."""
        for cgroup in self._tracker.containers():
            fields = None if cgroup.ended else self._chosen.container(cgroup.id)
            if fields and (key := fields.get("container.id")):
                self._find(key, cgroup.id)
                self._pending.setdefault(key, {})
                for kind, value in before(self._tracker.folder(cgroup), self._tracker.proc):
                    self._learner.add(key, kind, value)

    def _look(self, batch: Batch) -> None:
        with self._lock:
            self._learner.learn(batch.sections, clock_offset())
            for key, cgroup_id in self._learner.cgroups.items():
                self._find(key, cgroup_id)
            self._learner.cgroups.clear()

    def _end(self) -> None:
        self._is_over = True

    def _find(self, key: str, cgroup_id: int) -> None:
        """Note the names of a container now: it may be gone when they are sent."""
        cgroup = self._tracker.resolve(cgroup_id)
        if cgroup is not None:
            self._cgroups.pop(key, None)
            self._cgroups[key] = cgroup
            self._since.setdefault(key, time.time_ns())
        while len(self._cgroups) > MOST_CONTAINERS:
            oldest = next(iter(self._cgroups))
            del self._cgroups[oldest], self._since[oldest]

    def _messages(self, key: str, new: New, *, whole: bool) -> Iterator[pb.Learnt]:
        """What is new of a container. It waits while nobody knows yet whether the container is chosen."""
        cgroup = self._cgroups.get(key)
        if cgroup is None or cgroup.container is None:
            return
        chosen = self._chosen.decide(cgroup.container)
        if chosen is None and not whole:
            self._pending[key] = new
        if chosen is False or (chosen is None and not whole):
            return
        self.undecided += chosen is None
        tracker = self._tracker
        pod = tracker.pods.get(cgroup.container.pod_uid) if tracker.pods else None
        facts = tracker.facts(cgroup)
        yield pb.Learnt(
            container=container_messages({cgroup.id: cgroup.container})[0],
            owner=pod.owner if pod else "",
            revision=pod.labels.get("pod-template-hash", "") if pod else "",
            repository=facts.repository if facts else "",
            since_ns=self._since[key],
            programs=map(_encoded, new.get(PROGRAMS, ())),
            files=map(_encoded, new.get(FILES, ())),
            ports=new.get(PORTS, ()),
            peers=map(_valid, new.get(PEERS, ())),
            more=self._learner.more(key),
        )


def _encoded(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _valid(text: str) -> str:
    return str(text.encode("utf-8", "replace"), "utf-8")


def _joined(one: New, other: New) -> New:
    return {kind: [*one.get(kind, ()), *other.get(kind, ())] for kind in KINDS}
