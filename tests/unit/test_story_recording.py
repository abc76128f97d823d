"""A story that is kept and shown again, and conditions on its events, without a kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, UsageError
from gadget.recorded import MAGIC, STORY, header, packed
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.cli import cli
from kubectl_gadget.story.kinds import choose
from kubectl_gadget.story.requests import conditions_of, make_requests
from kubectl_gadget.story.session import replay, show
from kubectl_gadget.story.together import Together
from kubectl_gadget.stream.recording import Recording, Writer
from tests.conftest import run_cli, wait_until
from tests.unit.test_completion import offered
from tests.unit.test_recording import CONNECTS, sent
from tests.unit.test_story import ManyAgent, begun, run, targets_of

#: A time of this century, in which events of recordings are.
BASE = 1_700_000_000_000_000_000


def tell_four(first: ManyAgent, second: ManyAgent) -> None:
    """Two agents' events, not in the order of their times."""
    for each in (first, second):
        begun(each, "execsnoop", "exitsnoop")
    first.tell("exitsnoop", BASE + 30_000_000, at=1)
    second.tell("execsnoop", BASE + 20_000_000)
    first.tell("execsnoop", BASE + 10_000_000, at=1)
    second.tell("exitsnoop", BASE + 40_000_000, lost=3)


def kept(agents: Callable[..., Any], capsys: pytest.CaptureFixture[str], file: Path, form: str = "columns") -> str:
    """What was shown of a story of two nodes, which file keeps."""
    first, second = agents("node-a", ManyAgent), agents("node-b", ManyAgent)
    seen: list[str] = []

    def do() -> None:
        tell_four(first, second)
        wait_until(lambda: seen.append(capsys.readouterr().out) or "".join(seen).count("\n") >= 4, "four lines")

    run(targets_of(first, second), "exec,exit", do, form, record=file)
    return "".join(seen)


@pytest.mark.parametrize("form", ["columns", "json"])
def test_replayed(agents, capsys, tmp_path: Path, form: str) -> None:
    """A story that I record is shown again as the same lines, in their order, with the same losses, without an agent."""
    shown = kept(agents, capsys, tmp_path / "file", form)
    done = run_cli("replay", str(tmp_path / "file"), "-o", form)
    assert done.stdout == shown and shown.count("\n") == 4
    assert (
        "4 events (2 exec, 2 exit) from 2 nodes, 1 container, as recorded; 3 lost: ring full on node-b" in done.stderr
    )
    assert done.stderr.count("\n") == 1


def test_narrowed(agents, capsys, tmp_path: Path) -> None:
    """A replay takes nodes, pods, conditions and a number of events, as that of a single gadget does."""
    kept(agents, capsys, file := tmp_path / "file")

    def again(*options: str) -> list[str]:
        out = run_cli("replay", str(file), *options).stdout
        return [" ".join(line.split()[1:]) for line in out.splitlines()]

    assert again("--node", "node-a") == [
        "exec sh[4712] /bin/psql: ENOENT",
        "exit app[4712] after 212µs: failed with 3",
    ]
    assert again("-p", "on-node-b") == ['exec sh[4711] sh -c "a b"', "exit sh[4711] after 3.2s"]
    assert again("--filter", "exec:error==ENOENT", "--filter", "exit:code!=0") == [
        "exec sh[4712] /bin/psql: ENOENT",
        "exit app[4712] after 212µs: failed with 3",
    ]
    assert len(again("--filter", "pid==4711")) == 2
    assert len(again("--max-events", "3")) == 3


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["-o", "wide"], "-o wide: {} is of a story, which has lines, or -o json"),
        (["--fields", "comm"], "--fields: {} is of a story, which has lines, or -o json"),
        (["--count-by", "comm"], "--count-by: {} is of a story, which has lines, or -o json"),
        (["--filter", "exce:comm==sh"], "--filter 'exce:comm==sh': no kind 'exce': did you mean 'exec'?"),
        (["--filter", "open:comm==sh"], "--filter 'open:comm==sh': open is not shown: there is exec, exit"),
        (["--node", "node-z"], "--node node-z: the recording has none of them; there is node-a, node-b"),
    ],
)
def test_wrong_replays(agents, capsys, tmp_path: Path, options: list[str], error: str) -> None:
    """What a story's recording cannot do is an error of one line."""
    kept(agents, capsys, file := tmp_path / "file")
    done = run_cli("replay", str(file), *options)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"error: {error.format(file)}\n"


