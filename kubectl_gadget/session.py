"""One streaming command: from its options to the last line that says how complete it was."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import click
import orjson

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, Incomplete
from gadget.rows import Decoder
from gadget.schema import Schema
from kubectl_gadget.output import Output, all_fields, make_output
from kubectl_gadget.output.columns import is_narrow
from kubectl_gadget.peers import Directory, Peers, add_names
from kubectl_gadget.recording import Recording, record
from kubectl_gadget.request import Request
from kubectl_gadget.streams import Ended, Message, Streams
from kubectl_gadget.targets import Targets
from kubectl_gadget.text import escape


@dataclass
class Node:
    """One agent's side of a session."""

    decoder: Decoder
    losses: list[pb.Loss] = field(default_factory=list)
    undecided: int = 0

    def lost(self) -> int:
        """All its losses."""
        return sum(loss.count for loss in self.losses)


class Session:
    """Shows the events of one request, and keeps the books."""

    def __init__(self, request: Request) -> None:
        """Prepare to show what request asks for."""
        self._request = request
        self._nodes: dict[str, Node] = {}
        self._failures: list[GadgetError] = []
        self.shown = 0

    def _make_output(self, nodes: int) -> Output:
        request = self._request
        fields = request.fields
        if request.count_by:
            from kubectl_gadget.output.counts import Counts

            headers = request.gadget.headers
            return Counts(request.count_by, lambda shown: make_output(request.form, shown, headers), headers)
        if nodes == 1 and is_narrow() and not request.own_fields:
            fields = [field for field in fields if field.name != "node"]  # the same in every row
        return make_output(request.form, fields, request.gadget.headers)

    def run(self, messages: Iterable[Message], nodes: int, stop: Callable[[], None], *, live: bool) -> None:
        """Show messages until they end; stop is called when enough has been shown. live: they take their time.

        GadgetError if nothing could be traced, Incomplete under --strict.
        """
        began = time.monotonic()
        self._output = self._make_output(nodes)
        self._names = [item.name for item in self._output.fields]
        for target, message in messages:
            if isinstance(message, Ended):
                self._ended(message)
            elif not self._full():
                self._take(target, message)
                if self._full():
                    stop()
            else:
                self._count(target, message)
        remark = self._output.finish()
        if not self._nodes and self._failures:
            raise self._failures[0]
        if remark:
            click.echo(remark, err=True)
        self._conclude(f", in {duration(time.monotonic() - began)}" if live else ", as recorded")

    def _full(self) -> bool:
        return bool(self._request.max_events) and self.shown >= self._request.max_events

    def _take(self, target: str, reply: pb.RunReply) -> None:
        self._count(target, reply)
        if reply.WhichOneof("what") == "started":
            self._start_output()
        elif reply.WhichOneof("what") == "batch":
            rows = self._nodes[target].decoder.rows(reply.batch, self._names, self._request.filter)
            if self._request.max_events:
                rows = rows[: self._request.max_events - self.shown]
            if rows:
                self._output.write(rows)
                self.shown += len(rows)

    def _count(self, target: str, reply: pb.RunReply) -> None:
        what = reply.WhichOneof("what")
        if what == "started":
            schema = Schema.from_json(orjson.loads(reply.started.schema))
            if missing := set(self._names) - set(all_fields(schema) | schema.parts):
                names = ", ".join(sorted(missing))
                raise GadgetError(f"{reply.node}: its agent is of another version and does not know {names}")
            decoder = Decoder(reply.node, schema)
            decoder.learn(reply.started.containers)
            self._nodes[target] = Node(decoder)
        elif what == "batch":
            self._nodes[target].decoder.learn(reply.batch.containers)
            if reply.batch.losses:
                self._nodes[target].losses = list(reply.batch.losses)
        elif what == "summary":
            self._nodes[target].decoder.learn(reply.summary.containers)
            self._nodes[target].losses = list(reply.summary.losses)
            self._nodes[target].undecided = reply.summary.undecided

    def _start_output(self) -> None:
        decoders = [node.decoder for node in self._nodes.values()]
        self._output.start([(item.node, *names) for item in decoders for names in item.names.values()])

    def _ended(self, message: Ended) -> None:
        if message.error:
            self._failures.append(message.error)
            if self._nodes:
                click.echo(f"warning: {message.error}", err=True)

    def _conclude(self, when: str) -> None:
        sys.stdout.flush()
        containers = {names[3] for node in self._nodes.values() for names in node.decoder.names.values()}
        covered = f"{count(len(self._nodes), 'node')}, {count(len(containers), 'container')}"
        lost = sum(node.lost() for node in self._nodes.values())
        line = f"{count(self.shown, 'event')} from {covered}{when}; "
        line += f"{lost} lost: {self._where()}. Narrow it down, or raise --buffer." if lost else "nothing lost."
        click.echo(line, err=True)
        if undecided := sum(node.undecided for node in self._nodes.values()):
            what = count(undecided, "event")
            click.echo(f"{what} of pods whose labels were not known within 2 s were shown all the same.", err=True)
        for failure in self._failures:
            click.echo(f"incomplete: {failure}", err=True)
        if self._request.strict and (lost or self._failures):
            raise Incomplete("not complete, and --strict was given")

    def _where(self) -> str:
        places = []
        for node in self._nodes.values():
            by_reason: dict[str, list[str]] = {}
            for loss in sorted(node.losses, key=lambda loss: -loss.count):
                names = node.decoder.names.get(loss.cgroup_id)
                who = (names[2] or names[3][:12]) if names else "other"
                by_reason.setdefault(loss.reason, []).append(f"{escape(who)} {loss.count}")
            for reason, losers in by_reason.items():
                places.append(f"{reason} on {node.decoder.node} ({', '.join(losers[:5])}{', …' * (len(losers) > 5)})")
        return "; ".join(places)


def stream(request: Request, targets: Targets, directory: Callable[[], Directory]) -> None:
    """Run what request asks for on the targets, and show it; directory names the ends of connections."""
    start = pb.Start(
        gadget=request.gadget.name,
        parameters=request.parameters,
        selection=pb.Selection(**asdict(request.selection)),
        ring_bytes=request.ring_bytes,
    )
    with Streams(targets, start) as streams, _stops(streams, request.timeout):
        messages = add_names(streams, Peers(directory))
        if request.record:
            messages = record(messages, request.record, request.gadget.name)
        Session(request).run(messages, len(targets), streams.stop, live=True)


def replay(recording: Recording, request: Request) -> None:
    """Show a recording as request asks."""
    session = Session(request)
    session.run(recording, 2, lambda: None, live=False)  # columns with the node: there is no telling how many come
    if not recording.complete:
        click.echo("incomplete: the recording was cut off: this is what it holds up to there", err=True)
        if request.strict:
            raise Incomplete("not complete, and --strict was given")


def count(number: int, what: str) -> str:
    """A number of things, in words."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m{rest:02d}s" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest} s"


@contextmanager
def _stops(streams: Streams, timeout: float) -> Iterator[None]:
    """Stop in order on the first Ctrl-C, SIGTERM, hang-up or the timeout; at once on the second Ctrl-C."""

    def on_signal(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        streams.stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    timer = threading.Timer(timeout, streams.stop)
    timer.daemon = True
    if timeout:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
