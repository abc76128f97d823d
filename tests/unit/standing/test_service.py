"""The standing runs of an agent: what begins, what stays, what ends and what is told of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from agent.containers.tracker import Tracker
from agent.limits import RunBudget
from agent.run.choosing import Choosing
from agent.run.run import Run
from agent.run.runs import Runs
from agent.run.source import Source as AnySource
from agent.standing import service as module
from agent.standing import standing
from agent.standing.service import StandingService
from agent.standing.settings import Settings
from gadget._generated import gadget_pb2 as pb
from gadget.errors import UsageError
from gadget.recorded import NOT_KEPT
from gadget.standing import from_toml
from tests.conftest import wait_until
from tests.unit.test_run import Everything, Source

OPENS = 'gadget = "opensnoop"\n'


class NoContainers:
    """A tracker that knows nobody."""

    knows_labels, generation = False, 0

    def containers(self) -> list[Any]:
        return []


class Machine:
    """Where agents come and go, and runs need no kernel."""

    def __init__(self, folder: Path) -> None:
        self.state, self.files = folder / "state", folder / "runs.d"
        self.files.mkdir()
        self.sources: list[Source] = []
        self.refuses: Exception | None = None
        self.settings = Settings(self.files, look_seconds=0.02, again_seconds=0.05)
        self._agents: list[StandingService] = []

    def begin(self, *_: Any, **__: Any) -> Run:
        if self.refuses:
            raise self.refuses
        self.sources.append(Source())
        return Run(cast(AnySource, self.sources[-1]), cast(Choosing, Everything(self.sources[-1])))

    def agent(self) -> StandingService:
        """The next one, once the one before has ended."""
        self.end()
        tracker = cast(Tracker, NoContainers())
        self._agents.append(StandingService("node-a", Runs(), tracker, RunBudget(), self.state, self.settings))
        return self._agents[-1]

    def end(self) -> None:
        while self._agents:
            self._agents.pop().close()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path)
    monkeypatch.setattr(standing, "begin", made.begin)
    yield made
    made.end()


def of(agent: StandingService) -> dict[str, str]:
    """What `runs` lists: each run with its problem."""
    return {each.run.name: each.problem for each in agent.list().runs}


def healthy(agent: StandingService) -> bool:
    return not any(worker.problem for worker in agent.workers)


def read(agent: StandingService, name: str = "opens", since_ns: int = 0) -> list[pb.RunReply]:
    return list(agent.read(pb.Attach(name=name, since_ns=since_ns), lambda: True))


@pytest.mark.parametrize(
    "text",
    [
        'keep = "99999999999999G"',
        f'keep = "{"9" * 5000}"',
        f"keep = {'9' * 5000}",
        f"x = {'[' * 50_000}",
        f"[parameters]\npid = {'9' * 40}",
    ],
)
def test_hostile_file(machine: Machine, text: str) -> None:
    """Whatever is in a file of the folder, the agent lives, and `runs` tells what is wrong with it in one line."""
    (machine.files / "odd.toml").write_text(f"{OPENS}{text}\n")
    agent = machine.agent()
    problem = of(agent)["odd"]
    assert "odd.toml: " in problem and "\n" not in problem and healthy(agent)


def test_odd_files(machine: Machine) -> None:
    """A pipe, a folder, a name of any bytes or a huge file in the folder holds up nothing, and is told."""
    os.mkfifo(machine.files / "pipe.toml")
    (machine.files / "folder.toml").mkdir()
    (machine.files / "huge.toml").write_bytes(b"#" * (1 << 20))
    (machine.files / os.fsdecode(b"\xff\n.toml")).write_text(OPENS)
    (machine.files / "opens.toml").symlink_to(machine.files / "..data")  # as the kubelet does it
    (machine.files / "..data").write_text(OPENS)
    told = of(machine.agent())
    assert told.pop("opens") == ""
    assert len(told) == 4 and all(told.values())


def test_many_files(machine: Machine) -> None:
    """Of more files than an agent looks at it takes the first, and says so."""
    machine.settings = replace(machine.settings, most_files=2)
    for name in "abc":
        (machine.files / f"{name}.toml").write_text(OPENS)
    agent = machine.agent()
    assert of(agent) == {"a": "", "b": "", "c": "not looked at, nor are those after it: 2 files at most"}
    (machine.files / "a.toml").unlink()
    wait_until(lambda: of(agent) == {"b": "", "c": ""}, "the third in place of the first")


@pytest.mark.parametrize("error", [errno.EMFILE, errno.EIO])
def test_folder_cannot_be_read(machine: Machine, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """Where the folder or a file cannot be read for a while, what its runs kept stays."""
    (machine.files / "opens.toml").write_text(OPENS)
    agent = machine.agent()

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as broken:
        broken.setattr(module, "read_regular", fail)
        agent._look()
        broken.setattr(Path, "iterdir", fail)
        agent._look()
    assert len(agent.list().runs) == 3  # the run, and both problems
    wait_until(lambda: of(agent) == {"opens": ""}, "the end of the problems")


def test_file_gone_meanwhile(machine: Machine) -> None:
    """A run whose file goes while no agent is there has ended when the next one comes."""
    (machine.files / "opens.toml").write_text(OPENS)
    assert of(machine.agent()) == {"opens": ""}
    machine.end()
    (machine.files / "opens.toml").unlink()
    assert of(machine.agent()) == {}
    assert not list(machine.state.iterdir())


def test_file_comes_later(machine: Machine) -> None:
    """A run that a client made and whose file comes later, as by the kubelet, ends with that file, too."""
    agent = machine.agent()
    agent.put(from_toml("opens", OPENS))
    (machine.files / "opens.toml").write_text(OPENS)
    wait_until(lambda: agent.list().runs[0].file, "the file")
    machine.end()
    (machine.files / "opens.toml").unlink()
    assert of(machine.agent()) == {}


def test_too_many(machine: Machine) -> None:
    """A file for which there was no room begins once there is."""
    machine.settings = replace(machine.settings, most_runs=1)
    agent = machine.agent()
    agent.put(from_toml("opens", OPENS))
    (machine.files / "more.toml").write_text(OPENS)
    wait_until(lambda: "delete one first" in of(agent).get("more", ""), "the refusal")
    agent.delete("opens")
    wait_until(lambda: of(agent) == {"more": ""}, "the other")


def test_full_disk_keeps_definitions(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that comes while the disk is full goes on with all runs, and they are there after that, too."""
    agent = machine.agent()
    agent.put(from_toml("opens", OPENS))
    wait_until(lambda: agent.list().runs[0].kept_bytes, "its beginning")
    machine.end()
    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", _no_space)
        full.setattr(Path, "write_text", _no_space)
        full.setattr("agent.standing.history._write", _no_space)
        agent = machine.agent()
        wait_until(lambda: "No space left" in of(agent)["opens"], "the problem")
        assert healthy(agent)
        machine.end()
    agent = machine.agent()
    wait_until(lambda: of(agent) == {"opens": ""} and len(machine.sources) == 3, "its return")


