"""Standing runs: they go on without a client, and nothing of what they see is lost without a word."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.conftest import CLI, Agent, events, run_cli, wait_until
from tests.faults.production import Producer, stopped
from tests.kernel.test_execsnoop import run_workload
from tests.loaded import bpf_programs, programs_of


def kubectl(agent: Agent, *args: str) -> str:
    done = run_cli(*args, "--agent", agent.address)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_of(agent: Agent, name: str) -> dict[str, Any]:
    """What `runs` says of one; empty if there is none."""
    return next((row for row in events(kubectl(agent, "runs", "-o", "json")) if row["name"] == name), {})


def began(agent: Agent, name: str) -> None:
    """Wait until the run sees what happens, which is after `runs` lists it."""
    wait_until(lambda: re.search(rf"\b{name}: \w+ began", agent.log.read_text()), "the run's beginning")


def settled(agent: Agent, name: str, count: int) -> None:
    wait_until(lambda: run_of(agent, name)["events"] == count, f"{count} events")


def test_exact_count(agent, make_pod, workload) -> None:
    """What a standing run saw while no client was there I see later, each event once, with names, as I ask for it."""
    before = programs_of(agent.process.pid)
    said = kubectl(agent, "execsnoop", "-n", "shop", "--comm", "workload", "--detach", "--name", "execs")
    assert said.startswith("execs runs on 1 node.\nTo see it:  kubectl gadget attach execs -f\n")
    own = programs_of(agent.process.pid) - before
    run_workload(make_pod("shop", "cart-0"), workload("execs"), 1, 101, 7)
    run_workload(make_pod("bank", "till-0"), workload("execs"), 1, 5, 0)
    settled(agent, "execs", 1 + 101)
    rows = events(kubectl(agent, "attach", "execs", "-o", "json"))
    assert {(row["namespace"], row["pod"]) for row in rows} == {("shop", "cart-0")}
    assert (len(rows), sum(row["error"] is not None for row in rows)) == (102, 7)
    assert [row["timestamp"] for row in rows] == sorted(row["timestamp"] for row in rows)
    failed = events(kubectl(agent, "attach", "execs", "-o", "json", "--filter", "error!=0", "--last", "3"))
    assert [row["error"] for row in failed] == ["ENOENT"] * 3
    assert failed == [row for row in rows if row["error"]][-3:]
    assert events(kubectl(agent, "attach", "execs", "-o", "json", "-p", "web-0")) == []
    assert kubectl(agent, "delete", "execs") == "execs ended on 1 node; what it kept is gone\n"
    wait_until(lambda: not own & bpf_programs(), "the end of its programs")
    done = run_cli("attach", "execs", "--agent", agent.address)
    assert (done.returncode, done.stderr) == (
        2,
        "error: no standing run 'execs': there is none: GADGET --detach --name NAME makes one\n",
    )


def numbers(out: str | bytes) -> list[int]:
    return [int(row["path"].rpartition("/")[2]) for row in map(orjson.loads, out.splitlines())]


@contextmanager
def following(agent: Agent, out: Path) -> Iterator[subprocess.Popen[str]]:
    """One who reads a run and what comes, into a file."""
    command = [CLI, "attach", "opens", "-f", "-o", "json", "--agent", agent.address]
    with out.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_two_readers(agent, workload, tmp_path: Path) -> None:
    """Two read a standing run, and one of them stands still: the other loses nothing, and it itself nothing unsaid."""
    kubectl(agent, "opensnoop", "-A", "--detach", "--name", "opens", "--keep", "1M", "--comm", "produce")
    first, second = tmp_path / "first", tmp_path / "second"
    with Producer(workload("produce")) as producer, following(agent, first) as reads, following(agent, second) as hangs:
        producer.make(101)
        for out in (first, second):
            wait_until(lambda out=out: out.read_bytes().count(b"\n") == 101, "what was kept")
        with stopped(hangs.pid):
            for _ in range(12):
                producer.make(2003)
                wait_until(lambda: first.read_bytes().count(b"\n") == producer.made, "all of it")
        reads.send_signal(signal.SIGINT)
        err = reads.communicate(timeout=20)[1]
        assert numbers(first.read_bytes()) == list(range(producer.made))
        assert "; nothing lost." in err
        producer.make(1)
        wait_until(lambda: f'/{producer.made - 1:09}"'.encode() in second.read_bytes(), "the end")
        hangs.send_signal(signal.SIGINT)
        err = hangs.communicate(timeout=20)[1]
        seen = numbers(second.read_bytes())
        lost = int(match[1]) if (match := re.search(r"; (\d+) lost: overwritten on node-a", err)) else 0
        assert seen == sorted(set(seen)) and len(seen) + lost == producer.made
    assert run_of(agent, "opens")["kept"] <= 1 << 20


def test_overwritten(agent, workload) -> None:
    """What a standing run could not keep is counted: with what I see it is all that happened."""
    kubectl(agent, "opensnoop", "-A", "--detach", "--name", "opens", "--keep", "512K", "--comm", "produce")
    with Producer(workload("produce")) as producer:
        for _ in range(5):
            producer.make(4001)
        settled(agent, "opens", producer.made)
        done = run_cli("attach", "opens", "-o", "json", "--agent", agent.address)
        seen = numbers(done.stdout)
        assert seen == list(range(seen[0], producer.made)) and seen[0] > 0
        assert f"; {seen[0]} lost: overwritten on node-a" in done.stderr
        assert run_of(agent, "opens")["overwritten"] == seen[0]


def test_defined_by_a_file(start_agent, tmp_path: Path, make_pod, workload) -> None:
    """A file in the agent's folder is a standing run, now and after a restart; without the file it ends."""
    folder = tmp_path / "runs.d"
    folder.mkdir()
    file = folder / "execs.toml"
    file.write_text('gadget = "execsnoop"\nnamespaces = ["shop"]\n')
    (folder / "odd.toml").write_text('gadget = "exec')
    usual = ("--runs", str(folder), "--state", str(tmp_path / "state"))
    agent = start_agent(*usual)
    began(agent, "execs")
    assert "odd.toml" in run_of(agent, "odd")["problem"]
    run_workload(make_pod(), workload("execs"), 1, 7, 0)
    settled(agent, "execs", 1 + 7)
    assert agent.stop() == 0
    agent = start_agent(*usual)
    began(agent, "execs")
    run_workload(make_pod(), workload("execs"), 1, 5, 0)
    settled(agent, "execs", 1 + 7 + 1 + 5)
    done = run_cli("attach", "execs", "-o", "json", "--agent", agent.address)
    assert len(events(done.stdout)) == 14
    assert re.search(r"incomplete: \S+: not seen from \S+ to \S+ \(\d+\.\d s\)\n", done.stderr)
    kept = run_cli("delete", "execs", "--agent", agent.address)
    assert f"warning: {agent.address}: {file} still defines execs" in kept.stderr
    file.write_text('gadget = "execsnoop"\n')
    wait_until(lambda: run_of(agent, "execs"), "the new one")
    file.unlink()
    wait_until(lambda: not run_of(agent, "execs"), "its end")


