"""Agents, and recordings, that mean harm: none takes others down, poses as another, or writes to my terminal."""

from __future__ import annotations

import ast
import json
import os
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson
import pytest
from click.shell_completion import ShellComplete

import kubectl_gadget
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.checks import check_batch, parse_schema
from gadget.errors import GadgetError, Malformed
from kubectl_gadget import client, completion, wire
from kubectl_gadget.advise.collect import hear
from kubectl_gadget.advise.flows import Context, Header, write_flows
from kubectl_gadget.cli import PROGRAM, cli
from kubectl_gadget.output.encode import encode, visible
from kubectl_gadget.recording import Writer
from kubectl_gadget.request import make_request
from kubectl_gadget.session import stream
from kubectl_gadget.targets import Agent, Targets
from kubectl_gadget.traceloop import instances
from tests.conftest import CLI, run_cli
from tests.fakes import WholeAgent
from tests.unit.rows import batch

EXECS = catalog.find("execsnoop").schema
#: Texts of which a terminal obeys a part.
CRAFTED = "a\x9b31m\u202e\x7f\x1b[2J\U000e0041\u2028b"


def schema_text(**changes: Any) -> str:
    return orjson.dumps({**EXECS.to_json(), **changes}).decode()


def field(which: str, /, **changes: Any) -> str:
    """The schema with another field of that name."""
    fields = [replace(item, **changes) if item.name == which else item for item in EXECS.fields]
    return orjson.dumps(replace(EXECS, fields=tuple(fields)).to_json()).decode()


def edited(change: Callable[[Any], None]) -> pb.Batch:
    """A batch of execs in whose rows something was changed."""
    given = batch()
    section = given.sections[0]
    rows = np.frombuffer(section.rows, EXECS.dtype(section.record_size)).copy()
    change(rows)
    section.rows = rows.tobytes()
    return given


def _sections(**changes: Any) -> pb.Batch:
    given = batch()
    for name, value in changes.items():
        setattr(given.sections[0], name, value)
    return given


def _set(name: str, part: str, value: int) -> Callable[[Any], None]:
    def change(rows: Any) -> None:
        rows[name][part] = value

    return change


def _everything_named(rows: Any) -> None:
    for name in ("args", "exe", "cwd"):
        rows[name]["offset"], rows[name]["length"] = 0, 64


def _no_bool(rows: Any) -> None:
    rows["args_truncated"].view(np.uint8)[:] = 7


BATCHES = {
    "slice beyond the row": edited(_set("args", "length", 60_000)),
    "slice that begins beyond": edited(_set("exe", "offset", 65_535)),
    "text named again and again": edited(_everything_named),
    "a bool of 7": edited(_no_bool),
    "more rows than bytes": _sections(count=1 << 31),
    "fewer rows than bytes": _sections(count=1),
    "no rows": pb.Batch(sections=[pb.Section(record_size=EXECS.text_offset)]),
    "records of nothing": pb.Batch(sections=[pb.Section(record_size=0, count=1 << 31)]),
    "records without the fields": pb.Batch(sections=[pb.Section(record_size=4, count=2, rows=bytes(8))]),
    "a huge record": pb.Batch(sections=[pb.Section(record_size=1 << 20, count=1, rows=bytes(1 << 20))]),
}
SCHEMAS = {
    "no JSON": "(",
    "a list": "[]",
    "nothing": "{}",
    "no fields": schema_text(fields=[]),
    "text nowhere": schema_text(text_offset=0),
    "text far away": schema_text(text_offset=1 << 40),
    "text before the start": schema_text(text_offset=-8),
    "text as text": schema_text(text_offset="98"),
    "overlap": field("pid", offset=0),
    "beyond the end": field("cwd", offset=1 << 31),
    "before the start": field("pid", offset=-4),
    "huge count": field("pid", count=1 << 30),
    "no count": field("pid", count=0),
    "odd size": field("pid", size=3),
    "huge size": field("comm", size=1 << 31),
    "a list of arguments without parts": field("args", parts=()),
    "an id with parts": field("cgroup_id", parts=EXECS["args"].parts),
    "signed places": field("args", parts=tuple(replace(part, signed=True) for part in EXECS["args"].parts)),
    "a name with commands": field("pid", name="a\x1b[2J"),
    "a name twice": field("tid", name="pid"),
    "a word of a megabyte": field("error", values={"1": "x" * (1 << 20)}),
    "a number of many digits": field("error", values={"9" * 5000: "E"}),
    "another kind": field("pid", kind="comm"),
    "no time": field("timestamp", kind="int"),
    "long": '{"' + "x" * (2 << 20) + '": 1}',
    "deep": '{"fields":' + '[{"parts":' * 400 + "[]" + "}]" * 400 + ',"text_offset":9}',
}