def _no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_odd_state(machine: Machine) -> None:
    """What is not a run in the state folder keeps no other run from going on; a damaged one is told and can go."""
    agent = machine.agent()
    agent.put(from_toml("opens", OPENS))
    wait_until(lambda: agent.list().runs[0].kept_bytes, "its beginning")
    machine.end()
    (machine.state / "file").touch()
    (machine.state / "empty").mkdir(mode=0o700)
    (machine.state / "bad").mkdir(mode=0o700)
    (machine.state / "bad" / module.DEFINITION).write_text("gadget = ")
    (machine.state / "opens" / "x.y.gadget").touch()
    (machine.state / "opens" / "heard").write_bytes(b"\xff" * 8)
    agent = machine.agent()
    assert list(of(agent)) == ["opens", "bad"] and "Invalid value" in of(agent)["bad"]
    wait_until(lambda: len(machine.sources) == 2 and of(agent)["opens"] == "", "its return")
    agent.delete("bad")
    assert list(of(agent)) == ["opens"]
    for name in ("../runs.d", str(machine.files), "..", "nobody"):
        with pytest.raises(UsageError):
            agent.delete(name)


def test_state_gone(machine: Machine) -> None:
    """Where somebody removes the state folder, the agent lives, and the run can be deleted and made again."""
    agent = machine.agent()
    agent.put(from_toml("opens", OPENS))
    wait_until(lambda: agent.list().runs[0].kept_bytes, "its beginning")
    module.remove(machine.state / "opens")
    agent.delete("opens")
    agent.put(from_toml("opens", OPENS))
    assert healthy(agent) and of(agent) == {"opens": ""}


