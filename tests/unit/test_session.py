"""What the command line makes of agents that are many, slow, old, or die."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from gadget import CONTRACT, catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, Incomplete, Unreachable, Unsupported
from gadget.schema import Schema
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.stream import begin, session, streams
from kubectl_gadget.stream.patience import Patience
from kubectl_gadget.stream.recording import Recording, Writer
from kubectl_gadget.stream.request import make_request, make_selection
from tests.conftest import wait_until
from tests.fakes import FakeAgent
from tests.unit.rows import batch

GADGET = catalog.find("execsnoop")
#: Targets that went away are looked for soon.
SOON = Patience(look=0.05, most_look=0.2)


def cluster(*agents: FakeAgent) -> Targets:
    """Targets of which more may be found later: an agent that is added to `there`."""
    targets = Targets({each.node: each.reach for each in agents})
    there = dict(targets)
    targets.look = lambda: Targets(there)
    targets.there = there  # type: ignore[attr-defined]
    return targets


def run(
    targets: Targets,
    do: Callable[[], object],
    fields: str = "timestamp,node",
    patience: dict[str, float] | None = None,
    settled: Callable[[streams.Streams], bool] = lambda _: True,
    given: list[streams.Message] | None = None,
    **settings: object,
) -> None:
    """Stream JSON while do runs, and until the streams are settled and what the agents sent by then is there.

    given gets the messages that were taken in.
    """
    patience = replace(SOON, **(patience or {}))
    request = make_request(GADGET, {}, "json", fields, (), "", patience=patience, **settings)
    stopped: list[streams.Streams] = []

    class Stoppable(streams.Streams):
        def __enter__(self) -> streams.Streams:
            stopped.append(self)
            return super().__enter__()

        def __iter__(self) -> Iterator[streams.Message]:
            for message in super().__iter__():
                yield message
                if given is not None:
                    given.append(message)

    def script() -> None:
        wait_until(lambda: stopped, "the streams")
        do()
        wait_until(lambda: settled(stopped[0]), "what is waited for")
        stopped[0].stop()

    thread = threading.Thread(target=script)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(begin, "Streams", Stoppable)
        try:
            with begin.begin(request, targets) as begun:
                session.stream(request, targets, begun, dict)
        finally:
            thread.join()


def batches(given: list[streams.Message]) -> int:
    """How many batches of events were taken in."""
    return sum(isinstance(each, pb.RunReply) and bool(each.batch.sections) for _, each in given)


def shown(text: str) -> list[tuple[str, int]]:
    """Node and time of each event, the time in milliseconds."""
    rows = map(orjson.loads, text.splitlines())
    return [(row["node"], int(row["timestamp"][-10:-1]) // 1_000_000) for row in rows]


def ms(*times: int) -> list[int]:
    return [time * 1_000_000 for time in times]


def test_merged_in_time_order(fake, capsys) -> None:
    """Events of several nodes come in one stream, each with its node, and nobody's are missing."""
    agents = [fake(f"node-{number}") for number in range(3)]

    def do() -> None:
        for each in agents:
            assert each.started.wait(5)
        for number, each in enumerate(agents):
            each.emit(*ms(*range(10 + 10 * number, 100, 30)))

    run(cluster(*agents), do, record=None)
    out, err = capsys.readouterr()
    assert sorted(at for _, at in shown(out)) == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    assert err.startswith("9 events from 3 nodes, 3 containers")


def test_absent_from_the_start(fake, capsys) -> None:
    """Of a node that has no agent when I begin I am told at once, and at the end; the others go on."""
    first = fake("node-a")
    refused, seen = threading.Event(), []

    def no_agent() -> str:
        refused.set()
        raise Unreachable("node-c: no agent (pod gadget-7xk is Pending)")

    def do() -> None:
        assert refused.wait(5) and first.started.wait(5)
        wait_until(lambda: seen.append(capsys.readouterr().err) or "node-c" in "".join(seen), "the warning")
        first.emit(*ms(5))

    def reach() -> str:  # the failure of the other comes first
        assert refused.wait(5)
        return first.reach()

    with pytest.raises(Incomplete):
        run(Targets({"node-a": reach, "node-c": no_agent}), do, strict=True)
    why = "node-c: no agent (pod gadget-7xk is Pending)"
    assert "".join(seen) == f"warning: {why}\n"
    assert capsys.readouterr().err.splitlines()[-1] == f"incomplete: {why}"


