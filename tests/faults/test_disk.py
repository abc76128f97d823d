"""The disk is full: recordings of streams end where they must, and the recorders go on."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import events, run_cli, wait_until
from tests.faults.production import Producer, books, ended, opens, seen_in, stop


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all room that is left."""
    file = folder / "filler"
    with file.open("wb", buffering=0) as filler:
        try:
            while filler.write(bytes(4096)):
                pass
        except OSError:
            return file


def test_record_to_a_disk_that_fills(agent, workload, small_disk: Path, tmp_path: Path, figure) -> None:
    """The disk fills in the middle of a recording: I am told at once, the stream loses nothing, the last line says how
    many events are not in the recording, the exit code is 1, and what is in it can be replayed.
    """
    file = small_disk / "opens.gadget"
    with Producer(workload("produce")) as producer:
        cli = opens(tmp_path, agent, producer, "--record", str(file))
        while "No space left" not in cli.err:
            producer.make(101)
            # not more at a time: a batch that is larger than the disk would leave an empty recording
            wait_until(lambda: cli.out.count("\n") >= producer.made, "the events")
            assert producer.made < 100_000
        producer.make(1009)
        out, err = stop(cli, signal.SIGINT)
    assert books(out, err) == (list(range(producer.made)), 0)
    told = err.splitlines()
    assert told[0] == f"warning: --record {file}: No space left on device: the recording ends here"
    replayed = run_cli("replay", str(file), "-o", "json")
    kept = seen_in(replayed.stdout)
    assert kept == list(range(len(kept))) and kept
    figure("events of a recording", f"{len(kept)} in it, {producer.made - len(kept)} told as not in it")
    missing = producer.made - len(kept)
    assert told[-1] == (
        f"error: --record {file}: No space left on device: the recording is not complete: {missing} events are not in it"
    )
    assert cli.process.returncode == 1
    assert "incomplete: the recording was cut off" in replayed.stderr


def test_output_to_a_disk_that_fills(agent, workload, small_disk: Path, tmp_path: Path, figure) -> None:
    """The disk behind my `> file` fills: the command ends with one line that says so and how many events are in the file,
    and its programs are gone.
    """
    file = small_disk / "out"
    with Producer(workload("produce")) as producer, file.open("wb") as target:
        cli = opens(tmp_path, agent, producer, stdout=target)
        while cli.process.poll() is None and producer.made < 100_000:
            producer.make(101)
        assert ended(cli) == 1
        whole, _, part = file.read_bytes().rpartition(b"\n")
        kept = seen_in(whole)
        assert kept == list(range(len(kept))) and len(kept) > 1000 and part
        assert cli.err == f"error: {file}: No space left on device: {len(kept)} events written\n"
        figure("events of a full disk", f"{len(kept)} in the file, of {producer.made} that happened by then")
        wait_until(lambda: "opensnoop: ended" in agent.log.read_text(), "the end of the run")


def test_recorders_with_a_full_disk(bpffs: Path, small_disk: Path, start_agent, workload) -> None:
    """The disk below the recorders' folder is full: they go on, `status` says what is not kept; when there is room
    again it is kept.
    """
    filler = fill(small_disk)
    arguments = ["--bpffs", str(bpffs), "--state", str(small_disk)]
    agent = start_agent(*arguments)
    status = lambda: events(run_cli("status", "--agent", agent.address, "-o", "json").stdout)[0]  # noqa: E731
    with Producer(workload("produce")) as producer:
        wait_until(lambda: "names of pods are not saved: No space left on device" in status()["flows"], "the warning")
        assert " MiB" in status()["traceloop"]
        producer.make(13)
        filler.unlink()
        wait_until(lambda: "not saved" not in status()["flows"], "room")
        assert (small_disk / "flows/pods.json").exists()
        assert agent.log.read_text().count("No space left on device") < 5


def test_old_recordings_and_a_full_disk(bpffs: Path, small_disk: Path, start_agent, workload) -> None:
    """Recordings of an agent with another layout cannot be saved as the disk is full: how many are lost is said where I
    look for them, and no half of one is left.
    """
    arguments = ["--no-flows", "--bpffs", str(bpffs), "--state", str(small_disk)]
    with Producer(workload("produce")) as producer:
        arguments += ["--traceloop", producer.namespace]
        start_agent(*arguments).stop(signal.SIGKILL)
        root = bpffs / "gadget/traceloop"
        (layout,) = root.iterdir()
        layout.rename(root / "another")
        agent = start_agent(*arguments)
        assert not (root / "another").exists()
        (status,) = events(run_cli("status", "--agent", agent.address, "-o", "json").stdout)
        assert "1 of an older agent lost: No space left on device" in status["traceloop"]
        told = run_cli("traceloop", "list", "--agent", agent.address)
        assert "1 of an older agent lost: No space left on device" in told.stderr
        assert not list((small_disk / "traceloop").iterdir())