def test_noise_and_lacking_gadgets_are_as_they_were(agents, capsys, tmp_path: Path) -> None:
    """What was left out as noise stays so in a replay, and what a node's kernel could not trace does not count."""
    agent = agents("node-a", ManyAgent)
    agent.lacks = ("dnssnoop",)
    kinds = "-exit,-bind,-listen,-mount,-oom,-open,-priv,-connect,-drop,-retrans,-slow"

    def do() -> None:
        begun(agent, "execsnoop", "sigsnoop")
        for at in range(3):
            agent.tell("sigsnoop", at, at=at)
        agent.tell("execsnoop", 10)

    run(targets_of(agent), kinds, do, record=tmp_path / "file", strict=True)
    shown = capsys.readouterr()
    done = run_cli("replay", str(tmp_path / "file"), "--strict")
    assert done.returncode == 0
    assert done.stdout == shown.out and 'sh[4711] sh -c "a b"' in shown.out
    assert "node-a: nothing of dns: the kernel has no tracepoint for dnssnoop" in done.stderr
    assert re.sub(r", in [\d.]+ s;", ", as recorded;", shown.err) == done.stderr


def test_cut(agents, capsys, tmp_path: Path) -> None:
    """A story's recording that is cut anywhere shows what is before the cut and says so."""
    kept(agents, capsys, file := tmp_path / "file")
    data = file.read_bytes()
    for size in range(len(data) * 3 // 4, len(data), 97):
        file.write_bytes(data[:size])
        replay(Recording(file), "columns", [], [])
        assert "the recording was cut off" in capsys.readouterr().err


def written(file: Path, kinds: dict[str, bool], target: str = "connect node-a") -> Recording:
    with Writer(file, STORY, kinds) as writer:
        assert list(writer.keep([(target, message) for _, message in sent()]))
    return Recording(file)


@pytest.mark.parametrize(
    ("kinds", "target", "error"),
    [
        ({}, "connect node-a", r"file: does not say what its story is of$"),
        ({"nope\x1b": True}, "connect node-a", "unknown to this version of kubectl gadget"),
        ({"connect": True}, "exec node-a", r"file: damaged after the first 0 events"),
        ({"connect": True}, "node-a", r"file: damaged after the first 0 events"),
    ],
)
def test_crafted(tmp_path: Path, kinds: dict[str, bool], target: str, error: str) -> None:
    """A crafted recording, of kinds or targets that do not fit, ends with one line."""
    with pytest.raises(GadgetError, match=error):
        replay(written(tmp_path / "file", kinds, target), "columns", [], [])


def test_other_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A story of another version is told in its own words, and a condition means what it says there."""
    fields = [
        replace(field, values={**field.values, "1": "refused", "2": "pending"}) if field.name == "result" else field
        for field in CONNECTS.schema.fields
    ]
    messages = sent(schema=replace(CONNECTS.schema, fields=tuple(fields)))
    with Writer(tmp_path / "file", STORY, {"connect": True}) as writer:
        assert list(writer.keep([("connect node-a", message) for _, message in messages]))
    replay(Recording(tmp_path / "file"), "json", [], ["connect:result==refused"])
    assert [orjson.loads(line)["result"] for line in capsys.readouterr().out.splitlines()] == ["refused"]


def test_old_header(tmp_path: Path) -> None:
    """The recording of a single gadget has no kinds in its header, and a story's has all, each with how much of it."""
    (tmp_path / "file").write_bytes(MAGIC + packed(header("execsnoop")))
    assert not Recording(tmp_path / "file").header.kinds
    recording = written(tmp_path / "file", {"connect": True, "exec": False})
    assert {each.kind: each.in_full for each in recording.header.kinds} == {"connect": True, "exec": False}


def asked(text: str, kinds: str = "exec,open,exit") -> dict[str, list[str]]:
    return conditions_of([text], choose(kinds))


def test_conditions() -> None:
    """A condition is for the kind before it, all kinds if there is none."""
    assert asked("exec:comm==sh") == {"exec": ["comm==sh"], "exit": [], "open": []}
    assert asked(" exec : error!=0 && uid==0") == {"exec": ["error!=0 && uid==0"], "exit": [], "open": []}
    assert asked("comm==sh || pid>7") == {kind: ["comm==sh || pid>7"] for kind in ("exec", "exit", "open")}
    assert asked('comm=="x,exec:pid==1"')["open"] == ['comm=="x,exec:pid==1"']
    requests = make_requests(choose(""), {}, "columns", ["signal:uid==0"])
    assert requests["signal"].conditions == "uid==0" and not requests["exec"].conditions


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("exce:comm==sh", "no kind 'exce': did you mean 'exec'?"),
        ("execsnoop:comm==sh", "did you mean 'exec'?"),
        ("dns:name==x", "dns is not shown: there is exec, exit, open"),
        ("exec:", "want FIELD OP VALUE"),
        ("exec:com==sh", "unknown field 'com' in --filter: did you mean comm?"),
        ("com==sh", "unknown field 'com' in --filter: did you mean comm?"),
        ("pth==/etc/*", "unknown field 'pth' in --filter: did you mean path?"),
        ("qqqqqqqq==1", "unknown field 'qqqqqqqq' in --filter: all kinds have timestamp,"),
        ("path==/etc/*", "not every kind has path: write open:path"),
        ("error!=0", "not every kind has error: write exec:error, or as well open"),
        ("pid==x", "'x' is no value of pid"),
        ("exec:error==ENOETN", "'ENOETN' is no value of error: did you mean"),
        ("exec:comm==sh,open:path==/x", "--filter 'open:path==/x': give each kind a --filter of its own"),
        ("comm==sh open:path==/x", "--filter 'open:path==/x': give each kind a --filter of its own"),
    ],
)
def test_wrong_conditions(text: str, error: str) -> None:
    """A condition that does not fit is an error of one line that names what I meant, before any agent is asked."""
    with pytest.raises(UsageError, match=re.escape(error)):
        asked(text)
    done = CliRunner().invoke(cli, ["story", "--agent", "127.0.0.1:1", "--kinds", "exec,open,exit", "--filter", text])
    assert isinstance(done.exception, UsageError) and "\n" not in str(done.exception)


