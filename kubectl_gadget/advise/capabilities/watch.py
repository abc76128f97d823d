"""Takes in checks of capabilities, live or of a recording, and writes what comes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError
from gadget.schema import Column, Row, Schema
from kubectl_gadget.advise.capabilities.need import CapabilityCheck, CapabilityNeeds, Need, PodKey
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.output import Output, all_fields, text_of
from kubectl_gadget.stream.begin import begin
from kubectl_gadget.stream.books import Node
from kubectl_gadget.stream.containers import known_containers, list_containers
from kubectl_gadget.stream.countdown import Countdown
from kubectl_gadget.stream.recording import Recording
from kubectl_gadget.stream.request import Request, Selection
from kubectl_gadget.stream.session import Session

#: How long an agent may take to tell whose pods are.
SOON_SECONDS = 5.0
#: What a check is made of, in the order of the members of Check.
_FIELDS = (
    "node", "namespace", "pod", "container", "containerId", "pid", "comm", "capability", "result", "count", "syscall",
    "level", "runtime",
)  # fmt: skip
#: How some of them are read, as the word that people are shown.
_READ: Mapping[str, Callable[[str], Any]] = {
    "capability": str,
    "result": lambda word: word == "granted",
    "syscall": lambda word: "" if word == "-" else word,
}

#: Writes the needs of workloads, which were watched for so many seconds.
Write = Callable[[list[Need], float], None]


class _Adding(Countdown):
    """Adds up rows."""

    def __init__(
        self,
        fields: Sequence[Column],
        needs: CapabilityNeeds,
        seconds: float,
        what: Callable[[], str],
        done: Callable[[], None],
    ) -> None:
        """For so long, 0 without end. what says how much there was, done writes what came of it."""
        super().__init__("watching", seconds, what)
        self.fields, self._needs, self._done = fields, needs, done
        self._texts = [(text_of(field), _READ[field.name]) if field.name in _READ else None for field in fields]

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows."""
        for row in rows:
            read = (how[1](how[0](value)) if how else value for how, value in zip(self._texts, row, strict=True))
            self._needs.take(CapabilityCheck(*read))

    def finish(self) -> str:
        """Write all that there is."""
        self.close()
        self._done()
        return ""


class CapabilitySession(Session):
    """Watches which capabilities are asked for."""

    thing = "row"

    def __init__(self, request: Request, write: Write, targets: Targets | None = None) -> None:
        """Of what request asks for, of targets, or else of a recording; write writes what comes of it."""
        super().__init__(request, (lambda: known_containers(targets)) if targets else None)
        self._targets, self._write_needs, self._needs = targets, write, CapabilityNeeds()
        self._older: set[str] = set()
        self._first_ns = self._last_ns = 0

    def _make_output(self, schema: Schema) -> Output:
        known = all_fields(schema)
        fields = [known[name] for name in _FIELDS]
        return _Adding(fields, self._needs, self._request.timeout, self._what, self._finish)

    def _begun(self, target: str, name: str, started: pb.Started) -> Node:
        self._older.update(each.id for each in started.containers)
        self._first_ns = self._first_ns or started.received_ns or time.time_ns()
        return super()._begun(target, name, started)

    def _count(self, target: str, reply: pb.RunReply) -> None:
        super()._count(target, reply)
        self._last_ns = max(self._last_ns, reply.sent_ns) if not self._live else time.time_ns()

    def _left_out(self) -> Iterator[str]:
        """What is left out is of no account here."""
        return iter(())

    def _finish(self) -> None:
        chosen = self._request.selection.chosen()
        of_all = self._live or self._request.selection == Selection()
        every = {
            (namespace, pod, container, id_)
            for node in self._nodes.values()
            for namespace, pod, container, id_ in node.decoder.names.values()
            if of_all or chosen.matches(namespace, pod, container, None) is not False
        }
        seconds = max(self._last_ns - self._first_ns, 0) / 1e9 if self._first_ns else 0.0
        self._write_needs(self._needs.of(every, self._older, self._owners()), seconds)

    def _owners(self) -> Mapping[PodKey, str]:
        """Whose the pods are, as far as agents tell it soon."""
        found: dict[PodKey, str] = {}
        for target in self._targets or ():
            try:
                assert self._targets
                for reply in list_containers(self._targets.reach(target), pb.ContainersRequest(), SOON_SECONDS):
                    found |= {
                        PodKey(each.container.namespace, each.container.pod): each.owner for each in reply.containers
                    }
            except GadgetError:
                continue  # the stream itself says that the agent is gone
        return found


def watch(request: Request, targets: Targets, write: Write) -> None:
    """Watch until the request's time is over, or Ctrl-C, and write what came of it."""
    with begin(request, targets) as streams:
        session = CapabilitySession(request, write, targets)
        session.run(streams, len(targets), streams.stop, live=True, targets=targets)


def read(recording: Recording, request: Request, write: Write) -> None:
    """The same of a recording."""
    CapabilitySession(request, write).replay(recording)