@pytest.mark.parametrize("name", BATCHES)
def test_batch(name: str) -> None:
    """Rows that do not fit together are refused before a value is taken out of them."""
    check_batch("node-a", EXECS, batch())
    with pytest.raises(Malformed, match="node-a: its agent sends events that make no sense"):
        check_batch("node-a", EXECS, BATCHES[name])


@pytest.mark.parametrize("name", [name for name in SCHEMAS if name != "another kind"])
def test_schema(name: str) -> None:
    """A schema that makes no sense is refused, with the name of its node."""
    with pytest.raises(Malformed, match="node-a: its agent's events cannot be read"):
        parse_schema("node-a", SCHEMAS[name])


class Hostile(WholeAgent):
    """Answers each question with what the test says."""

    schema_text = schema_text()
    first: pb.Batch | None = None

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        """A run with the schema and the batch of the test."""
        next(requests)
        yield pb.RunReply(node=self.node, started=pb.Started(schema=self.schema_text, contract=1))
        self.started.set()
        for _ in range(3):
            yield pb.RunReply(node=self.node, batch=self.first)
        next(requests, None)
        yield pb.RunReply(node=self.node, summary=pb.Summary())


class Raw:
    """Answers every question with bytes."""

    def __init__(self, folder: Path, *answers: bytes) -> None:
        self.answers = answers
        self.address = f"unix://{folder}/raw-{time.monotonic_ns()}.sock"
        self._server = grpc.server(ThreadPoolExecutor(4), options=(("grpc.max_send_message_length", -1),))
        handlers = {}
        for name, method in pb.DESCRIPTOR.services_by_name["Agent"].methods_by_name.items():
            many = method.server_streaming
            kind: Any = {
                (False, False): grpc.unary_unary_rpc_method_handler,
                (False, True): grpc.unary_stream_rpc_method_handler,
                (True, True): grpc.stream_stream_rpc_method_handler,
            }[method.client_streaming, many]
            handlers[name] = kind(lambda _, __, many=many: iter(self.answers) if many else self.answers[0])
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("gadget.v1.Agent", handlers),))
        self._server.add_insecure_port(self.address)
        self._server.start()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[Callable[..., Hostile]]:
    """Makes agents that are gone after the test."""
    made: list[Hostile] = []

    def make(node: str, kind: type[WholeAgent] = Hostile, **values: Any) -> Any:
        made.append(kind(tmp_path, node))  # type: ignore[arg-type]
        for name, value in values.items():
            setattr(made[-1], name, value)
        return made[-1]

    yield make
    for each in made:
        each.die()


def test_stream_beside_bad_agents(agents: Callable[..., Any]) -> None:
    """An agent that sends nonsense is told of in one line with its node's name; the events of the others come."""
    wrong = [{"first": each} for each in BATCHES.values()]
    wrong += [{"first": batch(), "schema_text": text} for text in SCHEMAS.values()]
    bad = [agents(f"bad-{number}", **each) for number, each in enumerate(wrong)]
    where = [part for each in (*bad, agents("node-a", first=batch())) for part in ("--agent", each.address)]
    done = run_cli("execsnoop", *where, "-o", "json", "--fields", "node,pid", "--timeout", "3s")
    assert "Traceback" not in done.stderr
    rows = [tuple(json.loads(line).values()) for line in done.stdout.splitlines()]
    assert sorted(rows) == [("node-a", pid) for pid in (1, 2, 3) for _ in range(3)], done.stderr
    told = [line.removeprefix("incomplete: ") for line in done.stderr.splitlines() if line.startswith("incomplete: ")]
    assert sorted(line.partition(":")[0] for line in told) == sorted(each.node for each in bad)
    assert done.returncode == 0


