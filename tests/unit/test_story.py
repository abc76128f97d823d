"""What `story` makes of the events of several gadgets, without a kernel."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import grpc
import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import hatch_build
from gadget import CONTRACT, catalog
from gadget._generated import gadget_pb2 as pb
from gadget.endpoints import Endpoint
from gadget.errors import Incomplete, Unreachable, UsageError
from gadget.story import Part, read_line
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.cli import cli
from kubectl_gadget.story.kinds import all_kinds, choose
from kubectl_gadget.story.lines import StoryLines, Teller
from kubectl_gadget.story.session import show
from kubectl_gadget.story.together import Together
from kubectl_gadget.stream.patience import Patience
from kubectl_gadget.stream.request import Request, make_request
from kubectl_gadget.text import width
from tests.conftest import wait_until
from tests.fakes import WholeAgent
from tests.unit.test_layout import screen, values
from tests.unit.test_snapshots import EVENTS, batch


class ManyAgent(WholeAgent):
    """Runs any gadget, but for those that it lacks."""

    lacks: tuple[str, ...] = ()
    why = ""

    def __init__(self, *args: Any, **settings: Any) -> None:
        """Serve."""
        self.queues: dict[str, queue.Queue[pb.Batch | None]] = {}
        self.selections: dict[str, pb.Start] = {}
        super().__init__(*args, **settings)

    def tell(self, gadget: str, time_ns: int, lost: int = 0, at: int = 0) -> None:
        """Send an event of a gadget that happened at a time."""
        sent = batch(catalog.find(gadget), EVENTS[gadget][at : at + 1])
        sent.clock_offset_ns, sent.containers[0].pod = time_ns, f"on-{self.node}"
        if lost:
            sent.losses.append(pb.Loss(reason="ring full", cgroup_id=7, count=lost))
        self.queues[gadget].put(sent)

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        """A run."""
        start = next(requests).start
        if start.gadget in self.lacks:
            context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, self.why or f"the kernel has no tracepoint for {start.gadget}"
            )
        self.selections[start.gadget] = start
        batches: queue.Queue[pb.Batch | None] = queue.Queue()
        context.add_callback(lambda: batches.put(None))
        schema = orjson.dumps(catalog.find(start.gadget).schema.to_json()).decode()
        yield pb.RunReply(node=self.node, started=pb.Started(schema=schema, contract=CONTRACT, selects=1))
        self.queues[start.gadget] = batches

        def wait_for_stop() -> None:
            with suppress(grpc.RpcError):  # the agent has died
                if next(requests, None):
                    batches.put(None)

        threading.Thread(target=wait_for_stop, daemon=True).start()
        losses: list[pb.Loss] = []
        while (sent := batches.get()) is not None:
            losses = list(sent.losses) or losses
            yield pb.RunReply(node=self.node, batch=sent)
        yield pb.RunReply(node=self.node, summary=pb.Summary(losses=losses))


def requests_of(kinds: str, form: str = "columns", **settings: Any) -> dict[str, Request]:
    return {each.story.kind: make_request(each.gadget, {}, form, "", (), "", **settings) for each in choose(kinds)}


def run(targets: Targets, kinds: str, do: Callable[[], None], form: str = "columns", **settings: Any) -> None:
    """Show a story while do runs."""
    requests = requests_of(kinds, form, **settings)
    runs = Together(targets, requests)

    def script() -> None:
        try:
            do()
        finally:
            runs.stop()

    thread = threading.Thread(target=script)
    with runs:
        thread.start()
        try:
            show(requests, choose(kinds), targets, runs, dict)
        finally:
            thread.join()


def targets_of(*agents: ManyAgent) -> Targets:
    return Targets({each.node: each.reach for each in agents})


def begun(agent: ManyAgent, *gadgets: str) -> None:
    wait_until(lambda: {*gadgets} <= agent.queues.keys(), "the runs")


def test_kinds() -> None:
    """--kinds takes a list, or changes of what is shown by default; a kind that I name is shown in full."""

    def chosen(text: str) -> dict[str, bool]:
        return {each.story.kind: each.is_named for each in choose(text)}

    usual = {kind: False for kind, (_, story) in all_kinds().items() if not story.optional}
    assert chosen("") == usual
    assert {"exec", "open", "dns", "connect", "signal", "exit"} <= usual.keys() and "cap" not in usual
    assert chosen("exec, open") == {"exec": True, "open": True}
    assert chosen("-dns") == {kind: False for kind in usual if kind != "dns"}
    assert chosen("+open") == {**usual, "open": True}
    assert chosen("+cap").keys() - usual.keys() == {"cap"}
    assert chosen("all") == dict.fromkeys(all_kinds(), True)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("exce", "did you mean 'exec'"),
        ("execsnoop", "did you mean 'exec'"),
        ("zzz", "there is bind,"),
        ("-all", "nothing"),
    ],
)
def test_wrong_kinds(text: str, hint: str) -> None:
    """A kind that there is not is an error that names the one I meant, also if I wrote the gadget's name."""
    with pytest.raises(UsageError, match=hint):
        choose(text)