def test_cannot_run(agent) -> None:
    """A run that a node cannot do says so at once and in `runs`, and the agent goes on."""
    done = run_cli("opensnoop", "-A", "--detach", "--name", "huge", "--buffer", "1G", "--agent", agent.address)
    assert done.returncode == 1
    assert (
        "MiB of memory for events" in done.stderr
        and "error: huge runs nowhere; agents try it again until you end it:" in done.stderr
    )
    assert "MiB of memory for events" in run_of(agent, "huge")["problem"]
    kubectl(agent, "delete", "huge")


@pytest.mark.timeout(240)
def test_agent_killed(start_agent, tmp_path: Path, workload) -> None:
    """The agent is killed 20 times: I see all that it was there for, each event once, and each time that it was not."""
    usual = ("--runs", str(tmp_path / "none"), "--state", str(tmp_path / "state"))
    agent = start_agent(*usual)
    kubectl(agent, "opensnoop", "-A", "--detach", "--name", "opens", "--comm", "produce")
    expected: list[int] = []
    with Producer(workload("produce")) as producer:
        for _ in range(20):
            expected += range(producer.made, producer.made + 101)
            producer.make(101)
            settled(agent, "opens", len(expected))
            agent.stop(signal.SIGKILL)
            producer.make(7)
            agent = start_agent(*usual)
            began(agent, "opens")
    done = run_cli("attach", "opens", "-o", "json", "--agent", agent.address)
    assert numbers(done.stdout) == expected
    gaps = re.findall(r"^incomplete: \S+: not seen from \S+ to \S+ \(\d+\.\d s\)$", done.stderr, re.M)
    assert len(gaps) == 20
    assert "; nothing lost of what was watched" in done.stderr


def test_two_agents(start_agent, tmp_path: Path) -> None:
    """Where another agent on the machine has the standing runs, mine says so and all else works."""
    usual = ("--runs", str(tmp_path / "none"), "--state", str(tmp_path / "state"))
    start_agent(*usual)
    done = run_cli("runs", "--agent", start_agent(*usual).address)
    assert done.returncode == 1
    assert (
        f"no standing runs on node-a: another agent on this machine has those in {tmp_path}/state/runs" in done.stderr
    )