def test_conditions_apply(agents, capsys) -> None:
    """Of a kind with a condition I see what fulfils it, and of the others all."""
    agent = agents("node-a", ManyAgent)
    chosen = choose("exec,exit")
    requests = make_requests(chosen, {}, "columns", ["exec:comm==nobody"])
    runs = Together(targets := targets_of(agent), requests)

    def do() -> None:
        begun(agent, "execsnoop", "exitsnoop")
        agent.tell("execsnoop", BASE)
        agent.tell("exitsnoop", BASE + 1)

    _shown_while(do, runs, lambda: show(requests, chosen, targets, runs, dict))
    out, err = capsys.readouterr()
    assert out.endswith("  exit  sh[4711] after 3.2s\n") and out.count("\n") == 1
    assert err.startswith("1 event (1 exit) ")


def _shown_while(do: Callable[[], None], runs: Together, shown: Callable[[], None]) -> None:
    import threading

    thread = threading.Thread(target=lambda: (do(), runs.stop()))
    with runs:
        thread.start()
        shown()
        thread.join()


@pytest.mark.parametrize(
    ("before", "incomplete", "wanted"),
    [
        (("--kinds", "exec,exit"), "ex", ["exec:", "exit:"]),
        ((), "exec:pp", ["exec:ppid"]),
        ((), "exec:error==ENOEN", ["exec:error==ENOENT"]),
        ((), "connect:pid>1,result!=re", ["connect:pid>1,result!=refused", "connect:pid>1,result!=reset"]),
        ((), "ui", ["uid"]),
        ((), "pid>1 && com", ["pid>1 && comm"]),
        ((), "tcp:", []),
        (("--kinds", "nope"), "e", []),
    ],
)
def test_completion(before: tuple[str, ...], incomplete: str, wanted: list[str]) -> None:
    """Tab completes the kinds of the story, then the fields and words of that kind, else those that all kinds have."""
    assert offered("story", *before, "--filter", incomplete) == wanted


def test_completion_of_a_replay(tmp_path: Path) -> None:
    """For a replay the kinds are those of the recording."""
    written(file := tmp_path / "file", {"connect": True})
    assert offered("replay", str(file), "--filter", "co") == ["connect:", "container", "containerId", "comm"]
    assert offered("replay", str(file), "--filter", "connect:resu") == ["connect:result"]
    assert offered("replay", str(file), "--fields", "c") == []


def test_nobody_answers(tmp_path: Path) -> None:
    """If no agent answers, the file is not made, and one that is there stays as it is."""

    def no_agent() -> str:
        raise GadgetError("nobody")

    for before in (None, b"mine"):
        file = tmp_path / "file"
        if before:
            file.write_bytes(before)
        with pytest.raises(GadgetError, match="nobody"):
            run(Targets({"node-a": no_agent}), "exec", lambda: None, record=file)
        assert (file.read_bytes() if file.exists() else None) == before


def test_end_of_a_run_that_cannot_be(tmp_path: Path) -> None:
    """Why a run ended is kept apart: that the node cannot, or that it was gone."""
    end = pb.RecordedEnd(target="exec node-a", error="no BTF", unsupported=True)
    file = tmp_path / "file"
    file.write_bytes(MAGIC + packed(header(STORY, {"exec": False})) + packed(pb.RecordingEntry(end=end)))
    with pytest.raises(GadgetError, match="no BTF"):
        replay(Recording(file), "columns", [], [])