LARGE = pb.DescribeReply(node="x" * (65 << 20)).SerializeToString()
ANSWERS = {
    "no message": b"\xff\xff\xff\xff",
    "a message of 65 MiB": LARGE,
    "33 million lists of nothing": b"\x12\x00" * (32 << 20),
    "a group": b"\x0b\x0c",
    "a number without an end": b"\x08" + b"\xff" * 20,
    "text beyond the end": b"\x0a\x7fnode",
    "text that is none": b"\x0a\x02\xff\xfe",
}
QUESTIONS: dict[str, list[str]] = {
    "Run": ["execsnoop", "--timeout=1s"],
    "Containers": ["containers"],
    "Describe": ["status"],
    "TraceloopList": ["traceloop", "list"],
    "Flows": ["advise", "network-policy"],
}


@pytest.mark.parametrize("method", QUESTIONS)
def test_answers_that_are_none(tmp_path: Path, agents: Callable[..., Any], method: str) -> None:
    """Whatever bytes an agent answers, to whichever command, I am told in one line with its name, and see the others."""
    good = agents("node-a", WholeAgent)
    with ExitStack() as stack:
        bad = [stack.enter_context(Raw(tmp_path, answer)) for answer in ANSWERS.values()]
        where = [part for each in (*bad, good) for part in ("--agent", each.address)]
        done = with_little_memory(*QUESTIONS[method], *where)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr, done.stderr
    lines = (done.stderr + done.stdout).splitlines()
    for each in bad:
        told = [line for line in lines if f"{each.address}: " in line]
        assert told and all(len(line) < 600 for line in told), done
    if method in ("Containers", "Describe"):
        assert "node-a" in done.stdout


