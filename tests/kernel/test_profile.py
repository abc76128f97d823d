"""profile on this kernel: functions of programs and of the kernel, by container, as often as they run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import Agent, Cli, run_cli, wait_until
from tests.loaded import is_there, programs_of

#: What tests/workloads/spins.c spends of its time in each function, in percent.
SHARES = {"spin_40": 40, "spin_25": 25, "spin_20": 20, "spin_10": 10, "spin_5": 5}
#: So long a program has to run: 3,000 samples make the error of a share a percentage point at most (one sigma).
CPU_SECONDS = 3.2


def profiled(agent: Agent, *args: str) -> tuple[str, str]:
    """What `profile` prints, on standard output and on standard error."""
    done = run_cli("profile", "--agent", agent.address, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def rows_of(agent: Agent, *args: str) -> list[dict[str, Any]]:
    """Functions with their shares; nothing may be lost."""
    out, err = profiled(agent, "-o", "json", *args)
    assert "nothing lost" in err, err
    return [json.loads(line) for line in out.splitlines()]


def spin(make_pod: Callable[..., Any], program: Path, *args: str, pod: str = "cart-0") -> Any:
    """A container that spins."""
    made = make_pod("shop", pod).container("app", "/workload", *args, files={"/workload": program})
    wait_until(lambda: "spinning" in made.log.read_text(), "the workload's start")
    return made


def sampled(start_cli: Callable[..., Cli], agent: Agent, pid: int, *args: str, seconds: float = CPU_SECONDS) -> str:
    """What `profile` prints that goes on until a process has run for so long."""
    cli = start_cli("profile", "--agent", agent.address, "--duration", "0", *args)
    started = cpu_seconds(pid)
    wait_until(lambda: cpu_seconds(pid) > started + seconds, "a program that runs", 60)
    out, err = cli.finish()
    assert "nothing lost" in err, err
    return out


def test_known_shares(agent, start_cli: Callable[..., Cli], make_pod, workload, tmp_path: Path) -> None:
    """Of a program whose functions take known parts of its time I see these parts in order, as perf record does."""
    app = spin(make_pod, workload("spins"))
    spin(make_pod, workload("spins"), pod="web-0")
    data = tmp_path / "perf.data"
    perf = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "1997", "-p", str(app.pid), "-o", str(data)]
    with subprocess.Popen(perf, stderr=subprocess.PIPE) as recording:
        out = sampled(
            start_cli, agent, app.pid, "-n", "shop", "-p", "cart-0", "-F", "997", "--top", "0", "-o", "json", seconds=6
        )
        recording.send_signal(signal.SIGINT)
    rows = [json.loads(line) for line in out.splitlines()]
    assert {(row["node"], row["namespace"], row["pod"], row["container"]) for row in rows} == {
        ("node-a", "shop", "cart-0", "app")
    }
    # what interrupts do meanwhile, for all of the machine, is the kernel's
    hottest = parts({row["function"]: row["self"] for row in rows if row["file"] == "/workload" and row["self"] >= 1})
    assert list(hottest) == list(SHARES), rows
    assert all(abs(hottest[name] - share) < 3 for name, share in SHARES.items()), rows
    (main,) = (row for row in rows if row["function"] == "main")
    assert main["total"] > 90 and main["self"] < 1 and main["file"] == "/workload"

    script = subprocess.run(
        ["perf", "script", "-i", data, "-F", "ip"], capture_output=True, text=True, check=True
    ).stdout
    names = subprocess.run(
        ["addr2line", "-f", "-e", workload("spins")], input=script, capture_output=True, text=True, check=True
    ).stdout.splitlines()[::2]
    by_perf = parts({name: names.count(name) for name in SHARES})
    assert sorted(by_perf, key=by_perf.__getitem__, reverse=True) == list(hottest)
    assert all(abs(hottest[name] - by_perf[name]) < 3 for name in SHARES), (hottest, by_perf)


def parts(found: dict[str, float]) -> dict[str, float]:
    """Of all of them together, in percent."""
    return {name: 100 * each / sum(found.values()) for name, each in found.items()}


def test_in_the_kernel(agent, make_pod) -> None:
    """Of a program that is busy in the kernel I see the kernel's functions; -U counts them for the program, -K alone."""
    make_pod("shop", "cart-0").container("app", "/bin/busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=1M")
    rows = rows_of(agent, "-p", "cart-0", "--duration", "1s")
    inside = [row for row in rows if row["file"] == "[kernel]"]
    assert sum(row["self"] for row in inside) > 80, rows
    assert {row["function"] for row in inside} & {"read_zero", "vfs_read", "ksys_read", "__x64_sys_read"}, rows
    rows = rows_of(agent, "-p", "cart-0", "--duration", "1s", "-U")
    assert rows and not any(row["file"] == "[kernel]" for row in rows)
    rows = rows_of(agent, "-p", "cart-0", "--duration", "1s", "-K")
    assert rows and all(row["file"].startswith("[") for row in rows), rows
    assert run_cli("profile", "--agent", agent.address, "-U", "-K").returncode == 2


def test_what_runs_made_itself(agent, make_pod, workload) -> None:
    """Code that a program made while it runs has the names of its own map, and what it calls itself is only text."""
    spin(make_pod, workload("jits"), "hot", "LazyCompile:*evil\x1b[2J;x")
    out, _ = profiled(agent, "-p", "cart-0", "--duration", "1s", "-o", "folded")
    names = {line.rpartition(" ")[0].rpartition(";")[2] for line in out.splitlines()}
    assert {"hot", "LazyCompile:*evil\\x1b[2J:x"} <= names, out
    rows = rows_of(agent, "-p", "cart-0", "--duration", "1s")
    assert {row["file"] for row in rows if row["function"] == "hot"} == {"[jit]"}


def test_no_wrong_names(agent, make_pod, workload, tmp_path: Path) -> None:
    """What no name is known of, as of a program without symbols, is its address in its file, never another name."""
    bare = tmp_path / "bare"
    subprocess.run(["strip", "-o", bare, workload("spins")], check=True)
    spin(make_pod, bare)
    rows = rows_of(agent, "-p", "cart-0", "--duration", "1s")
    own = [row for row in rows if row["file"] == "/workload"]
    assert own and all(re.fullmatch(r"workload\+0x[0-9a-f]+", row["function"]) for row in own), rows
    named = subprocess.run(
        ["addr2line", "-f", "-e", workload("spins"), *(row["function"].partition("+")[2] for row in own)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "spin_40" in named, named


def test_gone_in_the_end(agent, start_cli: Callable[..., Cli], make_pod, workload) -> None:
    """A container that is gone when I end still has the names of its functions; nothing is left in the kernel."""
    app = spin(make_pod, workload("spins"))
    before = programs_of(agent.process.pid)
    cli = start_cli("profile", "--agent", agent.address, "--duration", "0", "-o", "json")
    programs = wait_until(lambda: programs_of(agent.process.pid) - before, "the start")
    started = cpu_seconds(app.pid)
    wait_until(lambda: cpu_seconds(app.pid) > started + 1, "a second of CPU time", 60)
    app.delete()
    out, err = cli.finish()
    assert "nothing lost" in err, err
    assert {*SHARES} <= {row["function"] for row in map(json.loads, out.splitlines()) if row["pod"] == "cart-0"}, out
    wait_until(lambda: not any(is_there("prog", each) for each in programs), "the end of the program")


def cpu_seconds(pid: int) -> float:
    """How long a process has run."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
