"""A story that stands: a run of each kind, which users begin, list, read and end by one name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import orjson
import pytest
import yaml

from agent.answering import finish_with
from gadget import CONTRACT, catalog
from gadget._generated import gadget_pb2 as pb
from gadget.standing import from_toml, story_of
from kubectl_gadget.story.kinds import all_kinds, choose
from tests.conftest import run_cli
from tests.fakes import WholeAgent
from tests.unit.test_completion import offered
from tests.unit.test_snapshots import EVENTS, batch

BASE = 1_700_000_000_000_000_000
USUAL = [each.story.kind for each in choose("")]


class Stands(WholeAgent):
    """Has standing runs, which keep what the test says."""

    def __init__(self, folder: Path, node: str) -> None:
        super().__init__(folder, node)
        self.runs: dict[str, pb.StandingStatus] = {}
        self.begun: list[str] = []
        self.kept: dict[str, list[pb.RunReply]] = {}
        self.lacks: dict[str, str] = {}  # by gadget, why it does not run here
        self.most = 64

    def keep(self, run: str, time_ns: int, at: int = 0, lost: int = 0) -> None:
        """Keep an event of a run that happened at a time."""
        gadget = self.runs[run].run.start.gadget
        made = batch(catalog.find(gadget), EVENTS[gadget][at : at + 1])
        made.clock_offset_ns, made.containers[0].pod = time_ns, f"on-{self.node}"
        if lost:
            made.losses.append(pb.Loss(reason="overwritten", count=lost))
        self.kept.setdefault(run, []).append(pb.RunReply(node=self.node, batch=made, sent_ns=time_ns))
        self.runs[run].events += 1

    def StandingPut(self, request: pb.StandingPutRequest, context: grpc.ServicerContext) -> pb.StandingPutReply:
        self._say_contract(context)
        name = request.run.name
        if name not in self.runs and len(self.runs) >= self.most:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self.most} standing runs on {self.node} already")
        before = self.runs.get(name)
        if not before or before.run != request.run:
            self.begun.append(name)
            problem = self.lacks.get(request.run.start.gadget, "")
            self.runs[name] = pb.StandingStatus(run=request.run, since_ns=BASE, kept_bytes=1 << 10, problem=problem)
        return pb.StandingPutReply(node=self.node)

    def StandingList(self, request: pb.StandingListRequest, context: grpc.ServicerContext) -> pb.StandingListReply:
        self._say_contract(context)
        return pb.StandingListReply(node=self.node, runs=self.runs.values())

    def StandingDelete(
        self, request: pb.StandingDeleteRequest, context: grpc.ServicerContext
    ) -> pb.StandingDeleteReply:
        self._say_contract(context)
        if request.name not in self.runs:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"no standing run {request.name!r}")
        del self.runs[request.name]
        return pb.StandingDeleteReply(node=self.node)

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        first = next(requests).attach
        if first.name not in self.runs:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{self.node} has no standing run {first.name!r}")
        status = self.runs[first.name]
        if status.problem:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{self.node} has kept nothing: {status.problem}")
        over = threading.Event()
        context.add_callback(over.set)
        threading.Thread(target=finish_with, args=(requests, over.set), daemon=True).start()
        schema = orjson.dumps(catalog.find(status.run.start.gadget).schema.to_json()).decode()
        who = [each for reply in self.kept.get(first.name, ()) for each in reply.batch.containers]
        started = pb.Started(schema=schema, contract=CONTRACT, containers=who[:1])
        yield pb.RunReply(node=self.node, started=started, sent_ns=1)
        sent, losses = 0, list[pb.Loss]()
        while True:
            for reply in self.kept.get(first.name, [])[sent:]:
                sent += 1
                losses = list(reply.batch.losses) or losses
                if reply.sent_ns > first.since_ns:
                    yield reply
            yield pb.RunReply(node=self.node, batch=pb.Batch(), sent_ns=BASE, caught_up=True)
            if not first.follow or over.wait(0.02):
                break
        yield pb.RunReply(node=self.node, summary=pb.Summary(losses=losses))


@pytest.fixture
def stands(tmp_path: Path) -> Iterator[Callable[[str], Stands]]:
    made: list[Stands] = []

    def make(node: str = "node-a") -> Stands:
        made.append(Stands(tmp_path, node))
        return made[-1]

    yield make
    for each in made:
        each.die()


def gadget(*args: str, on: tuple[Stands, ...], code: int = 0) -> tuple[str, str]:
    """What a command says to agents."""
    where = [word for each in on for word in ("--agent", each.address)]
    done = run_cli(*args, *where)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_a_run_of_each_kind(stands) -> None:
    """`story --detach` begins a run of each kind, which asks for what the live story asks, and shares what is kept."""
    node = stands()
    said, _ = gadget("story", "-n", "shop", "--pid", "7", "--detach", "--name", "tale", on=(node,))
    assert said == (
        f"tale runs on 1 node, {len(USUAL)} kinds.\n"
        "To see it:  kubectl gadget attach tale -f\nTo end it:  kubectl gadget delete tale\n"
    )
    assert [*node.runs] == [f"tale.{kind}" for kind in USUAL]
    runs = {name: status.run for name, status in node.runs.items()}
    assert {story_of(run) for run in runs.values()} == {("tale", kind) for kind in USUAL}
    assert {tuple(run.start.selection.namespaces) for run in runs.values()} == {("shop",)}
    assert runs["tale.open"].start.gadget == "opensnoop"
    assert dict(runs["tale.open"].start.parameters) == {"failed": "true", "pid": "7"}
    assert {run.start.ring_bytes for run in runs.values()} == {1 << 20}
    assert 31 << 20 < sum(run.keep_bytes for run in runs.values()) <= 32 << 20
    gadget("story", "--detach", "--keep", "8M", on=(node,))
    usual = [status.run for name, status in node.runs.items() if name.startswith("story.")]
    assert 7 << 20 < sum(run.keep_bytes for run in usual) <= 8 << 20 and len(usual) == len(USUAL)


def test_the_same_again(stands) -> None:
    """The same story again changes nothing; with other kinds it has those, and no more."""
    node = stands()
    gadget("story", "--kinds", "exec,exit,open", "--detach", on=(node,))
    gadget("story", "--kinds", "exec,exit,open", "--detach", on=(node,))
    assert node.begun == ["story.exec", "story.exit", "story.open"]
    gadget("story", "--kinds", "open,dns", "--detach", "--keep", "6M", on=(node,))
    assert {*node.runs} == {"story.dns", "story.open"}


def test_listed_as_one(stands) -> None:
    """`runs` has a line for a story, which adds up its runs and says which kinds have a problem."""
    node = stands()
    node.lacks["fdpass"] = "no such hook"
    said, told = gadget(
        "story", "-n", "shop", "--pid", "7", "--kinds", "+open,+fd,-dns", "--detach", "--name", "tale", on=(node,)
    )
    assert said.startswith(f"tale runs on 1 node, {len(USUAL)} kinds.\n")
    assert told == f"warning: nothing of fd: {node.address}: no such hook\n"
    gadget("execsnoop", "--detach", on=(node,))
    node.keep("tale.exec", BASE)
    node.keep("tale.exit", BASE, at=1)
    node.runs["tale.exec"].lost, node.runs["tale.exit"].overwritten, node.runs["tale.exit"].rate = 3, 5, 0.5
    rows = [*map(orjson.loads, gadget("runs", "-o", "json", on=(node,))[0].splitlines())]
    assert [(row["name"], row["gadget"]) for row in rows] == [("execsnoop", "execsnoop"), ("tale", "story")]
    tale = rows[1]
    assert tale["selection"] == "-n shop --kinds +open,+fd,-dns --pid 7"
    assert (tale["events"], tale["lost"], tale["overwritten"], tale["rate"]) == (2, 3, 5, 0.5)
    assert (tale["kept"], tale["problem"]) == (len(USUAL) << 10, "fd: no such hook")


def test_read_as_a_story(stands) -> None:
    """`attach` shows what all runs of all nodes kept as one story by time, and says what each has lost."""
    first, second = stands("node-a"), stands("node-b")
    gadget("story", "--kinds", "exec,exit", "--detach", on=(first, second))
    first.keep("story.exit", BASE + 30_000_000, at=1, lost=3)
    second.keep("story.exec", BASE + 20_000_000)
    first.keep("story.exec", BASE + 10_000_000, at=1)
    second.keep("story.exit", BASE + 40_000_000)
    out, told = gadget("attach", "story", on=(first, second))
    shown = [line.split()[1:3] for line in out.splitlines()]
    assert shown == [["on-node-a", "exec"], ["on-node-b", "exec"], ["on-node-a", "exit"], ["on-node-b", "exit"]]
    assert told.startswith(
        "4 events (2 exec, 2 exit) from 2 nodes, 1 container, as kept; 3 lost: overwritten on node-a, exit"
    )
    out, _ = gadget("attach", "story", "--last", "2", "-o", "json", on=(first, second))
    rows = [*map(orjson.loads, out.splitlines())]
    assert [(row["kind"], row["node"]) for row in rows] == [("exit", "node-a"), ("exit", "node-b")]
    one_kind = ["--filter", "exec:error!=0", "--filter", "exit:pid<0"]
    out, _ = gadget("attach", "story", "-o", "json", *one_kind, on=(first, second))
    assert [(row["kind"], row["node"]) for row in map(orjson.loads, out.splitlines())] == [("exec", "node-a")]
    out, _ = gadget("attach", "story", "-p", "nobody", on=(first, second))
    assert out == ""


def test_followed(stands) -> None:
    """With -f a story goes on with what comes, of every kind, until I have seen enough."""
    node = stands()
    gadget("story", "--kinds", "exec,exit", "--detach", on=(node,))
    node.keep("story.exec", BASE)
    timer = threading.Timer(1.0, node.keep, ["story.exit", BASE + 10_000_000])
    timer.start()
    out, _ = gadget("attach", "story", "-f", "--max-events", "2", on=(node,))
    timer.join()
    assert [line.split()[1] for line in out.splitlines()] == ["exec", "exit"]


def test_kept_in_a_file(stands, tmp_path: Path) -> None:
    """A story that stood, recorded as I read it, is replayed as the same lines."""
    node = stands()
    gadget("story", "--kinds", "exec,exit", "--detach", on=(node,))
    node.keep("story.exit", BASE + 10_000_000, at=1)
    node.keep("story.exec", BASE)
    out, _ = gadget("attach", "story", "--record", str(tmp_path / "file"), on=(node,))
    assert run_cli("replay", str(tmp_path / "file")).stdout == out


def test_part_that_is_not_possible(stands) -> None:
    """What a node cannot watch is told once, and the rest of the story is there and complete."""
    node = stands()
    node.lacks["oomkill"] = "no such hook"
    gadget("story", "--detach", on=(node,))
    node.keep("story.exec", BASE)
    out, told = gadget("attach", "story", "--strict", on=(node,))
    assert out.count("\n") == 1
    assert told.splitlines()[0] == f"warning: {node.address}: nothing of oom: node-a has kept nothing: no such hook"
    assert told.splitlines()[1].endswith("; nothing lost.")


def test_no_room(stands) -> None:
    """Where not all kinds find room, I am told which, and where none does, that it runs nowhere."""
    node = stands()
    node.most = 2
    said, told = gadget("story", "--kinds", "exec,exit,open,dns", "--detach", on=(node,))
    assert said.startswith("story runs on 1 node, 4 kinds.\n")
    assert told == f"warning: nothing of exit, open: {node.address}: 2 standing runs on node-a already\n"
    node.most = 0
    _, told = gadget("story", "--kinds", "tcp,udp", "--detach", "--name", "other", on=(node,), code=1)
    assert told.splitlines()[-1] == "error: other runs nowhere"


def test_deleted(stands) -> None:
    """`delete` ends a story on all nodes by its name, and what is not part of it stays."""
    first, second = stands("node-a"), stands("node-b")
    gadget("story", "--detach", "--name", "tale", on=(first, second))
    gadget("execsnoop", "--detach", "--name", "execs", on=(first, second))
    said, _ = gadget("delete", "tale", on=(first, second))
    assert said == "tale ended on 2 nodes; what it kept is gone\n"
    assert [*first.runs] == [*second.runs] == ["execs"]
    for command in ("attach", "delete"):
        _, told = gadget(command, "tale", on=(first, second), code=2)
        assert told == "error: no standing run 'tale': there is execs\n"


def test_name_is_taken(stands) -> None:
    """A name stands for one thing: neither a story nor a gadget takes the other's, and a wrong name is refused."""
    node = stands()
    gadget("execsnoop", "--detach", "--name", "mine", on=(node,))
    gadget("story", "--kinds", "exec", "--detach", "--name", "tale", on=(node,))
    _, told = gadget("story", "--detach", "--name", "mine", on=(node,), code=2)
    assert told.startswith("error: mine is a run of execsnoop already: give it another --name")
    _, told = gadget("opensnoop", "--detach", "--name", "tale", on=(node,), code=2)
    assert told.startswith("error: tale is a run of a story already: give it another --name")
    for name in ("Tale", "a/b", "a" * 60):
        _, told = gadget("story", "--detach", "--name", name, on=(node,), code=2)
        assert f"{name!r} cannot name a story: want lower-case letters" in told
    assert {*node.runs} == {"mine", "tale.exec"}


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["story", "--detach", "-o", "json"], "--output: give it to `kubectl gadget attach`"),
        (["story", "--detach", "--filter", "pid>1"], "--filter: give it to `kubectl gadget attach`"),
        (["story", "--name", "tale"], "--name: of a standing run: with --detach"),
        (["attach", "story", "-o", "csv"], "-o csv: story is a story, which has lines, or -o json"),
        (["attach", "story", "--fields", "pid"], "--fields: story is a story, which has lines, or -o json"),
        (["attach", "story", "--filter", "exce:pid>1"], "did you mean 'exec'"),
    ],
)
def test_options_that_do_not_go_together(stands, args: list[str], why: str) -> None:
    """What only reading takes, or only standing, or no story has, is refused in a line that says where it belongs."""
    node = stands()
    gadget("story", "--kinds", "exec", "--detach", on=(node,))
    assert why in gadget(*args, on=(node,), code=2)[1]


