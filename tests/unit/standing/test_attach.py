"""attach: what the command line makes of agents that keep a run, come again, are slow or mean harm."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import orjson
import pytest

from agent.answering import finish_with
from gadget import CONTRACT, catalog
from gadget._generated import gadget_pb2 as pb
from gadget.standing import from_toml
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.stream import session
from kubectl_gadget.stream.begin import begin
from kubectl_gadget.stream.request import make_request
from kubectl_gadget.stream.streams import Streams
from tests.conftest import run_cli, wait_until
from tests.fakes import WholeAgent
from tests.unit.test_session import cluster, ms, run, shown

GADGET = catalog.find("execsnoop")
KEPT = pb.StandingStatus(run=pb.Standing(name="execs", start=pb.Start(gadget="execsnoop")), kept_bytes=1)


class Keeps(WholeAgent):
    """Keeps batches, each read at the time of its event, and sends those that are asked for."""

    def __init__(self, folder: Path, node: str) -> None:
        super().__init__(folder, node)
        self.kept: list[tuple[int, pb.RunReply]] = []
        self.late: list[pb.RunReply] = []  # what is on its way when the reader ends
        self.asked_since: list[int] = []
        self.catches_up, self.tells, self.ends = True, 0, True
        self.status = pb.StandingStatus()
        self.status.CopyFrom(KEPT)

    def keep(self, *times_ms: int) -> None:
        for at in ms(*times_ms):
            self.emit(at)
            batch = self._batches.get()
            self.kept.append((at, pb.RunReply(node=self.node, batch=batch, sent_ns=at)))

    def StandingList(self, request: pb.StandingListRequest, context: grpc.ServicerContext) -> pb.StandingListReply:
        self._say_contract(context)
        return pb.StandingListReply(node=self.node, runs=[self.status])

    def StandingDelete(
        self, request: pb.StandingDeleteRequest, context: grpc.ServicerContext
    ) -> pb.StandingDeleteReply:
        self._say_contract(context)
        if request.name != self.status.run.name or not (self.ends and self.status.run.start.gadget):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "there is none")
        return pb.StandingDeleteReply(node=self.node)

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        first = next(requests).attach
        self.asked_since.append(first.since_ns)
        over = threading.Event()
        context.add_callback(over.set)
        threading.Thread(target=finish_with, args=(requests, over.set), daemon=True).start()
        schema = orjson.dumps(self.schema.to_json()).decode()
        started = pb.RunReply(node=self.node, started=pb.Started(schema=schema, contract=CONTRACT), sent_ns=1)
        for _ in range(self.tells):
            yield pb.RunReply(node=self.node, interrupted=pb.Interrupted(reason="x" * (4 << 20), heard_ns=-(2**63)))
            yield started
        yield started
        self.started.set()
        sent = 0
        while not over.wait(0.02):
            for at, reply in self.kept[sent:]:
                sent += 1
                if at > first.since_ns:
                    yield reply
            if self.catches_up:
                yield pb.RunReply(node=self.node, batch=pb.Batch(), sent_ns=max([1, *(at for at, _ in self.kept)]),
                                  caught_up=True)  # fmt: skip
            if not first.follow:
                break
        yield from self.late
        yield pb.RunReply(node=self.node, summary=pb.Summary())


@pytest.fixture
def keeps(tmp_path: Path) -> Iterator[Callable[[str], Keeps]]:
    made: list[Keeps] = []

    def make(node: str) -> Keeps:
        made.append(Keeps(tmp_path, node))
        return made[-1]

    yield make
    for each in made:
        each.die()


def attach(targets: Targets, do: Callable[[], object], *, hangs: bool = False, **patience: float) -> None:
    def settled(streams: Streams) -> bool:
        """Whether all that agents kept was shown."""
        return hangs or streams._running <= streams._read_up

    run(targets, do, record=None, standing="execs", follow=True, patience=patience, settled=settled)


def test_ends_while_it_reads(keeps, capsys) -> None:
    """Ctrl-C while much of what is kept is still to be read: I do not wait for it, and am told that it is not shown."""
    node = keeps("node-a")
    node.catches_up = False
    node.keep(1, 2)
    node.late = [reply for _, reply in node.kept]
    node.kept = []
    attach(cluster(node), lambda: wait_until(node.started.is_set, "the beginning"), hangs=True, rest=0.0)
    out, err = capsys.readouterr()
    assert shown(out) == []
    assert "ended while it was still reading what is kept: the rest is not shown\n" in err


def test_comes_again(keeps, capsys) -> None:
    """When an agent goes away and comes again while I follow, I see each event once, and am told of no false gap."""
    first, other = keeps("node-a"), keeps("node-b")
    targets = cluster(first, other)
    first.keep(1, 2)
    other.keep(3)
    seen: list[tuple[str, str]] = []

    def said(where: int) -> str:
        """What came on standard output or, by 1, on standard error so far."""
        seen.append(capsys.readouterr())
        return "".join(each[where] for each in seen)

    def do() -> None:
        wait_until(lambda: said(0).count("\n") == 3, "what both kept")
        del targets.there["node-a"]
        first.die()
        wait_until(lambda: "went away" in said(1), "word of it")
        again = keeps("node-a")
        again.keep(1, 2, 4)
        targets.there["node-a"] = again.reach
        assert again.started.wait(5)
        assert again.asked_since == ms(2)

    attach(targets, do)
    out, err = said(0), said(1)
    assert shown(out) == [("node-a", 1), ("node-a", 2), ("node-b", 3), ("node-a", 4)]
    told = err.splitlines()
    assert told[:2] == ["warning: node-a: the agent went away", "node-a: joined again"]
    assert len(told) == 3 and told[2].endswith("; nothing lost.")


def test_answers_late(keeps, capsys) -> None:
    """An agent that answers later than others has kept all, so nothing is missing."""
    first, late = keeps("node-a"), keeps("node-b")
    first.keep(2)
    late.keep(1)
    targets = cluster(first, late)

    def slowly() -> str:
        first.started.wait(5)
        time.sleep(0.5)  # the slowness that is tested: longer than late
        return late.reach()

    targets["node-b"] = slowly
    attach(targets, lambda: late.started.wait(5), late=0.1)
    out, err = capsys.readouterr()
    assert shown(out) == [("node-b", 1), ("node-a", 2)]
    assert err.endswith("; nothing lost.\n")


@pytest.mark.parametrize("silent", [False, True])
def test_one_hangs(keeps, capsys, silent: bool) -> None:
    """An agent that hangs does not keep what others kept from me for ever, and I am told."""
    first, hangs = keeps("node-a"), keeps("node-b")
    first.keep(1)
    hangs.catches_up = False
    targets = cluster(first, hangs)
    over, seen = threading.Event(), list[str]()
    if silent:
        targets["node-b"] = lambda: str(over.wait(20)) and hangs.reach()

    def do() -> None:
        def shows() -> bool:
            seen.extend(capsys.readouterr())
            return "node-a" in "".join(seen[::2])

        wait_until(shows, "what the other kept")
        over.set()

    attach(targets, do, hangs=True, backlog=0.3)
    wanted = "warning: node-b: what it kept is not waited for: it comes later than that of others"
    assert wanted in "".join(seen[1::2])


def test_many_gaps(keeps, capsys) -> None:
    """However often and long an agent says that nobody watched, I get a line I can read, and not too many."""
    hostile = keeps("node-a")
    hostile.tells = 30
    request = make_request(GADGET, {}, "json", "", (), "", standing="execs", record=None)
    targets = Targets({"node-a": hostile.reach})
    with begin(request, targets) as streams:
        session.stream(request, targets, streams, dict)
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == "incomplete: node-a: not seen 10 times more"
    assert len(told) == 22 and max(map(len, told)) < 1000


def test_delete_goes_on(keeps) -> None:
    """A wrong name among those I delete keeps none of the others, and is told in the end."""
    agent = keeps("node-a")
    done = run_cli("delete", "nobody", "execs", "--agent", agent.address)
    assert (done.returncode, done.stdout) == (2, "execs ended on 1 node; what it kept is gone\n")
    assert done.stderr == "error: no standing run 'nobody': there is execs\n"


def test_nobody_ends_it(keeps) -> None:
    """Where an agent lists a run and does not end it, delete says so, and fails."""
    agent = keeps("node-a")
    agent.ends = False
    done = run_cli("delete", "execs", "--agent", agent.address)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: execs runs, and no agent ended it: try it again\n"


def test_runs_tell_options(keeps) -> None:
    """`runs` tells what I have asked for, the gadget's own options too."""
    agent = keeps("node-a")
    agent.status.run.start.CopyFrom(
        from_toml("x", 'gadget = "opensnoop"\n[parameters]\nfailed = true\npid = 7\n').start
    )
    (row,) = map(orjson.loads, run_cli("runs", "-o", "json", "--agent", agent.address).stdout.splitlines())
    assert row["selection"] == "-A --failed --pid 7"
    agent.status.run.start.selection.namespaces.append("shop")
    (row,) = map(orjson.loads, run_cli("runs", "-o", "json", "--agent", agent.address).stdout.splitlines())
    assert row["selection"] == "-n shop --failed --pid 7"


def test_file_makes_no_sense(keeps) -> None:
    """A name whose file makes no sense is told with its file and what is wrong, by attach and delete."""
    agent = keeps("node-a")
    agent.status = pb.StandingStatus(run=pb.Standing(name="odd"), file="/etc/odd.toml", problem="no value")
    for command in ("attach", "delete"):
        done = run_cli(command, "odd", "--agent", agent.address)
        wanted = "error: odd is no run, as /etc/odd.toml makes no sense: no value\n"
        assert (done.returncode, done.stderr) == (2, wanted)