def test_late_and_broken(fake, capsys) -> None:
    """A node that joins later and whose agent does not come up is told of while the stream runs, once."""
    first = fake("node-a")
    targets = cluster(first)
    tried: list[None] = []

    def broken() -> str:
        tried.append(None)
        raise Unreachable("node-late: no agent (pod gadget-9qz is ErrImagePull)")

    def do() -> None:
        assert first.started.wait(5)
        targets.there["node-late"] = broken
        wait_until(lambda: len(tried) > 2, "several tries")

    run(targets, do)
    err = capsys.readouterr().err.splitlines()
    assert err[0] == "warning: node-late: no agent (pod gadget-9qz is ErrImagePull)"
    assert err[1].startswith("0 events from 1 node")
    assert err[2:] == ["incomplete: node-late: no agent (pod gadget-9qz is ErrImagePull)"]


def test_nobody_for_several_reasons(capsys) -> None:
    """When no node can be traced I am told the reason of each, and one reason once."""

    def fails(why: str) -> Callable[[], str]:
        def reach() -> str:
            raise Unreachable(why)

        return reach

    whys = ["node-a: no agent (Pending)", "refused", "refused"]
    with pytest.raises(Unreachable) as raised:
        run(Targets({f"node-{index}": fails(why) for index, why in enumerate(whys)}), lambda: None)
    told = capsys.readouterr().err.splitlines()
    assert sorted([*told, f"warning: {raised.value}"]) == ["warning: node-a: no agent (Pending)", "warning: refused"]


def test_warnings_once(fake, capsys) -> None:
    """What there is to be warned of is told once in a command, however often an agent begins anew."""
    first = fake("node-a", selects=0)
    targets = cluster(first)
    died = []
    given: list[streams.Message] = []

    def do() -> None:
        running = first
        for at in range(3):
            assert running.started.wait(5)
            running.emit(*ms(at + 1))
            wait_until(lambda: batches(given) == at + 1, "the event")  # noqa: B023
            del targets.there["node-a"]
            running.die()
            died.append(running)
            running = fake("node-a", selects=0)
            targets.there["node-a"] = running.reach
        assert running.started.wait(10)

    run(targets, do, record=None, selection=make_selection((), False, ("on",), (), ""), given=given)
    told = capsys.readouterr().err.splitlines()
    assert len(died) == 3
    assert [line for line in told if "its agent is older" in line] == [f"warning: node-a: {session.OLDER}"]
    again = [line for line in told if line.startswith("node-a: joined again")]
    assert len(again) == 3


def test_agent_comes_again(fake, capsys, tmp_path) -> None:
    """A node whose agent dies is joined again; what was missed is said at once and at the end; the others go on."""
    first, other = fake("node-a"), fake("node-b")
    targets = cluster(first, other)
    file = tmp_path / "kept.gadget"
    given: list[streams.Message] = []

    def do() -> None:
        assert first.started.wait(5) and other.started.wait(5)
        first.emit(*ms(1), lost=5)
        wait_until(lambda: batches(given) == 1, "the event")
        del targets.there["node-a"]
        first.die()
        other.emit(*ms(2))
        time.sleep(0.5)  # the gap that is told
        again = fake("node-a")
        targets.there["node-a"] = again.reach
        assert again.started.wait(5)
        again.emit(*ms(3), lost=7)

    run(targets, do, record=file, given=given)
    out, err = capsys.readouterr()
    assert shown(out) == [("node-a", 1), ("node-b", 2), ("node-a", 3)]
    told = err.splitlines()
    assert told[0] == "warning: node-a: the agent went away"
    assert told[1].startswith("node-a: joined again; not seen from ")
    covered, _, complete = told[2].partition(", in ")
    rest = complete.partition("; ")[2]
    lost = "12 lost: ring full on node-a (app 12). Narrow it down, or raise --buffer. Not watched: node-a 1 time, "
    assert covered == "3 events from 2 nodes, 2 containers"
    assert re.fullmatch(rf"{re.escape(lost)}\d\.\d s\.", rest)
    assert told[3].startswith("incomplete: node-a: not seen from ") and told[3].endswith(" s)")
    session.replay(Recording(file), make_request(GADGET, {}, "json", "timestamp,node", (), ""))
    again_out, again_err = capsys.readouterr()
    assert again_out == out
    assert again_err.splitlines() == [f"{covered}, as recorded; {rest}", told[3]]


