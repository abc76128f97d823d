"""Collects samples of all agents, and counts what is missing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gadget._generated import gadget_pb2 as pb
from gadget.errors import Malformed
from gadget.kinds.times import short_duration
from gadget.rows import Decoder
from gadget.schema import Schema
from gadget.text import counted
from kubectl_gadget.agents import contract
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.output import Output
from kubectl_gadget.profile.stacks import CUT, NO_STACK, Function, Samples, StackOwner
from kubectl_gadget.stream.begin import stops
from kubectl_gadget.stream.books import Node
from kubectl_gadget.stream.containers import known_containers
from kubectl_gadget.stream.countdown import Countdown
from kubectl_gadget.stream.merge import TimedRow
from kubectl_gadget.stream.request import Request
from kubectl_gadget.stream.session import Session
from kubectl_gadget.stream.streams import Check, Streams

_SCHEMA = Schema((), 0)
#: What one agent may tell of: more makes no sense.
MOST_FRAMES, MOST_STACKS, MOST_CALLS = 1_000_000, 1_000_000, 256
LONGEST = 8192


class SampleCheck:
    """Looks at the replies of one agent, in their order."""

    def __init__(self, node: str) -> None:
        """Of a node; empty if only the agent can tell."""
        self._node, self._has_begun = node, False
        self._frames: set[int] = set()
        self._stacks: set[int] = set()

    def __call__(self, reply: pb.RunReply) -> None:
        """GadgetError unless a reply makes sense."""
        node, what = self._node or reply.node, reply.WhichOneof("what")
        if what == "started":
            contract.check(node, reply.started.contract)
            self._has_begun = True
            self._frames.clear()
            self._stacks.clear()
        elif not self._has_begun or what not in ("batch", "summary") or reply.batch.sections or reply.batch.alerts:
            raise Malformed(f"{node}: its agent sends no samples, but something else")
        elif what == "batch" and not self._makes_sense(reply.batch.samples):
            raise Malformed(f"{node}: its agent sends samples that make no sense")

    def _makes_sense(self, told: pb.Samples) -> bool:
        self._frames.update(each.number for each in told.frames)
        self._stacks.update(each.number for each in told.stacks)
        return (
            len(self._frames) <= MOST_FRAMES
            and len(self._stacks) <= MOST_STACKS
            and all(max(len(each.name), len(each.module)) <= LONGEST for each in told.frames)
            and all(
                len(each.frames) <= MOST_CALLS and len(each.comm) <= LONGEST and self._frames.issuperset(each.frames)
                for each in told.stacks
            )
            and len(told.seen) == len(told.counts)
            and self._stacks.issuperset(told.seen)
        )


@dataclass
class _Told:
    """A target's functions and stacks by number, and how often each stack was seen."""

    functions: dict[int, Function] = field(default_factory=dict)
    stacks: dict[int, tuple[int, int, str, tuple[Function, ...]]] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)

    def take(self, told: pb.Samples) -> int:
        """Take in more. Returns how many samples that was."""
        for each in told.frames:
            self.functions[each.number] = Function(each.name, each.module, each.address, each.kernel)
        for stack in told.stacks:
            calls = [self.functions[number] for number in reversed(stack.frames)] or [NO_STACK]
            whole = tuple([CUT, *calls] if stack.cut else calls)
            self.stacks[stack.number] = (stack.cgroup_id, stack.pid, stack.comm, whole)
        for number, count in zip(told.seen, told.counts, strict=True):
            self.counts[number] = self.counts.get(number, 0) + count
        return sum(told.counts)


class _Waiting(Countdown):
    """Shows how far it is, and in the end what came of it."""

    def __init__(self, seconds: float, so_far: Callable[[], str], write: Callable[[], str]) -> None:
        """For so long, 0 without end; write writes the whole, and returns what has to be said about it."""
        super().__init__("looking", seconds, so_far)
        self._write = write

    def finish(self) -> str:
        """Write all that there is."""
        self.close()
        return self._write()


class SampleSession(Session):
    """Takes in samples."""

    thing = "sample"

    def __init__(
        self, request: Request, targets: Targets, hz: int, write: Callable[[Samples], None], stop: Callable[[], None]
    ) -> None:
        """Of what request asks for, so many a second, 0 for waits; write writes them when stop has ended it."""
        super().__init__(request, lambda: known_containers(targets))
        self._timer = threading.Timer(request.timeout, stop)
        self._timer.daemon = True
        self._of: dict[str, list[_Told]] = {}
        self._taken = 0
        self._samples, self._write_samples = Samples(hz), write

    def _make_output(self, schema: Schema) -> Output:
        return _Waiting(self._request.timeout, self._what, self._finish)

    def _finish(self) -> str:
        """Write the samples, with the names of containers as they are known by now."""
        made = self._samples
        made.seconds = (time.time_ns() - made.began_ns) / 1e9
        for target, runs in self._of.items():
            decoder = self._nodes[target].decoder
            for told in runs:
                for number, count in told.counts.items():
                    cgroup_id, pid, comm, calls = told.stacks[number]
                    namespace, pod, container, id_ = decoder.names.get(cgroup_id) or ("", "", "", "")
                    made.add(StackOwner(decoder.node, namespace, pod, container, id_, comm, pid), calls, count)
        self._timer.cancel()
        self._write_samples(made)
        return f"{self._amount(made.crowded)} of further stacks left out: there were too many" * bool(made.crowded)

    def _begun(self, target: str, name: str, started: pb.Started) -> Node:
        contract.check(name, started.contract)
        if not self._of:  # from here on there are samples
            self._samples.began_ns = time.time_ns()
            if self._request.timeout:
                self._timer.start()
        self._of.setdefault(target, []).append(_Told())
        return Node(Decoder(name, _SCHEMA), lambda table: None)

    def _tell_other_words(self, name: str, schema: Schema) -> None:
        """There are no words of an agent's own."""

    def _rows(self, target: str, node: Node, batch: pb.Batch) -> list[TimedRow]:
        told = self._of[target][-1]
        self._taken += told.take(batch.samples)
        for each in batch.samples.stacks:
            names = node.decoder.names.get(each.cgroup_id)
            self._containers.add(names[3] if names else "")
        return []

    def _what(self) -> str:
        return self._amount(self._taken)

    def _amount(self, count: int) -> str:
        return f"{short_duration(count)} of waits" if self._samples.waits else counted(count, self.thing, ",")


def collect(request: Request, targets: Targets, hz: int, write: Callable[[Samples], None]) -> None:
    """Take so many samples a second, or with 0 count waits, until the time is over or Ctrl-C; write them.

    Raises:
        GadgetError: No agent can do it.
        Incomplete: Something was lost, and that was not to be.

    """
    parameters = {**request.parameters, **({"hz": str(hz)} if hz else {})}
    asked = pb.Profile(parameters=parameters, selection=pb.Selection(**request.selection.message()))
    whole = pb.RunRequest(profile=asked) if hz else pb.RunRequest(offcpu=asked)

    def check(node: str) -> Check:
        return SampleCheck(node)

    streams = Streams(targets, whole, check)
    with stops(streams, 0.0), streams:
        session = SampleSession(request, targets, hz, write, streams.stop)
        session.run(streams, len(targets), streams.stop, live=True)