def with_little_memory(*args: str, mebibytes: int = 1024) -> subprocess.CompletedProcess[str]:
    """The command, which may take no more."""
    command = ["sh", "-c", f'ulimit -d {mebibytes << 10}; exec "$@"', "sh", str(CLI), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("answer", ANSWERS)
def test_read_that_is_none(tmp_path: Path, answer: str) -> None:
    """The same when one recording is read."""
    with Raw(tmp_path, ANSWERS[answer]) as bad:
        agent = Agent("node-b", bad.address)
        with pytest.raises(GadgetError, match=r"^node-b: its agent"):
            list(client.ask(agent, "TraceloopRead", pb.TraceloopReadRequest()))


def test_flows_that_make_no_sense(agents: Callable[..., Any]) -> None:
    """An agent whose flows make no sense is a note in the advice, and the others' flows are used."""

    class Nonsense(WholeAgent):
        wrong: tuple[pb.FlowsReply, ...] = ()

        def Flows(self, request: pb.FlowsRequest, context: grpc.ServicerContext) -> Iterator[pb.FlowsReply]:
            yield from self.wrong

    pod = pb.FlowPod(uid="u", namespace="shop", name="cart")
    right: dict[str, Any] = {"uid": "u", "peer": bytes(16), "local": bytes(16), "count": 1}
    for wrong in (
        (),
        (pb.FlowsReply(node="b", pods=[pod], flows=[pb.Flow(**{**right, "peer": b"short"})]),),
        (pb.FlowsReply(node="b", pods=[pod], flows=[pb.Flow(**right, port=70_000)]),),
        (pb.FlowsReply(node="b", pods=[pod], flows=[pb.Flow(**right, first_ns=-1)]),),
        (pb.FlowsReply(node="b", pods=[pod], flows=[pb.Flow(**{**right, "count": 1 << 63})]),),
        (pb.FlowsReply(node="b", head=pb.FlowsHead(addresses=["nonsense"])),),
    ):
        bad = agents("node-b", Nonsense, wrong=wrong)
        heard = hear(Targets({"node-a": agents("node-a", WholeAgent).reach, "node-b": bad.reach}))
        assert heard.context.header.nodes == ("node-a",)
        (note,) = heard.context.notes
        assert note.startswith("without the traffic of node-b: node-b: its agent's answer cannot be used"), wrong


def test_recording_of_a_megabyte(tmp_path: Path) -> None:
    """A recording of 1 MB whose rows all name all of the text costs one line, and no gigabytes."""
    size = EXECS.text_offset + 1
    rows = np.zeros((1 << 20) // size, EXECS.dtype(size))
    for name in ("args", "exe", "cwd"):
        rows[name]["length"] = 65_535
    section = pb.Section(record_size=size, count=len(rows), rows=rows.tobytes())
    replies = [{"started": pb.Started(schema=schema_text())}, {"batch": pb.Batch(sections=[section])}]
    with Writer(file := tmp_path / "file", "execsnoop") as writer:
        assert list(writer.keep([("node-a", pb.RunReply(node="node-a", **each)) for each in replies]))
    done = with_little_memory("replay", str(file), "-o", "json", mebibytes=256)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {file}: node-a: its agent sends events that make no sense\n"


def test_long_names() -> None:
    """A name of a megabyte is cut, and what is JSON is not; the names of a node's containers that are kept are bounded."""
    long = "x" * (1 << 20)
    who = pb.Container(namespace=long, pod="cart-0")
    started = pb.Started(schema=long, containers=[who])
    flows = pb.FlowsReply(pods=[pb.FlowPod(labels={"a": long, long: "b"}, addresses=[long, "b"])])
    reply, _ = wire.parse(pb.RunReply, pb.RunReply(node=long, started=started).SerializeToString())
    assert reply.started.schema == long
    assert {len(reply.node), len(reply.started.containers[0].namespace)} == {wire.LONGEST_TEXT}
    assert reply.started.containers[0].pod == "cart-0"
    pod = wire.parse(pb.FlowsReply, flows.SerializeToString())[0].pods[0]
    assert max(map(len, [*pod.labels, *pod.labels.values(), *pod.addresses])) == wire.LONGEST_TEXT


def test_node_that_it_was_reached_on(
    agents: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a cluster the node is that of the pod that was reached, whatever the agent claims, of which I am warned once."""
    from kubectl_gadget import about, containers
    from kubectl_gadget.output import make_output
    from kubectl_gadget.recording import Recording

    agent = agents("liar", first=batch())
    targets = Targets({"node-a": agent.reach})
    warning = "warning: node-a: its agent says that it is on liar: not believed"

    targets.are_nodes = True
    fields = [item for item in containers.FIELDS if item.name in ("node", "pod")]
    containers.show(targets, pb.ContainersRequest(), make_output("json", fields, {}))
    assert about.describe(targets)["node-a"].node == "node-a"
    assert instances.ask(targets)[0] == []
    assert hear(targets).context.header.nodes == ("node-a",)
    out, err = capsys.readouterr()
    assert json.loads(out)["node"] == "node-a"
    assert err.splitlines() == [warning]

    client._told.clear()
    request = make_request(catalog.find("execsnoop"), {}, "json", "node", (), "", timeout=0.7, record=tmp_path / "file")
    stream(request, targets, dict)
    out, err = capsys.readouterr()
    assert {json.loads(line)["node"] for line in out.splitlines()} == {"node-a"}
    assert err.count("liar") == 1 and warning in err
    replies = [reply for _, reply in Recording(tmp_path / "file") if isinstance(reply, pb.RunReply)]
    assert {reply.node for reply in replies} == {"node-a"}


def test_own_name_of_an_agent(agents: Callable[..., Any]) -> None:
    """With --agent the node is what the agent says: nothing else is known of it."""
    done = run_cli("containers", "-o", "json", "--agent", agents("anything").address)
    assert json.loads(done.stdout)["node"] == "anything" and done.stderr == ""


def test_peers_are_not_for_agents_to_say(agents: Callable[..., Any]) -> None:
    """Who is at the other end of a connection is not believed from the agent that saw it."""
    from kubectl_gadget.peers import Peers, add_names

    started = pb.RunReply(started=pb.Started(schema=schema_text()))
    lie = pb.RunReply(batch=pb.Batch(peers=[pb.Peer(address=bytes(16), kind="pod", namespace="bank", name="ledger")]))
    assert [len(each.batch.peers) for _, each in add_names([("a", started), ("a", lie)], Peers(dict))] == [0, 0]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_files_are_mine(tmp_path: Path, umask: int) -> None:
    """What was captured nobody else can read, whatever the umask; the mode of a file that was there is left as it is."""
    before = os.umask(umask)
    try:
        for name, write in (
            (
                "record",
                lambda path: Writer(path, "execsnoop").__exit__(None, None, None) if path.exists() else _record(path),
            ),
            ("flows", lambda path: write_flows(path, Context(Header(0, 1, ("node-a",))), [])),
        ):
            path = tmp_path / name
            write(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600 & ~umask
            for mode in (0o640, 0o600):
                path.chmod(mode)
                write(path)
                assert stat.S_IMODE(path.stat().st_mode) == mode
    finally:
        os.umask(before)


def _record(path: Path) -> None:
    with Writer(path, "execsnoop") as writer:
        assert list(writer.keep([("node-a", pb.RunReply(node="node-a", started=pb.Started(schema=schema_text())))]))


def test_json_is_safe_and_the_same() -> None:
    """JSON holds nothing that a terminal obeys, wherever it goes, and says the same."""
    value = {"comm": CRAFTED, CRAFTED: [CRAFTED, "Grüße 世界", 1, None], "plain": "a\nb"}
    for indent in (False, True):
        text = encode(value, indent=indent).decode()
        assert text.replace("\n", "").isprintable() and "Grüße 世界" in text
        assert json.loads(text) == value
    assert visible(b'{"a":1}\n"\x7f"\n') == b'{"a":1}\n"\\u007f"\n'


def test_no_other_way_to_the_terminal() -> None:
    """All that is written to a terminal passes through what escapes it."""
    ways = {"tell.py", "output/stdout.py", "kubectl_complete.py"}
    root = Path(kubectl_gadget.__file__).parent
    for file in root.rglob("*.py"):
        if str(file.relative_to(root)) in ways:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "click.echo", "click.secho") and not called.endswith(
                    (".stdout.write", ".stderr.write")
                ), file


def test_completion(monkeypatch: pytest.MonkeyPatch, agents: Callable[..., Any]) -> None:
    """Tab offers no name that would be a command: neither to my terminal nor to my shell."""
    bad = ["web;reboot", "$(reboot)", "a b", f"web{CRAFTED}", "web\n:0", "-o", "~root", ""]

    class Names(WholeAgent):
        def Containers(self, request: Any, context: grpc.ServicerContext) -> Iterator[pb.ContainersReply]:
            self._say_contract(context)
            known = [pb.Container(namespace=name, pod=name, container=name) for name in (*bad, "web-0")]
            yield pb.ContainersReply(containers=[pb.ContainerState(container=each) for each in known])

        def TraceloopList(self, request: Any, context: grpc.ServicerContext) -> pb.TraceloopListReply:
            self._say_contract(context)
            known = [pb.Container(pod=name, container=name, id=name) for name in (*bad, "web-0")]
            return pb.TraceloopListReply(items=[pb.TraceloopItem(container=each) for each in known])

    address = agents("node-a", Names).address
    complete = ShellComplete(cli, {}, PROGRAM, "")
    for arguments in (["execsnoop", "-n"], ["execsnoop", "-p"], ["execsnoop", "-c"], ["traceloop", "show"]):
        before = (
            [*arguments[:2], "--agent", address]
            if arguments[-1] == "show"
            else [arguments[0], "--agent", address, arguments[1]]
        )
        offered = [item.value for item in complete.get_completions(before, "")]
        assert offered == ["web-0"], arguments
    assert not completion.is_word("web\n")


def test_tables_are_safe(agents: Callable[..., Any]) -> None:
    """No text of an agent reaches my terminal as a command, in any form of any table, nor in what is said beside it."""

    class Crafted(WholeAgent):
        def Describe(self, request: Any, context: grpc.ServicerContext) -> pb.DescribeReply:
            programs = [pb.ProgramStatus(object=CRAFTED, name=CRAFTED)]
            runs = [pb.RunStatus(gadget=CRAFTED, events=(1 << 64) - 1, lost=(1 << 64) - 1, rate=float("nan"))] * 2
            texts = dict.fromkeys(("node", "version", "kernel", "cgroups", "traceloop", "flows"), CRAFTED)
            return pb.DescribeReply(**texts, programs=programs, runs=runs, contract=9)

        def Containers(self, request: Any, context: grpc.ServicerContext) -> Iterator[pb.ContainersReply]:
            self._say_contract(context)
            state = pb.ContainerState(container=who(), started_ns=-(1 << 63), owner=CRAFTED, addresses=[CRAFTED])
            yield pb.ContainersReply(node=CRAFTED, containers=[state])

        def TraceloopList(self, request: Any, context: grpc.ServicerContext) -> pb.TraceloopListReply:
            self._say_contract(context)
            item = pb.TraceloopItem(container=who(), status=0xFFFFFFFF, ended_ns=(1 << 63) - 1, oom=True)
            return pb.TraceloopListReply(node=CRAFTED, items=[item], lost=CRAFTED)

        def TraceloopRead(self, request: Any, context: grpc.ServicerContext) -> Iterator[pb.TraceloopReadReply]:
            from tests.unit.traceloop.replies import record, reply

            self._say_contract(context)
            text = CRAFTED.encode()
            call = record(1, name="openat", text=text, comm=text[:15], args=[1, 2, 3, 4])
            blocked = [pb.Blocked(comm=CRAFTED, number=n, args=[1]) for n in (0, 59, 1 << 31)]
            item = pb.TraceloopItem(container=who(), dropped=(1 << 64) - 1)
            yield reply(call, node=CRAFTED, item=item, blocked=blocked, unread=(1 << 64) - 1)

        def TraceloopDelete(self, request: Any, context: grpc.ServicerContext) -> pb.TraceloopDeleteReply:
            self._say_contract(context)
            return pb.TraceloopDeleteReply()

    def who() -> pb.Container:
        names = dict.fromkeys(("namespace", "pod", "container", "runtime"), CRAFTED)
        return pb.Container(**names, id=f"{CRAFTED}ffff")

    where = ["--agent", agents("node-a", Crafted).address]
    forms = ("columns", "wide", "json", "jsonpretty", "yaml")
    commands = [
        [*name, "-o", form]
        for name in (["status"], ["version"], ["containers"], ["traceloop", "list"])
        for form in forms
    ]
    commands += [["traceloop", "show", CRAFTED, "-o", form] for form in ("columns", "json")]
    commands += [["traceloop", "show", "none"], ["traceloop", "delete", CRAFTED]]
    for command in commands:
        done = run_cli(*command, *where)
        assert "Traceback" not in done.stderr, (command, done.stderr)
        for text in (done.stdout, done.stderr):
            assert text.replace("\n", "").isprintable(), (command, text)
        if "json" in command:
            rows = [json.loads(line) for line in done.stdout.splitlines()]
            assert CRAFTED in str(rows) or any(
                CRAFTED in str(row.values()) or CRAFTED in row.values() for row in rows
            ), command