def test_completion() -> None:
    """The shell completes kinds in a list."""
    environment = {"_KUBECTL_GADGET_COMPLETE": "bash_complete", "COMP_WORDS": "kubectl-gadget story --kinds exec,+o"}
    shown = CliRunner().invoke(cli, [], env={**environment, "COMP_CWORD": "3"}, prog_name="kubectl-gadget").output
    assert shown.split() == ["plain,exec,+oom", "plain,exec,+open"]


def test_every_gadget_has_a_story() -> None:
    """Each gadget that has events has a kind of its own in a story."""
    gadgets = catalog.load().values()
    assert [gadget.name for gadget in gadgets if not gadget.has_tables and not gadget.story] == []
    assert len(all_kinds()) == len([gadget for gadget in gadgets if gadget.story])


def test_line() -> None:
    """A line has fields, and parts that go where a field says nothing."""
    assert read_line("{comm}[{pid}]{: |error|!}") == [
        Part("", "comm"), Part("["), Part("", "pid"), Part("]"), Part(": ", "error", "!", True),
    ]  # fmt: skip
    for wrong in ("no field", "{comm", "comm}", "{comm}{}", "{a|b|c|d}", "{comm}\n"):
        with pytest.raises(ValueError, match="want"):
            read_line(wrong)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"line": "{nope}"}, "'nope' is no documented field"),
        ({"failed": "{nope}"}, "'nope' is no documented field"),
        ({"kind": "Exec!"}, "want a word"),
        ({"silent": {"error": ["ENOPE"]}}, "'ENOPE' is no word of error"),
        ({"parameters": {"nope": "1"}, "said": "few"}, "'nope' is no parameter"),
        ({"whole": {"nope": "1"}, "said": "few"}, "'nope' is no parameter"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_build_checks(change: dict[str, Any], why: str) -> None:
    """The build refuses a [story] that does not fit the gadget, and says why."""
    gadget = catalog.find("execsnoop")
    about = {"kind": "exec", "line": "{comm}[{pid}]", **change}
    with pytest.raises((TypeError, ValueError, UsageError), match=why):
        hatch_build.check_story(about, "events", gadget.schema, {item.name for item in gadget.parameters})


def test_merged_by_time(agents, capsys) -> None:
    """Events of several gadgets and nodes come in one stream by time, with the pod, and are counted by kind."""
    first, second = agents("node-a", ManyAgent), agents("node-b", ManyAgent)

    def do() -> None:
        for each in (first, second):
            begun(each, "execsnoop", "exitsnoop")
        base = 1_700_000_000_000_000_000
        first.tell("exitsnoop", base + 30_000_000, at=1)
        second.tell("execsnoop", base + 20_000_000)
        first.tell("execsnoop", base + 10_000_000, at=1)
        second.tell("exitsnoop", base + 40_000_000, lost=3)
        wait_until(lambda: "".join(seen).count("\n") >= 4 or seen.append(capsys.readouterr().out), "four lines")

    seen: list[str] = []
    run(targets_of(first, second), "exec,exit", do)
    out, err = capsys.readouterr()
    lines = [line.partition("  ")[2] for line in ("".join(seen) + out).splitlines()]
    assert lines == [
        "on-node-a  exec  sh[4712] /bin/psql: ENOENT",
        'on-node-b  exec  sh[4711] sh -c "a b"',
        "on-node-a  exit  app[4712] after 212µs: failed with 3",
        "on-node-b  exit  sh[4711] after 3.2s",
    ]
    assert err.startswith("4 events (2 exec, 2 exit) from 2 nodes, 1 container, in ")
    assert "3 lost: ring full on node-b, exit (cart 3)" in err


def test_json(agents, capsys) -> None:
    """As JSON each event has its kind, and all fields that its gadget has."""
    agent = agents("node-a", ManyAgent)

    def do() -> None:
        begun(agent, "execsnoop", "opensnoop")
        agent.tell("execsnoop", 1)
        agent.tell("opensnoop", 2)

    run(targets_of(agent), "exec,open", do, "json")
    out = capsys.readouterr().out
    first, second = map(orjson.loads, out.splitlines())
    assert (first["kind"], first["args"], first["pod"]) == ("exec", ["sh", "-c", "a b"], "on-node-a")
    assert (second["kind"], second["path"], second["fd"]) == ("open", "/etc/hosts", 3)


def test_default_leaves_noise_out(agents) -> None:
    """By default opens that succeed are left out in the kernel; if I name the kind, they are not."""
    agent = agents("node-a", ManyAgent)
    runner = CliRunner()
    for kinds, wanted in (("-exec,-exit,-dns,-listen,-oom,-bind,-mount,-priv,-signal,-connect", "true"), ("open", "")):
        agent.selections.clear()
        done = runner.invoke(cli, ["story", "--agent", agent.address, "--kinds", kinds, "--timeout", "300ms"])
        assert done.exit_code == 0, done.output
        assert agent.selections["opensnoop"].parameters.get("failed", "") == wanted


def test_a_named_kind_is_whole(agents) -> None:
    """If I name the kind of signals I get all of them, also those that sigsnoop leaves out by itself."""
    agent = agents("node-a", ManyAgent)
    for kinds, wanted in (("+exec", ""), ("signal", "true")):
        agent.selections.clear()
        done = CliRunner().invoke(cli, ["story", "--agent", agent.address, "--kinds", kinds, "--timeout", "300ms"])
        assert done.exit_code == 0, done.output
        assert agent.selections["sigsnoop"].parameters.get("all", "") == wanted


def test_lacking_gadget(agents, capsys) -> None:
    """What a node's kernel cannot trace is said once, and the rest goes on; nothing counts as missed."""
    agent = agents("node-a", ManyAgent)
    agent.lacks = ("dnssnoop",)
    kinds = "-exit,-bind,-listen,-mount,-oom,-open,-priv,-signal,-connect"

    def do() -> None:
        begun(agent, "execsnoop")
        agent.tell("execsnoop", 1)

    run(targets_of(agent), kinds, do, strict=True)
    out, err = capsys.readouterr()
    assert out.endswith('sh[4711] sh -c "a b"\n')
    warning, last = err.splitlines()
    assert warning == "warning: node-a: nothing of dns: the kernel has no tracepoint for dnssnoop"
    assert last.startswith("1 event (1 exec) from 1 node, 1 container") and last.endswith("nothing lost.")


def test_lacking_gadget_that_was_named(agents, capsys) -> None:
    """If I ask for just that kind, it counts as missed."""
    agent = agents("node-a", ManyAgent)
    agent.lacks = ("dnssnoop",)
    with pytest.raises(Incomplete):
        run(targets_of(agent), "exec,dns", lambda: begun(agent, "execsnoop"), strict=True)
    assert "not watched: node-a, dns at all" in capsys.readouterr().err


def test_kinds_that_fail_alike_are_told_together(agents, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several kinds that I asked for and cannot have for the same reason: one line, and none is said to be watched."""
    agent = agents("node-a", ManyAgent)
    agent.lacks, agent.why = ("dnssnoop", "opensnoop"), "no room"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run(targets_of(agent), "exec,dns,open", lambda: begun(agent, "execsnoop"))
    err = capsys.readouterr().err
    assert "watching exec\n" in err
    assert "not watched: node-a, dns, open at all." in err
    assert [line for line in err.splitlines() if line.startswith("incomplete")] == ["incomplete: dns, open: no room"]


def test_absent_node_is_told_once(agents, capsys) -> None:
    """A node without an agent is told of once, not once for each kind."""
    agent = agents("node-a", ManyAgent)

    def no_agent() -> str:
        raise Unreachable("node-c: no agent (pod gadget-7xk is Pending)")

    def do() -> None:
        begun(agent, "execsnoop", "exitsnoop")
        wait_until(lambda: seen.append(capsys.readouterr().err) or "node-c" in "".join(seen), "the warning")

    seen: list[str] = []
    run(Targets({"node-a": agent.reach, "node-c": no_agent}), "exec,exit", do)
    err = "".join(seen) + capsys.readouterr().err
    assert err.count("warning: node-c: no agent") == 1
    assert err.count("incomplete: node-c: no agent") == 1


def test_agent_that_comes_again(agents, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that is begun anew is joined again by all kinds, on one way to it; I am told once of what I missed."""
    there, opened = [agents("node-a", ManyAgent)], []

    def open_way() -> str:
        opened.append(there[0].address)
        return there[0].reach()

    targets = Targets({"node-a": open_way})
    targets.look = lambda: Targets({"node-a": open_way})
    kinds = {"exec": "execsnoop", "exit": "exitsnoop", "open": "opensnoop"}

    def do() -> None:
        begun(there[0], *kinds.values())
        for gadget in kinds.values():
            there[0].tell(gadget, 1)
        wait_until(lambda: seen.append(capsys.readouterr().out) or "".join(seen).count("\n") == 3, "the first lines")
        old, there[0] = there[0], agents("node-a", ManyAgent)
        old.die()
        begun(there[0], *kinds.values())
        for gadget in kinds.values():
            there[0].tell(gadget, 2)
        wait_until(lambda: seen.append(capsys.readouterr().out) or "".join(seen).count("\n") == 6, "the other lines")

    seen: list[str] = []
    errors: list[str] = []
    monkeypatch.setattr("kubectl_gadget.stream.session.tell", errors.append)
    run(targets, ",".join(kinds), do, patience=Patience(look=0.05, most_look=0.2))
    assert opened.count(there[0].address) == 1
    (last,) = [line for line in errors if line.startswith("6 events")]
    assert "from 1 node, 1 container" in last
    assert re.search(r"not watched: node-a 1 time, [\d.]+ s\.$", last), last
    assert len([line for line in errors if line.startswith("incomplete: node-a: not seen from")]) == 1


@given(st.data(), st.integers(40, 220))
@settings(deadline=None)
def test_fits(data: st.DataObject, columns: int) -> None:
    """Whatever processes choose to be called: no line is wider than my terminal, or has what a terminal obeys."""
    output_of = st.sampled_from([*all_kinds()])
    events = []
    for kind in data.draw(st.lists(output_of, min_size=1, max_size=4)):
        gadget, told = all_kinds()[kind]
        teller = Teller(gadget, told, gadget.schema, every=False)
        events.append((teller, data.draw(st.tuples(*map(values, teller.fields)))))
    with screen(columns) as shown:
        output = StoryLines([*all_kinds()])
        for event in events:
            output.write([event])
        lines = shown.lines
    assert len(lines) >= len(events)
    for line in lines:
        assert line.isprintable()
        assert width(line) <= columns


def test_events_alike_are_one_line() -> None:
    """Events alike of a process that follow each other are one line with their number; what differs has its own line."""
    gadget, told = all_kinds()["connect"]
    teller = Teller(gadget, told, gadget.schema, every=False)
    names = [item.name for item in teller.fields]

    def event(time: int, **change: Any) -> Any:
        found = dict.fromkeys(names, 0) | {"namespace": "shop", "pod": "cart-0", "container": "app", "comm": "app"}
        refused = {"pid": 7, "dst": Endpoint("127.0.0.1", 6379, "raw", "", ""), "result": 2, "error": 111}
        found |= refused | {"timestamp": time * 1_000_000, "latency": 1000 * time + 7} | change
        return teller, tuple(found[name] for name in names)

    other = event(40, dst=Endpoint("127.0.0.1", 6380, "raw", "", ""))
    with screen(200) as shown:
        output = StoryLines(["connect"])
        output.write([*map(event, range(17)), other, event(41), event(42, pid=8), event(43, pod="web-0")])
        output.write([event(44), event(45)])
    lines = [re.sub(r"^[\d:]+\.", "", line) for line in shown.lines]
    assert lines == [
        "000  cart-0  connect  app[7] 127.0.0.1:6379: refused (ECONNREFUSED) ×17",
        "040  cart-0  connect  app[7] 127.0.0.1:6380 in 40.0µs: refused (ECONNREFUSED)",
        "041  cart-0  connect  app[7] 127.0.0.1:6379 in 41.0µs: refused (ECONNREFUSED)",
        "042  cart-0  connect  app[8] 127.0.0.1:6379 in 42.0µs: refused (ECONNREFUSED)",
        "043  web-0   connect  app[7] 127.0.0.1:6379 in 43.0µs: refused (ECONNREFUSED)",
        "044  cart-0  connect  app[7] 127.0.0.1:6379: refused (ECONNREFUSED) ×2",
    ]


@pytest.mark.parametrize("columns", [60, 200])
def test_the_start_of_a_container_is_one_line(columns: int) -> None:
    """What runc fails at as it prepares a container is a line with its number; its failed exec, or end, is told."""
    tellers = {kind: Teller(gadget, told, gadget.schema, every=False) for kind, (gadget, told) in all_kinds().items()}
    named = Teller(*all_kinds()["open"], all_kinds()["open"][0].schema, every=False, named=True)

    def event(kind: str, time: int, teller: Teller | None = None, **change: Any) -> Any:
        teller = teller or tellers[kind]
        names = [item.name for item in teller.fields]
        found = dict.fromkeys(names) | {"namespace": "shop", "pod": "cart-0", "container": "app"}
        found |= {"timestamp": time * 1_000_000, "comm": "runc:[2:INIT]", "pid": 9} | change
        return teller, tuple(found[name] for name in names)

    sent = [
        event("mount", 1, error=2),
        event("open", 2, error=2, pod="web-0", path="/x", comm="sh"),
        event("mount", 3, error=20),
        event("open", 4, error=2, path="/etc/group"),
        event("exit", 5, comm="runc:[1:CHILD]"),
        event("exec", 6, error=2, exe="/bin/no"),
        event("exit", 7, result=1, code=1),
        event("open", 8, named, error=2, path="/etc/group"),
    ]
    with screen(columns) as shown:
        StoryLines(["mount", "connect"]).write(sent)
    lines = [re.sub(r"^[\d:]+\.", "", line) for line in shown.lines]
    assert all(width(line) <= columns for line in shown.lines)
    assert lines[0].startswith("001  cart-0  start    4 events of runc, before")
    if columns == 200:
        assert lines[0].endswith("before the program (2 mount, 1 open, 1 exit)")
    assert [line.split()[2] for line in lines] == ["start", "open", "exec", "exit", "open"]


def test_what_is_in_brackets_goes_first() -> None:
    """Where there is no room a bind that fails is told without the pod of who has the address, but with the address."""
    gadget, told = all_kinds()["bind"]
    teller = Teller(gadget, told, gadget.schema, every=False)
    holder = Endpoint("", 0, "pod", "web", "web-0")
    row = dict.fromkeys(item.name for item in teller.fields) | {
        "comm": "httpd", "pid": 22637, "address": Endpoint("0.0.0.0", 8080, "raw", "", ""), "error": 98,
        "hcomm": "httpd", "hpid": 15951, "holder": holder,
    }  # fmt: skip
    values = tuple(row[item.name] for item in teller.fields)
    whole = teller.line(values, None)
    assert whole.endswith("): EADDRINUSE") and ", held by httpd[15951] (" in whole
    brief = re.sub(r" \(.*\)", "", whole)
    assert teller.line(values, len(whole) - 1).startswith(brief.removesuffix(": EADDRINUSE") + " (")
    assert teller.line(values, len(brief)) == brief
    assert teller.line(values, len(brief) - 1) == re.sub(", held by.*]", "", brief)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_error_stays_visible(columns: int) -> None:
    """However long a path is and however narrow my terminal: a line fits, and its end says how the open failed."""
    gadget, told = all_kinds()["open"]
    teller = Teller(gadget, told, gadget.schema, every=False)
    names = [item.name for item in teller.fields]
    row = dict.fromkeys(names, 0) | {
        "namespace": "shop", "pod": "cart-0", "container": "app", "comm": "app", "pid": 7, "path": "/x" * 300, "error": 13,
    }  # fmt: skip
    with screen(columns) as shown:
        output = StoryLines(["open", "connect"])
        output.write([(teller, tuple(row[name] for name in names))])
    _, line = shown.lines
    assert len(line) <= columns
    assert "app[7] /" in line and line.endswith(": EACCES")


@pytest.mark.parametrize(
    ("kind", "row", "wanted"),
    [
        (
            "connect",
            {"dst": Endpoint("127.0.0.1", 6379, "raw", "", ""), "latency": 50_100, "result": 2, "error": 111},
            "connect  busybox[12713] 127…:6379 (ECONNREFUSED)",
        ),
        ("exit", {"age": 3_100_000, "result": 1, "code": 127}, "exit     busybox[12713]: failed with 127"),
        ("exit", {"age": 3_100_000}, "exit     busybox[12713] after 3.1ms"),
    ],
)
def test_what_matters_stays(kind: str, row: dict[str, Any], wanted: str) -> None:
    """At 80 columns, beside a pod's name as Deployments make them: a time goes before an address is cut, and whole."""
    gadget, told = all_kinds()[kind]
    teller = Teller(gadget, told, gadget.schema, every=False)
    names = [item.name for item in teller.fields]

    def event(pod: str) -> Any:
        found = dict.fromkeys(names, 0) | {"namespace": "shop", "pod": pod, "container": "app"}
        found |= {"comm": "busybox", "pid": 12713, "killer_comm": ""} | row
        return teller, tuple(found[name] for name in names)

    with screen(80) as shown:
        StoryLines(["connect", "exit"]).write([event("web-0"), event("cart-6c9f7d5b8-x2x7l")])
    line = shown.lines[-1]
    assert line.endswith(f"  {wanted}")
    assert len(line) <= 80


def test_names_are_whole_where_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    """A pod that was alone in its namespace, and with one container, is told in full when others have come."""
    gadget, told = all_kinds()["open"]
    teller = Teller(gadget, told, gadget.schema, every=False)
    names = [item.name for item in teller.fields]

    def event(namespace: str, pod: str, container: str) -> Any:
        row = dict.fromkeys(names, 0) | {"comm": "app", "path": "/etc/hosts", "error": 2}
        row |= {"namespace": namespace, "pod": pod, "container": container}
        return teller, tuple(row[name] for name in names)

    with screen(200) as shown:
        output = StoryLines(["open"])
        output.write([event("shop", "cart-6c9f7d5b8-x2x7l", "cart")])
        output.write([event("web", "web-0", "nginx")])
        output.write([event("shop", "cart-6c9f7d5b8-x2x7l", "cart")])
        output.write([event("shop", "cart-6c9f7d5b8-x2x7l", "proxy"), event("shop", "cart-6c9f7d5b8-x2x7l", "cart")])
    lines = shown.lines[2:]
    assert [line.split()[1] for line in lines] == [
        "web/web-0",
        "shop/cart-6c9f7d5b8-x2x7l",
        "shop/cart-6c9f7d5b8-x2x7l/proxy",
        "shop/cart-6c9f7d5b8-x2x7l/cart",
    ]
    assert len({line.index("  open  ") for line in lines[2:]}) == 1


def test_resize_and_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are red, each line fits the terminal as it is then, and the pod has a column once there are several."""
    monkeypatch.setattr("kubectl_gadget.output.terminal.has_colours", lambda: True)
    gadget, told = all_kinds()["open"]
    teller = Teller(gadget, told, gadget.schema, every=False)
    names = [item.name for item in teller.fields]

    def event(pod: str, error: int) -> Any:
        row = dict.fromkeys(names, 0) | {"namespace": "shop", "pod": pod, "container": "app", "comm": "app"}
        return teller, tuple((row | {"path": "/etc/hosts" * 9, "error": error})[name] for name in names)

    with screen(120) as shown:
        output = StoryLines(["open"])
        output.write([event("cart-0", 0)])
        with monkeypatch.context() as resized:
            resized.setattr("kubectl_gadget.output.terminal.columns", lambda: 60)
            output.write([event("web-0", 2)])
        raw = shown.buffer.getvalue().decode()
        head, first, second = shown.lines
    assert head == "shop/cart-0"
    assert "cart-0" not in first and len(first) <= 120
    assert "  web-0   open  app[?] /etc" in second and len(second) <= 60
    assert [("\x1b[31mopen" in line) for line in raw.splitlines()] == [False, False, True]
