"""Streams that are kept show the same again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.stream.recording import Recording
from tests.conftest import CLI, events, run_cli, wait_until
from tests.kernel.test_execsnoop import run_workload


@pytest.fixture
def recorded(agent, start_cli, make_pod, workload, tmp_path: Path) -> tuple[Path, str]:
    """A recording of 101 execs of which 7 fail, and the JSON that was shown meanwhile."""
    file = tmp_path / "execs.gadget"
    cli = start_cli("execsnoop", "-n", "shop", "--agent", agent.address, "-o", "json", "--record", str(file))
    wait_until(lambda: "started" in agent.log.read_text(), "the stream's start")
    run_workload(make_pod(), workload("execs"), 1, 101, 7)
    out, err = cli.finish()
    assert err.endswith("; nothing lost.\n")
    return file, out


def nobody(*args: str) -> subprocess.CompletedProcess[str]:
    """Run the command line without any capability."""
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--", str(CLI), *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_replay_is_the_stream(recorded: tuple[Path, str]) -> None:
    """A recording shows the same events, names and losses as the stream did, without root or agent."""
    file, shown = recorded
    again = nobody("replay", str(file), "-o", "json")
    assert (again.returncode, again.stdout) == (0, shown)
    assert again.stderr.endswith("from 1 node, 1 container, as recorded; nothing lost.\n")


def test_replay_with_other_choices(recorded: tuple[Path, str]) -> None:
    """I can choose output, fields and filter later: what --filter hides is decided anew each time."""
    file, _ = recorded
    failed = events(run_cli("replay", str(file), "-o", "json", "--filter", "error==ENOENT").stdout)
    assert len([event for event in failed if event["args"][0] == "started"]) == 7
    table = run_cli("replay", str(file), "--fields", "pod,exe", "--max-events", "3").stdout.splitlines()
    assert (table[0].split(), len(table)) == (["POD", "EXE"], 4)


def test_cut_recording(recorded: tuple[Path, str], tmp_path: Path) -> None:
    """A recording that was cut off shows what it holds up to the cut and says so; --strict fails."""
    file, shown = recorded
    data = file.read_bytes()
    cut = tmp_path / "cut.gadget"
    for size in (len(data) - 1, len(data) * 7 // 10, len(data) * 3 // 10):
        cut.write_bytes(data[:size])
        batches = [reply.batch for _, reply in Recording(cut) if isinstance(reply, pb.RunReply)]
        number = sum(section.count for batch in batches for section in batch.sections)
        done = run_cli("replay", str(cut), "-o", "json", "--strict")
        assert done.stdout.splitlines() == shown.splitlines()[:number]
        assert "the recording was cut off" in done.stderr
        assert done.returncode == 3
        if size == len(data) - 1:
            assert done.stdout == shown


def test_counts(recorded: tuple[Path, str]) -> None:
    """--count-by counts events by any fields: one table, or one JSON object each, the most frequent first."""
    file, shown = recorded
    rows = events(
        run_cli("replay", str(file), "--count-by", "comm,error", "--filter", "exe~workload|not", "-o", "json").stdout
    )
    counted = {(row["comm"], row["error"]): row["count"] for row in rows}
    assert counted[("workload", "ENOENT")] == 7
    assert sum(counted.values()) == len(
        [event for event in events(shown) if "workload" in event["exe"] or "not" in event["exe"]]
    )
    assert [row["count"] for row in rows] == sorted((row["count"] for row in rows), reverse=True)
    table = run_cli("replay", str(file), "--count-by", "pod,args", "--max-events", "5").stdout.splitlines()
    assert table[0].split() == ["COUNT", "POD", "ARGS"]
    assert sum(int(line.split()[0]) for line in table[1:]) == 5
    wrong = run_cli("replay", str(file), "--count-by", "pids")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a recording"),
        (b"gadget1\n", "not a recording"),
        (b"gadget2\nxxxx", "made by a newer version"),
        (os.urandom(300), "not a recording"),
    ],
)
def test_not_a_recording(tmp_path: Path, content: bytes, why: str) -> None:
    """A file that is no recording, or of a later version, is refused in one line."""
    file = tmp_path / "file"
    file.write_bytes(content)
    done = run_cli("replay", str(file))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert why in done.stderr


def test_full_disk(agent, start_cli, make_pod, workload) -> None:
    """When the disk is full the stream goes on, I am told when it happens, and the exit code is 1."""
    cli = start_cli("execsnoop", "--agent", agent.address, "-o", "json", "--record", "/dev/full")
    wait_until(lambda: "started" in agent.log.read_text(), "the stream's start")
    run_workload(make_pod(), workload("execs"), 1, 23, 0)
    out, err = cli.finish()
    assert len([event for event in events(out) if event["args"][0] == "started"]) == 23
    assert "No space left on device" in err
    assert cli.process.returncode == 1