@pytest.mark.parametrize(
    ("why", "advice"),
    [
        ("ring full", "Narrow it down, or raise --buffer."),
        ("too many at once", "Narrow it down."),
        ("overwritten", "More is kept with --keep."),
    ],
)
def test_advice_is_for_what_was_lost(fake, capsys, why: str, advice: str) -> None:
    """I am told to raise --buffer only where a larger ring would have helped."""
    agent = fake("node-a")

    def do() -> None:
        assert agent.started.wait(5)
        agent.emit(*ms(1), lost=5, why=why)

    run(cluster(agent), do)
    assert f"; 5 lost: {why} on node-a (app 5). {advice}\n" in capsys.readouterr().err


def test_node_comes_later(fake, capsys) -> None:
    """A node that joins the cluster joins the stream, and from when on is said."""
    first = fake("node-a")
    targets = cluster(first)

    def do() -> None:
        assert first.started.wait(5)
        late = fake("node-late")
        targets.there["node-late"] = late.reach
        assert late.started.wait(5)
        late.emit(*ms(5))

    run(targets, do)
    out, err = capsys.readouterr()
    assert shown(out) == [("node-late", 5)]
    assert "node-late: joined" in err
    assert "1 event from 2 nodes" in err


def test_answers_late(fake, capsys, tmp_path) -> None:
    """Of a node whose agent answers long after the others I am told from when on it was seen, in replays too."""
    first, slow = fake("node-a"), fake("node-slow")
    file = tmp_path / "kept.gadget"

    def reach_slowly() -> str:
        assert first.started.wait(5)
        time.sleep(0.3)  # the slowness that is tested: longer than late
        return slow.reach()

    def do() -> None:
        assert slow.started.wait(5)
        slow.emit(*ms(5))

    targets = Targets({"node-a": first.reach, "node-slow": reach_slowly})
    with pytest.raises(Incomplete):
        run(targets, do, record=file, strict=True, patience={"late": 0.1})
    out, err = capsys.readouterr()
    told = err.splitlines()
    assert shown(out) == [("node-slow", 5)]
    assert told[0].startswith("node-slow: joined; seen only from ")
    assert told[1].endswith("; nothing lost of what was watched; not watched: node-slow at first.")
    assert told[-1].startswith("incomplete: node-slow: seen only from ")
    session.replay(Recording(file), make_request(GADGET, {}, "json", "timestamp,node", (), ""))
    assert capsys.readouterr().err.splitlines()[-1] == told[-1]


def test_cut_recording(capsys, tmp_path) -> None:
    """Of a recording that was cut off the last line does not say that nothing was lost, as nobody knows what followed."""
    file = tmp_path / "cut.gadget"
    writer = Writer(file, "execsnoop")
    schema = orjson.dumps(GADGET.schema.to_json()).decode()
    started = pb.RunReply(node="node-a", started=pb.Started(schema=schema, contract=CONTRACT))
    list(writer.keep([("node-a", started), ("node-a", pb.RunReply(batch=batch()))]))
    file.write_bytes(file.read_bytes()[:-1])  # of the end
    request = make_request(GADGET, {}, "json", "timestamp", (), "", strict=True)
    with pytest.raises(Incomplete):
        session.replay(Recording(file), request)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    counted, incomplete = err.splitlines()
    assert counted.endswith(
        ", as recorded; nothing lost of what was watched; not watched: what came after the recording was cut off."
    )
    assert incomplete == "incomplete: the recording was cut off: this is what it holds up to there"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of who looks for containers
def test_strange_failure(fake, capsys) -> None:
    """A failure that nobody foresaw, on the way to a node, is told, and the node is joined all the same."""
    first, other = fake("node-a"), fake("node-b")
    targets = cluster(first, other)

    def fail() -> str:
        raise RuntimeError("never seen before")

    targets["node-b"] = fail

    def do() -> None:
        assert first.started.wait(5) and other.started.wait(5)
        other.emit(*ms(5))

    run(targets, do)
    out, err = capsys.readouterr()
    assert shown(out) == [("node-b", 5)]
    assert "node-b: joined; seen only from " in err


