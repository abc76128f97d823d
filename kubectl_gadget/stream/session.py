"""Runs one streaming command, up to the last line, which says how complete it was."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, Incomplete, Malformed, Unreachable, UsageError
from gadget.kinds.times import moment
from gadget.memory import expect_batches
from gadget.rows import Decoder
from gadget.schema import Column, Row, Schema
from gadget.text import counted, duration
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.output import Output, all_fields, find_form
from kubectl_gadget.output.stdout import CutShort
from kubectl_gadget.stream.backlog import Backlog
from kubectl_gadget.stream.books import (
    CUT_OFF,
    Gap,
    Node,
    advice,
    incomplete,
    open_gap,
    reasons_of,
    unwatched,
    where_lost,
    who_is_not_known,
)
from kubectl_gadget.stream.containers import known_containers
from kubectl_gadget.stream.merge import Merge, TimedRow
from kubectl_gadget.stream.narrow import of_nodes, within, without
from kubectl_gadget.stream.nothing import ExistingContainer, takes_host, why_nothing
from kubectl_gadget.stream.peers import Look, add_names
from kubectl_gadget.stream.recording import Recording, Writer
from kubectl_gadget.stream.replies import RunCheck, read_started, read_usual
from kubectl_gadget.stream.request import Request, Selection
from kubectl_gadget.stream.rounds import Rounds
from kubectl_gadget.stream.streams import Ended, Message, Notice, Streams
from kubectl_gadget.tell import tell

#: How long an end waits to say why there was nothing to show.
TELLING_SECONDS = 0.5
#: How often silence is looked for.
SILENCE_SECONDS = 0.5
#: How many heartbeats of an agent may be missed before it counts as silent.
BEATS_MISSED = 5
#: How many rows are written at a time: so few that their memory stays in the processor's cache and is used again.
AT_ONCE = 2000
#: What an agent that does not know Selection.any_of makes of -p.
OLDER = "its agent is older: there -p means whole names, and pods that come later are not shown"
#: How many nodes a recording may have; Kubernetes has up to 5,000.
MOST_TARGETS = 10_000


class Session:
    """Shows the events of one request, and keeps the books."""

    #: what is shown, in a word
    thing = "event"

    def __init__(self, request: Request, elsewhere: Callable[[], list[ExistingContainer] | None] | None = None) -> None:
        """Prepare to show what request asks for.

        elsewhere returns all containers that exist, whether asked for or not.
        """
        self._request = request
        self._nodes: dict[str, Node] = {}
        #: targets that do not send now, each with its end; a target that sends again moves to _gaps
        self._away: dict[str, Ended] = {}
        #: the targets in _away that the user has been told about
        self._warned: set[str] = set()
        self._told: set[str] = set()
        self._gaps: list[Gap] = []
        self._merge = Merge()
        self._backlog: Backlog | None = None  # for a standing run: until all nodes have sent what they kept
        self._rounds: Rounds | None = None
        self._tables = 0
        self._unknown: dict[str, bool] = {}  # fields of tables: whether all values were unknown so far
        self._cut_ns = 0  # how long the tables took that the end cut short, and that are not shown
        self._unusual = 0  # rows that only --all shows
        self._newest = 0
        self._output: Output | None = None
        self._containers: set[str] = set()  # ids of the containers that were shown
        self._elsewhere = elsewhere
        self._looked = False
        self._telling: threading.Thread | None = None
        self.shown = 0

    def _make_output(self, schema: Schema) -> Output:
        (first, *_) = self._nodes.values()
        one = self._expected == 1 or not self._live  # for a recording, until rows of a second node come
        return self._request.make_output(self._known(schema), first.decoder.node if one else "")

    def _known(self, schema: Schema) -> dict[str, Column]:
        """The fields that rows may have."""
        return {**all_fields(schema), **schema.parts}

    def run(
        self,
        messages: Iterable[Message],
        nodes: int,
        stop: Callable[[], None],
        *,
        live: bool,
        targets: Collection[str] = (),
        is_ending: Callable[[], bool] = bool,
    ) -> None:
        """Show messages until they end; stop is called when enough has been shown. live: they take their time.

        nodes is how many are expected; targets are those whose standing run is read; is_ending tells whether the user
        has asked for the end. GadgetError if nothing could be traced, Incomplete under --strict.
        """
        self._is_ending = is_ending
        expect_batches()
        self._began = self._look_again = began = time.monotonic()
        if self._request.standing:
            self._backlog = Backlog(targets, self._request.last)
        self._expected, self._live = nodes, live
        self._rounds = Rounds(self._request.interval, recorded=not live) if self._request.gadget.has_tables else None
        try:
            self._follow(messages, stop)
        finally:
            if self._output:
                self._output.close()
        if self._output is None:
            raise self._nobody()
        if self._telling and not self.shown:  # a snapshot is over before anybody has looked
            self._telling.join(TELLING_SECONDS)
        self._output.start([])
        if remark := self._output.finish():
            tell(remark)
        kept = ", as kept" if self._request.standing and not self._request.follow else ", as recorded"
        watched = live and not (self._request.standing and not self._request.follow)
        self._conclude(f", in {duration(time.monotonic() - began)}" if watched else kept)

    def replay(self, recording: Recording) -> None:
        """Show a recording."""
        wanted, nodes = self._request.nodes, set[str]()

        def messages() -> Iterator[Message]:
            checks: dict[str, RunCheck] = {}
            for target, message in of_nodes(recording, wanted, nodes, self._called):
                if isinstance(message, pb.RunReply):
                    if target not in checks and len(checks) >= MOST_TARGETS:
                        raise GadgetError(f"{recording.path}: of more than {MOST_TARGETS:,} nodes")
                    try:
                        checks.setdefault(target, RunCheck(self._request_of(target), ""))(message)
                    except Malformed as error:
                        raise GadgetError(f"{recording.path}: {error}") from error
                yield target, message
            if not recording.complete:
                self.miss(CUT_OFF)

        try:
            self.run(messages(), 2, lambda: None, live=False)  # columns with the node: who can tell how many come
            self.tell_nothing()
        except Unreachable:
            if nodes and wanted:
                known, asked = ", ".join(sorted(nodes)), ",".join(wanted)
                raise UsageError(f"--node {asked}: the recording has none of them; there is {known}") from None
            if recording.complete:
                raise
            raise GadgetError(f"{recording.path}: cut before its first event") from None
        except (GadgetError, OSError):
            raise
        except Exception as error:  # whatever a damaged file leads to, of which there is no list
            where = f"{recording.path}: damaged after the first {counted(self.shown, 'event')} that can be shown"
            raise GadgetError(where) from error

    def _follow(self, messages: Iterable[Message], stop: Callable[[], None]) -> None:
        for target, message in messages:
            if isinstance(message, Ended):
                self._ended(message)
                if self._backlog and not message.coming:
                    self._backlog.done(target)
            elif isinstance(message, Notice):
                tell(message.text)
            elif message is not None:
                self._count(target, message)
                self._look_for_containers()
                if not self._full():
                    self._take(target, message)
            if self._live and (message is None or time.monotonic() > self._look_again):
                self._look_for_silence()
                self._look_again = time.monotonic() + SILENCE_SECONDS
            if self._backlog and not self._full():
                self._show(self._backlog.ripe())
                if self._backlog.is_done:
                    self._backlog = None
                    self._caught_up()
            if not self._full():
                self._show(self._merge.ripe(self._now()))
                self._look_for_round()
            if self._output:
                self._output.refresh(self._so_far)
            if self._full():
                stop()
        if self._backlog:
            self._show(self._backlog.rest())
        self._show(self._merge.rest())
        while self._rounds and not self._full() and (rows := self._rounds.next(0.0)) is not None:
            self._show_table(rows)

    def _caught_up(self) -> None:
        """Of a standing run, all that was kept has been shown: what follows comes."""

    def _look_for_containers(self) -> None:
        """Once all agents that there are have begun, tell if nothing is there that was asked for."""
        if self._looked or not self._live or len(self._nodes.keys() | self._away.keys()) < self._expected:
            return
        self._looked = True
        host = self._request.parameters.get("host", "") in ("True", "true")
        if self._elsewhere and not host and not any(node.decoder.names for node in self._nodes.values()):
            args = (self._elsewhere, takes_host())
            self._telling = threading.Thread(target=self._tell_nothing, args=args, name="nothing", daemon=True)
            self._telling.start()

    def tell_nothing(self) -> None:
        """Of a recording from which nothing was shown: tell if it has nothing of what was asked for."""
        names = [each for node in self._nodes.values() for each in node.decoder.names.values()]
        known = [ExistingContainer(*each[:3]) for each in names]
        if not self.shown and known and (why := why_nothing(self._request.selection, known, watching=False)):
            tell(why)

    def _tell_nothing(self, elsewhere: Callable[[], list[ExistingContainer] | None], host: bool) -> None:
        known = elsewhere()
        if known is not None and (why := why_nothing(self._request.selection, known, host=host)):
            tell(why)

    def _so_far(self) -> str:
        """The line below a live table."""
        lost = sum(node.lost for node in self._nodes.values())
        seconds = duration(int(time.monotonic() - self._began)).replace(".0", "")
        return f"{self._what()} in {seconds}; {f'{lost} lost' if lost else 'nothing lost'}"

    def _what(self) -> str:
        """The number of events shown, in words."""
        if self._rounds:
            return f"{counted(self.shown, 'row')} in {counted(self._tables, 'table')}"
        return counted(self.shown, self.thing)

    def _nobody(self) -> GadgetError:
        """Why nobody could be traced, once all reasons but that one have been told."""
        errors = {str(ended.error): ended.error for ended in self._away.values() if ended.error}  # each reason once
        first, *others = errors.values() or [Unreachable("no agent answered")]
        for error in others:
            tell(f"warning: {error}")
        return first

    def _now(self) -> float:
        """Seconds by which rows wait for each other: of a recording, when its own came."""
        return time.monotonic() if self._live else self._newest / 1e9

    def miss(self, gap: Gap) -> None:
        """Note a time in which something was not watched."""
        self._gaps.append(gap)

    def _full(self) -> bool:
        if self._rounds:
            return bool(self._request.count) and self._tables >= self._request.count
        return bool(self._request.max_events) and self.shown >= self._request.max_events

    def _take(self, target: str, reply: pb.RunReply) -> None:
        if reply.WhichOneof("what") != "batch":
            return
        assert self._output
        node = self._nodes[target]
        rows = self._rows(target, node, reply.batch)
        if self._rounds:
            if reply.batch.table:
                self._take_table(self._rounds, target, reply, rows)
            return
        if rows and self._backlog:
            self._backlog.add(target, rows)
        if self._backlog and reply.caught_up:
            self._backlog.done(target)
        if not rows or self._backlog:
            return
        self._newest = max(self._newest, reply.sent_ns or rows[-1][0])
        if self._expected == 1 and len(self._nodes) == 1:
            self._show(rows)
        else:
            self._merge.add(rows, self._now())

    def _rows(self, target: str, node: Node, batch: pb.Batch) -> list[TimedRow]:
        """The rows of a batch that are shown."""
        return node.decoder.rows(batch, self._names, node.filter)

    def _take_table(self, rounds: Rounds, target: str, reply: pb.RunReply, rows: list[TimedRow]) -> None:
        assert self._output
        batch = reply.batch
        if self._output.is_live and self._tables and batch.table_cut:  # the one that stands there says more
            self._cut_ns = max(self._cut_ns, batch.table_ns)
            return
        # the first snapshot is taken at once, so how long its interval is cannot be told
        length = batch.table_ns / 1e9 if batch.table > 1 and not batch.table_cut else 0.0
        rounds.add(target, rows, time.monotonic() if self._live else reply.sent_ns / 1e9, length)

    def _look_for_round(self) -> None:
        """Show the tables of an interval once those of all nodes are there, or have had the time."""
        if not self._rounds:
            return
        if not self._live:
            self._show_table(self._rounds.ripe(0.0, None))
            return
        targets = [target for target, node in self._nodes.items() if target not in self._away and not node.silent]
        if len(self._nodes.keys() | self._away.keys()) < self._expected:
            targets.append("nodes that have not answered")
        missing = self._rounds.missing(targets)
        rows = self._rounds.ripe(time.monotonic(), targets)
        for target in missing if rows is not None and not self._request.interval else ():
            self.miss(Gap(target, f"{target}: its table did not come in time", when="at that time"))
        self._show_table(rows)

    def _show_table(self, rows: list[TimedRow] | None) -> None:
        if rows is None:  # no round is over
            return
        assert self._output
        # with whose it is as its last value
        whole = [(*row, container) for _, row, container in rows]
        self._look_for_unknown([row for _, row, _ in rows])
        indented = find_form(self._request.form).is_table
        arranged = self._request.order.arrange(whole, self._names, indented=indented)
        width = len(self._output.fields)
        self._tables += 1
        self._containers.update([row[-1] for row in arranged])
        if self._output.is_whole:
            self._write([row[:width] for row in arranged])
            return
        for at in range(0, len(arranged), AT_ONCE):
            self._write([row[:width] for row in arranged[at : at + AT_ONCE]])

    def _look_for_unknown(self, rows: list[Row]) -> None:
        """Note fields that are shown and of which no value has been known yet."""
        assert self._output
        for at, item in enumerate(self._output.fields if rows else ()):
            if item.name in self._request.gadget.unknown:
                unknown = all(row[at] == item.means.unknown for row in rows)
                self._unknown[item.name] = unknown and self._unknown.get(item.name, True)

    def _write(self, rows: list[Row]) -> None:
        assert self._output
        try:
            self._output.write(rows)
        except CutShort as error:
            raise OSError(error.errno, f"{error.strerror}: {self._written(error.taken)} written") from None
        self.shown += len(rows)

    def _show(self, rows: list[TimedRow]) -> None:
        if self._request.max_events:
            rows = rows[: self._request.max_events - self.shown]
        for at in range(0, len(rows), AT_ONCE):
            part = rows[at : at + AT_ONCE]
            self._write([row for _, row, _ in part])
            self._containers.update([container for _, _, container in part])

    def _written(self, taken: bytes) -> str:
        """How many events standard output has, of which taken was the last that it took."""
        if find_form(self._request.form).one_line:
            return counted(self.shown + taken.count(b"\n"), self.thing)
        return f"at least {counted(self.shown, self.thing)}"

    def _request_of(self, target: str) -> Request:
        """The request that a target got."""
        return self._request

    def _called(self, target: str) -> str:
        """The name that users know a target by."""
        return target

    def _tell_state(self, target: str, state: str, text: str) -> None:
        """Say how a target is by now; state is the same word for the same state."""
        tell(text)

    def _place(self, target: str, node: Node) -> str:
        """The name of a target in the list of losses."""
        return node.decoder.node

    def _all_gaps(self) -> list[Gap]:
        """All times in which a target was not watched."""
        return [*self._gaps, *map(open_gap, self._away.values())]

    def _count_nodes(self) -> int:
        """How many nodes were watched."""
        return len(self._nodes)

    def _watched(self) -> str:
        """The number of nodes that were watched, in words."""
        return counted(self._count_nodes(), "node")

    def _count(self, target: str, reply: pb.RunReply) -> None:
        what = reply.WhichOneof("what")
        if what == "started":
            self._started(target, reply.node, reply.started)
            return
        node = self._nodes[target]
        node.heard = time.monotonic()
        if node.silent:
            node.silent = False
            self._tell_state(target, "heard", f"{self._called(target)}: heard again")
        if what == "batch":
            node.decoder.learn(reply.batch.containers)
            if reply.batch.losses:
                node.losses = list(reply.batch.losses)
        elif what == "summary":
            node.decoder.learn(reply.summary.containers)
            node.losses = list(reply.summary.losses)
            node.undecided += reply.summary.undecided

    def _started(self, target: str, name: str, started: pb.Started) -> None:
        node = self._begun(target, name, started)
        decoder, schema = node.decoder, node.decoder.schema
        decoder.learn(started.containers)
        node.beat_seconds, node.heard = started.beat_ms / 1000, time.monotonic()
        if self._live and not self._request.standing and self._request.selection.any_of and not started.selects:
            self._warn_once(f"{name}: {OLDER}")
        if before := self._nodes.get(target):
            node.earlier, node.undecided = [*before.earlier, *before.losses], before.undecided
            decoder.names.update({**before.decoder.names, **decoder.names})
        self._nodes[target] = node
        self._told.discard(target)
        if away := self._away.pop(target, None):
            self._came_again(target, away, started.received_ns)
        if self._output is None:
            self._output = self._make_output(schema)
            # what rows are sorted by stands behind what is shown
            self._names = [item.name for item in (*self._output.fields, *self._request.order.fields)]
        else:
            self._tell_other_words(name, schema)
        decoders = [node.decoder for node in self._nodes.values()]
        known = [(item.node, *names) for item in decoders for names in item.names.values()]
        if known or not sys.stdout.isatty():
            self._output.start(known)  # else the first rows tell how wide columns have to be
        for each in self._away:
            self._tell_away(each)

    def _begun(self, target: str, name: str, started: pb.Started) -> Node:
        """A node whose agent has begun. GadgetError if it cannot be understood."""
        schema, kept = read_started(self._request_of(target), name, started)
        selection = self._request.selection
        agents_choose = self._live and not self._request.standing
        keep = kept if agents_choose or selection == Selection() else within(selection.chosen(), kept)
        if usual := read_usual(self._request, schema):
            keep = without(usual, keep, self._leave_out)
        return Node(Decoder(name, schema), keep)

    def _leave_out(self, rows: int) -> None:
        self._unusual += rows

    def _warn_once(self, what: str) -> None:
        """Warn about an agent once, however often it begins anew."""
        if what not in self._warned:
            self._warned.add(what)
            tell(f"warning: {what}")

    def _tell_other_words(self, name: str, schema: Schema) -> None:
        """What a node's agent calls otherwise than the first node's, whose words are shown for all."""
        assert self._output
        own = {item.name: item.values for item in schema.shown}
        for item in self._output.fields:
            for number, word in own.get(item.name, {}).items():
                if item.values.get(number, word) != word:
                    what = f"what it calls {word} in {item.name} is shown as {item.values[number]}"
                    self._warn_once(f"{name}: its agent is of another version: {what}")

    def _came_again(self, target: str, away: Ended, now_ns: int) -> None:
        if self._request.standing and not away.coming and now_ns <= away.heard_ns:  # it goes on after what it sent
            tell(f"{target}: joined again")
            return
        seconds, again = 0.0, bool(away.heard_ns)
        if again:
            seconds = max(now_ns - away.heard_ns, 0) / 1e9  # the node's clock may have been set back
            told = f"not seen from {moment(away.heard_ns)} to {moment(now_ns)} ({duration(seconds)})"
        else:
            told = f"seen only from {moment(now_ns)} on"
        called = self._called(target)
        self.miss(Gap(target, f"{called}: {told}", seconds, "" if again else "at first"))
        if self._live and not self._backlog:
            self._tell_state(target, "joined", f"{called}: joined{' again' * again}; {told}")

    def _ended(self, message: Ended) -> None:
        if not message.error:
            return
        before = self._away.get(message.target)
        heard_ns = message.heard_ns or (before.heard_ns if before else 0)
        self._away[message.target] = replace(message, heard_ns=heard_ns)
        if self._nodes:  # else it may be all that there is to say, as an error
            self._tell_away(message.target)

    def _tell_away(self, target: str) -> None:
        """Say now why a target is away, once until it is there again."""
        ended = self._away[target]
        if self._live and not ended.coming and target not in self._told:
            self._told.add(target)
            self._tell_state(target, str(ended.error), f"warning: {ended.error}")

    def _look_for_silence(self) -> None:
        """Tell of nodes that have missed their beat: an agent that hangs, or a network that swallows."""
        now = time.monotonic()
        for target, node in self._nodes.items():
            limit = node.beat_seconds * BEATS_MISSED
            if limit and not node.silent and target not in self._away and now - node.heard > limit:
                node.silent = True
                silent = f"warning: {self._called(target)}: nothing heard for {duration(limit)}"
                self._tell_state(target, "silent", silent)
        backlog = self._backlog
        for target in backlog.waiting if backlog else ():
            known = self._nodes.get(target)
            if backlog and now - (known.heard if known else self._began) > self._request.patience.backlog:
                backlog.done(target)
                tell(f"warning: {target}: what it kept is not waited for: it comes later than that of others")

    def _conclude(self, when: str) -> None:
        sys.stdout.flush()
        covered = f"{self._watched()}, {counted(len(self._containers - {''}), 'container')}"
        lost = sum(node.lost for node in self._nodes.values())
        gaps = self._all_gaps()
        if lost:
            places = [(self._place(target, node), node) for target, node in self._nodes.items()]
            kept = f"{lost} lost: {where_lost(places)}.{self._advice()}"
            kept += f" Not watched: {unwatched(gaps)}." if gaps else ""
        else:
            kept = f"nothing lost of what was watched; not watched: {unwatched(gaps)}." if gaps else "nothing lost."
        tell(f"{self._what()} from {covered}{when}; {kept}")
        if undecided := sum(node.undecided for node in self._nodes.values()):
            what, known = ("row", "") if self._rounds else (self.thing, " within 2 s")
            tell(f"{counted(undecided, what)} of pods whose labels were not known{known} were shown all the same.")
        if self._cut_ns:
            tell(f"Ended {duration(self._cut_ns / 1e9)} into a table, which is not shown.")
        unknown = [self._request.gadget.unknown[name] for name, never in self._unknown.items() if never]
        for line in (*who_is_not_known(self._nodes.values()), *self._left_out(), *(f"{line}." for line in unknown)):
            tell(line)
        for line in incomplete(gaps):
            tell(line)
        if self._request.strict and (lost or gaps):
            raise Incomplete("not complete, and --strict was given")

    def _left_out(self) -> Iterator[str]:
        """What the gadget does not show as it was asked; of what was kept it is not known how that was."""
        if self._unusual:
            without = self._request.gadget.usual["without"]
            yield f"{counted(self._unusual, 'row')} left out, {without}: --all shows them."
        if self._live and not self._request.standing:
            for name, what in self._request.gadget.left_out.items():
                if self._request.parameters.get(name, "").lower() != "true":
                    yield f"{what} left out: --{name.replace('_', '-')} shows them."

    def _advice(self) -> str:
        """What to do against losses."""
        return advice(reasons_of(self._nodes.values()))


def stream(
    request: Request, targets: Targets, streams: Streams, directory: Look, make: Callable[..., Session] = Session
) -> None:
    """Show what the targets send, which request has been sent to; directory names the ends of connections."""
    with ExitStack() as stack:
        messages = add_names(streams, directory)
        if request.record:
            messages = stack.enter_context(Writer(request.record, request.gadget.name)).keep(messages)
        session = make(request, None if request.standing else lambda: known_containers(targets))
        session.run(messages, len(targets), streams.stop, live=True, targets=targets, is_ending=streams.is_ending)


def replay(recording: Recording, request: Request) -> None:
    """Show a recording as request asks."""
    Session(request).replay(recording)
