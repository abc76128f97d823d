"""offcpu on this kernel: where threads wait, for as long as they say themselves."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path

from tests.bpftrace import traced
from tests.conftest import run_cli, wait_until
from tests.live import inside

#: Of tests/workloads/offs.c: what each of its threads waits in, and the kernel's functions that it may show as.
WAITS = {
    "sleeps": ("wait_in_sleep", r"nanosleep|nsleep"),
    "reads": ("wait_in_read", r"pipe_read|pipe_wait"),
    "locks": ("wait_for_lock", r"futex"),
}
#: What bpftrace sums up: nanoseconds off the CPU by the name of the thread, of waits that a thread began by itself.
OFFCPU = """
tracepoint:sched:sched_switch {
    if (args->prev_state & 0xff) { @since[args->prev_pid] = nsecs; }
    if (@since[args->next_pid]) {
        @off[args->next_comm] = sum(nsecs - @since[args->next_pid]);
        delete(@since[args->next_pid]);
    }
}
"""


def test_waits_of_threads(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """Of each thread I see in which function it waited, for as long as it says itself, and as bpftrace sums it up."""
    with traced(OFFCPU, tmp_path) as peer:
        cli = start_cli("offcpu", "--agent", agent.address, "-p", "cart-0", "--duration", "0", "-o", "folded")
        wait_until(lambda: "offcpu: started" in agent.log.read_text(), "the stream's start")
        with inside(bare("shop", "cart-0"), workload("offs"), "40", stdout=subprocess.PIPE) as process:
            said = dict(line.split() for line in process.communicate()[0].decode().splitlines())
        out, err = cli.finish()
    assert "nothing lost" in err, err
    off = {each["key"]: each["value"] / 1000 for each in peer.map("@off")}
    seen = Counter[str]()
    for line in out.splitlines():
        stack, _, microseconds = line.rpartition(" ")
        place, comm, *calls = stack.split(";")
        assert place == "shop/cart-0/app", line
        if comm in WAITS and WAITS[comm][0] in calls:
            assert re.search(WAITS[comm][1], calls[-1]), line
            assert calls[: calls.index(WAITS[comm][0])][-1] == comm, line
            seen[comm] += int(microseconds)
    assert {*seen} == {*WAITS}, out
    for comm, microseconds in seen.items():
        assert microseconds <= int(said[comm]) / 1000 + 20, (comm, seen, said)
        # a thread also waits, for a moment, while it is begun
        assert abs(microseconds - off[comm]) < 0.02 * off[comm] + 500, (seen, off)
    assert seen["sleeps"] >= 40 * 5000 * 0.95


def test_rows(agent, start_cli, bare, workload) -> None:
    """The table has the longest waits first, with the function of the program and that of the kernel; short ones not."""
    cli = start_cli("offcpu", "--agent", agent.address, "-p", "cart-0", "--duration", "0", "-o", "json", "--min", "4ms")
    wait_until(lambda: "offcpu: started" in agent.log.read_text(), "the stream's start")
    with inside(bare("shop", "cart-0"), workload("offs"), "40", stdout=subprocess.PIPE) as process:
        process.communicate()
    out, err = cli.finish()
    assert "nothing lost" in err, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["time"] for row in rows] == sorted((row["time"] for row in rows), reverse=True)
    by_comm = {row["comm"]: row for row in rows if row["function"] == WAITS.get(row["comm"], ("",))[0]}
    assert {*by_comm} == {*WAITS}, rows
    assert all(re.search(WAITS[comm][1], row["wait"]) for comm, row in by_comm.items()), rows
    assert all(row["pod"] == "cart-0" and row["file"].endswith("/offs") for row in by_comm.values()), rows
    # of the main thread the waits of 10 ms are there, those of 3 ms are not
    main = next(row for row in rows if row["comm"] == "offs" and row["function"] == "wait_in_sleep")
    assert main["time"] >= 40 * 9_500_000


def test_states(agent, start_cli, bare, workload) -> None:
    """--state D leaves out what signals would end; a state that is none is refused."""
    cli = start_cli(
        "offcpu", "--agent", agent.address, "-p", "cart-0", "--duration", "0", "-o", "folded", "--state", "D"
    )
    wait_until(lambda: "offcpu: started" in agent.log.read_text(), "the stream's start")
    with inside(bare("shop", "cart-0"), workload("offs"), "2", stdout=subprocess.PIPE) as process:
        process.communicate()
    out, _ = cli.finish()
    assert not re.search("|".join(function for _, function in WAITS.values()), out)
    refused = run_cli("offcpu", "--agent", agent.address, "--state", "X")
    assert refused.returncode == 2 and "--state X: want one or more of R, S, D" in refused.stderr


def test_threads_without_end(agent, start_cli, bare, workload) -> None:
    """A container with threads without end loses waits of its own, which are counted; another one loses none."""
    cli = start_cli("offcpu", "--agent", agent.address, "-n", "shop", "--duration", "0", "-o", "folded")
    wait_until(lambda: "offcpu: started" in agent.log.read_text(), "the stream's start")
    with inside(bare("shop", "flood-0"), workload("offs"), "-5300", stdout=subprocess.PIPE) as flood:
        assert flood.stdout and flood.stdout.readline() == b"ready\n"
        with inside(bare("shop", "cart-0"), workload("offs"), "40", stdout=subprocess.PIPE) as process:
            process.communicate()
        flood.kill()
    out, err = cli.finish()
    assert all(any("cart-0" in line and name in line for line in out.splitlines()) for name, _ in WAITS.values()), out
    slept = [line for line in out.splitlines() if "cart-0" in line and ";sleeps;" in line and "wait_in_sleep" in line]
    assert sum(int(line.rpartition(" ")[2]) for line in slept) >= 40 * 5000 * 0.9, slept
    assert re.search(r"lost: too many at once on node-a \(", err), err