def test_cannot_begin(machine: Machine) -> None:
    """Whatever keeps a run from beginning is its problem, not the agent's, and it is tried again; attach says it."""
    machine.refuses = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    agent = machine.agent()
    agent.put(from_toml("opens", OPENS))
    wait_until(lambda: "Too many open files" in of(agent)["opens"], "the problem")
    assert healthy(agent)
    with pytest.raises(Exception, match=r"node-a has kept nothing of opens: .*Too many open files"):
        read(agent)
    machine.refuses = None
    wait_until(lambda: of(agent)["opens"] == "", "its beginning")


def test_end(machine: Machine) -> None:
    """Once agents are removed from a cluster, nothing of standing runs is left on its nodes."""
    (machine.files / "opens.toml").write_text(OPENS)
    agent = machine.agent()
    agent.end()
    assert not machine.state.exists() and of(agent) == {}


def test_too_large(machine: Machine) -> None:
    """A run whose definition could not be read again is refused at once."""
    run = from_toml("opens", OPENS)
    run.start.selection.namespaces.extend(f"shop-{number}" for number in range(50_000))
    with pytest.raises(UsageError, match="opens chooses too much: its definition may have 256 KiB"):
        machine.agent().put(run)


def test_not_kept_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events that a full disk did not take are lost for one who attaches, not only in `runs`."""
    agent = machine.agent()
    agent.put(from_toml("opens", OPENS))
    wait_until(lambda: agent.list().runs[0].kept_bytes, "its beginning")
    machine.sources[0].put(7, 3)
    wait_until(lambda: agent.list().runs[0].events == 3, "the first events")
    with monkeypatch.context() as full:
        full.setattr("agent.standing.history._write", _no_space)
        machine.sources[0].put(7, 5)
        wait_until(lambda: agent.list().runs[0].lost == 5, "the loss")
    machine.sources[0].put(7, 2)
    wait_until(lambda: agent.list().runs[0].events == 5, "the last events")
    losses = read(agent)[-1].summary.losses
    assert [(loss.reason, loss.count) for loss in losses] == [(NOT_KEPT, 5)]


def test_killed_on_a_full_disk(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where an agent ends before it could tell what the disk did not take, the time is a gap."""
    agent = machine.agent()
    agent.put(from_toml("opens", OPENS))
    wait_until(lambda: agent.list().runs[0].kept_bytes, "its beginning")
    machine.sources[0].put(7, 3)
    wait_until(lambda: agent.list().runs[0].events == 3, "the first events")
    run = agent._standing["opens"]
    with monkeypatch.context() as full:
        full.setattr("agent.standing.history._write", _no_space)
        heard = run.history.heard_ns
        machine.sources[0].put(7, 5)
        wait_until(lambda: agent.list().runs[0].lost == 5, "the loss")
        until = run.history.heard_ns
        machine.end()
    agent = machine.agent()
    wait_until(lambda: len(machine.sources) == 2 and of(agent)["opens"] == "", "its return")
    wait_until(lambda: any(reply.HasField("interrupted") for reply in read(agent)), "the gap")
    (gap,) = [reply.interrupted for reply in read(agent) if reply.HasField("interrupted")]
    assert heard <= gap.heard_ns <= until


def test_metrics_of_a_run(machine: Machine) -> None:
    """What a run counts for Prometheus are all events that it keeps."""
    agent = machine.agent()
    agent.put(from_toml("opens", OPENS + 'metrics = ["comm"]\n'))
    wait_until(lambda: machine.sources, "the run")
    machine.sources[0].put(7, 3)
    wait_until(lambda: agent.list().runs[0].events == 3, "its events")
    machine.sources[0].put(7, 5)
    wait_until(lambda: [number.value for number in agent.numbers()] == [8], "the count")