def test_printed(stands) -> None:
    """--print-only prints one ConfigMap with a file for each kind, which agents read as the same runs."""
    node = stands()
    out, _ = gadget("story", "--kinds", "exec,open", "-n", "shop", "--detach", "--print-only", on=(node,))
    files = yaml.safe_load(out)["data"]
    assert {*files} == {"story.exec.toml", "story.open.toml"} and not node.runs
    runs = [from_toml(name.removesuffix(".toml"), text) for name, text in files.items()]
    assert {story_of(run) for run in runs} == {("story", "exec"), ("story", "open")}


def test_little_is_kept(stands) -> None:
    """However little a story may keep, no part of it gets what agents keep of a run that does not say."""
    out, _ = gadget("story", "-n", "shop", "--detach", "--keep", "8K", "--print-only", on=(stands(),))
    files = yaml.safe_load(out)["data"]
    assert len(files) > 8
    assert {from_toml(name.removesuffix(".toml"), text).keep_bytes for name, text in files.items()} == {1 << 10}


def test_completed(stands) -> None:
    """The shell completes a story's name, not those of its parts."""
    node = stands()
    gadget("story", "--detach", "--name", "tale", on=(node,))
    gadget("execsnoop", "--detach", "--name", "them", on=(node,))
    assert offered("attach", "--agent", node.address, "t") == ["tale", "them"]


def test_every_kind_can_be_named() -> None:
    """Each kind's word can be part of a run's name."""
    for kind, (each, _) in all_kinds().items():
        assert story_of(from_toml(f"tale.{kind}", f'gadget = "{each.name}"')) == ("tale", kind)
    assert story_of(from_toml("tale.exec", 'gadget = "opensnoop"')) is None