def test_away_again_and_again(fake, capsys) -> None:
    """The last line never says that nothing was lost where I was not looking: it says of which nodes, and how long."""
    agents = [fake("node-a"), fake("node-b")]
    targets = cluster(*agents)

    def never() -> str:
        raise Unreachable("node-c: no agent (pod gadget-7xk is Pending: Insufficient cpu)")

    targets["node-c"] = never
    given: list[streams.Message] = []

    def do() -> None:
        assert all(each.started.wait(5) for each in agents)
        for number in range(2):
            agents[-1].die()
            agents.append(fake("node-b"))
            targets.there["node-b"] = agents[-1].reach
            assert agents[-1].started.wait(5)
            agents[-1].emit(*ms(number))
            wait_until(lambda: batches(given) == number + 1, "the event")  # noqa: B023
        del targets.there["node-b"]
        agents[-1].die()

    run(targets, do, given=given)
    out, err = capsys.readouterr()
    assert len(shown(out)) == 2
    (last,) = (line for line in err.splitlines() if "events from" in line)
    told = r"; nothing lost of what was watched; not watched: node-b 2 times, \d\.\d s and in the end; node-c at all\.$"
    assert re.search(told, last), err


def test_nobody_at_first(fake) -> None:
    """When no agent answers at the beginning the command fails at once, with the reason."""
    gone = fake("node-a")
    gone.die()
    began = time.monotonic()
    with pytest.raises(Unreachable, match="node-a: no agent answers there"):
        run(cluster(gone), lambda: None)
    assert time.monotonic() - began < 5


def test_silence_is_told(fake, capsys) -> None:
    """A node that hangs is told of while it does, and when it is back."""
    hangs = fake("node-a", beat_ms=40)

    def do() -> None:
        assert hangs.started.wait(5)
        time.sleep(0.6)  # the silence that is tested: 15 beats
        hangs.emit(*ms(1))

    run(cluster(hangs), do)
    out, err = capsys.readouterr()
    assert err.splitlines()[:2] == ["warning: node-a: nothing heard for 0.2 s", "node-a: heard again"]
    assert len(shown(out)) == 1


def test_end_without_answer(fake, capsys) -> None:
    """An agent that does not answer when the stream ends does not keep the command; it says that it is incomplete."""
    hangs = fake("node-a")
    hangs.deaf = True
    with pytest.raises(Incomplete):
        run(cluster(hangs), lambda: hangs.started.wait(5), strict=True, patience={"end": 0.3})
    err = capsys.readouterr().err
    assert "; nothing lost of what was watched; not watched: node-a in the end.\n" in err
    assert "incomplete: node-a: its agent did not answer when it was to end" in err


class Slow(FakeAgent):
    """One that loads a program for a long time."""

    def __init__(self, *about: object) -> None:
        super().__init__(*about)  # type: ignore[arg-type]
        self.loads, self.go = threading.Event(), threading.Event()

    def Run(self, requests: Iterator[pb.RunRequest], context: Any) -> Iterator[pb.RunReply]:
        """A run that begins when the test says so."""
        self.loads.set()
        self.go.wait(30)
        for reply in super().Run(requests, context):
            reply.sent_ns = reply.sent_ns or time.time_ns()
            yield reply


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    agent = Slow(tmp_path, "node-b")
    yield agent
    agent.go.set()
    agent.die()


def test_end_before_all_have_begun(fake, slow: Slow, capsys) -> None:
    """Ctrl-C while one agent of several still loads the program: I do not wait for it, and am told that it is missing."""
    quick = fake("node-a")

    def do() -> None:
        assert quick.started.wait(5) and slow.loads.wait(5)
        quick.emit(*ms(5))

    began = time.monotonic()
    run(cluster(quick, slow), do)
    assert time.monotonic() - began < SOON.end
    out, err = capsys.readouterr()
    assert len(shown(out)) == 1
    assert "incomplete: node-b: its agent had not begun when it was to end" in err


def test_begins_after_the_end(fake, slow: Slow, capsys) -> None:
    """What an agent begins only after Ctrl-C counts as not watched: nothing of it was seen, also where it is quick."""
    quick = fake("node-a")

    def do() -> None:
        assert quick.started.wait(5) and slow.loads.wait(5)
        threading.Thread(target=lambda: quick.asked_to_stop.wait(60) and slow.go.set(), daemon=True).start()

    run(cluster(quick, slow), do, patience={"unbegun": 60.0})
    out, err = capsys.readouterr()
    assert shown(out) == []
    assert "not watched: node-b at all" in err
    assert "incomplete: node-b: its agent had not begun when it was to end" in err


def test_time_over_before_it_has_begun(slow: Slow, start_cli) -> None:
    """--timeout shorter than an agent takes to load the program: it is waited for, and that is no error."""
    cli = start_cli("execsnoop", "-A", "--timeout", "1ms", "--agent", slow.address)
    wait_until(slow.loads.is_set, "the request")
    with pytest.raises(subprocess.TimeoutExpired):  # also after the time that Ctrl-C would give it
        cli.process.wait(2 * Patience.unbegun)
    slow.go.set()
    err = cli.process.communicate(timeout=20)[1]
    assert cli.process.returncode == 0 and err.startswith("0 events from 1 node"), err


@pytest.mark.parametrize("command", [["execsnoop", "-A"], ["story", "-A"]])
def test_ctrl_c_before_it_has_begun(command: list[str], slow: Slow, start_cli) -> None:
    """Ctrl-C while the agent still loads the program ends the command at once, without a word."""
    cli = start_cli(*command, "--agent", slow.address)
    wait_until(slow.loads.is_set, "the request")
    out, err = cli.finish(signal.SIGINT, Patience.end)
    assert (out, err.strip(), cli.process.returncode) == ("", "", 130)


def without(schema: Schema, name: str) -> Schema:
    """An older schema, from before a field."""
    return replace(schema, fields=tuple(field for field in schema.fields if field.name != name))


def test_older_agent(fake, capsys) -> None:
    """With an agent from before a field everything else works; only who asks for the field by name is refused."""
    older, newer = fake("node-a", schema=without(GADGET.schema, "ppid")), fake("node-b")

    def do() -> None:
        for each in (older, newer):
            assert each.started.wait(5)
            each.emit(*ms(1))

    run(cluster(older, newer), do, fields="")
    rows = {row["node"]: row for row in map(orjson.loads, capsys.readouterr().out.splitlines())}
    assert rows["node-b"].get("ppid", 0) == 0
    assert rows["node-a"].get("ppid") is None and rows["node-a"]["pid"] == 0
    with pytest.raises(GadgetError, match="node-a: its agent is of another version and does not know ppid"):
        run(cluster(fake("node-a", schema=without(GADGET.schema, "ppid"))), lambda: None, fields="pid,ppid")


def test_newer_agent(fake, capsys) -> None:
    """With an agent whose events have a field more, I get the events without it."""
    schema = GADGET.schema
    end = schema.text_offset
    field = replace(schema.fields[0], name="invented", kind="kind_of_tomorrow", doc="not known here", offset=end)
    newer = fake("node-a", schema=replace(schema, fields=(*schema.fields, field), text_offset=end + field.size))

    def do() -> None:
        assert newer.started.wait(5)
        newer.emit(*ms(1))

    run(cluster(newer), do, fields="")
    (row,) = map(orjson.loads, capsys.readouterr().out.splitlines())
    assert "invented" not in row and row["pid"] == 0


def test_other_contract(fake) -> None:
    """An agent that speaks another contract is refused in one line."""
    with pytest.raises(Unsupported, match="node-a: agent and command line are too far apart"):
        run(cluster(fake("node-a", contract=2)), lambda: None)


def test_one_other_contract(fake, capsys) -> None:
    """While agents are updated, one that speaks another contract is told of, and the others are streamed."""
    other, first = fake("node-b", contract=2), fake("node-a")

    said: list[str] = []

    def do() -> None:
        wait_until(lambda: said.append(capsys.readouterr().err) or "node-b" in "".join(said), "the warning")
        assert first.started.wait(5)
        first.emit(*ms(5))

    run(cluster(first, other), do)
    out, err = capsys.readouterr()
    err = "".join([*said, err])
    assert shown(out) == [("node-a", 5)]
    assert err.splitlines()[0].startswith("warning: node-b: agent and command line are too far apart")
    assert err.splitlines()[-1].startswith("incomplete: node-b: agent and command line are too far apart")


@pytest.mark.parametrize("number", [1, 2])
def test_enough(fake, capsys, number: int) -> None:
    """--max-events ends the command by itself, with one node as with many."""
    agents = [fake(f"node-{at}") for at in range(number)]

    def emit() -> None:
        for each in agents:
            assert each.started.wait(5)
            each.emit(*ms(*range(10)))

    thread = threading.Thread(target=emit)
    thread.start()
    request = make_request(GADGET, {}, "json", "", (), "", max_events=7, timeout=20.0)
    began = time.monotonic()
    targets = cluster(*agents)
    with begin.begin(request, targets) as begun:
        session.stream(request, targets, begun, dict)
    thread.join()
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 7 and err.startswith("7 events from ")
    assert time.monotonic() - began < 10
