"""Gadgets with histograms on this kernel: as many as there were, as long as the kernel says."""

from __future__ import annotations

import re
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from tests import disks
from tests.conftest import run_cli, wait_until
from tests.kernel.test_biotop import USER
from tests.kernel.test_syscalltop import CALLER
from tests.live import ROOT, rows_of, start_json
from tests.pods import run_in

#: Three processes on one CPU. What the kernel says of each is written once it is over and cannot wait any more.
WAITERS = """
import os, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
children = []
for number in range(3):
    child = os.fork()
    if not child:
        for _ in range(20):
            until = time.process_time() + 0.005
            while time.process_time() < until:
                pass
            time.sleep(0.001)
        os._exit(0)
    children.append(child)
for child in children:
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
with open("said", "w") as to:
    for child in children:
        with open(f"/proc/{child}/schedstat") as said:
            print(child, said.read(), file=to, end="")
print("done")
"""


def sums(rows: list[dict[str, Any]], name: str, by: str) -> dict[Any, Counter[int]]:
    """How many durations of each length there were, and their count and sum, by a field."""
    found: dict[Any, Counter[Any]] = {}
    for row in rows:
        of = found.setdefault(row[by], Counter())
        of.update({each["over"]: each["count"] for each in row[name]["buckets"]})
        of.update(count=row[name]["count"], sum=row[name]["sum"])
    return found


def test_waits_as_the_kernel_counts(agent, start_cli, bare, tmp_path: Path) -> None:
    """Of each process I see how often and how long its threads waited for a CPU, exactly as the kernel counts it."""
    cli = start_json(start_cli, agent, "runqlat", "-p", "cart-0", "--interval", "100ms", "--processes")
    run_in(bare("shop", "cart-0").cgroup, sys.executable, "-c", WAITERS, cwd=tmp_path)
    seen = sums(rows_of(cli), "waited", "pid")
    said = [list(map(int, line.split())) for line in (tmp_path / "said").read_text().splitlines()]
    assert len(said) == 3
    for pid, _, waited, times in said:
        assert times <= seen[pid]["count"] <= times + 1  # it may be about to leave the CPU for good
        assert seen[pid]["sum"] >= waited > 0
        assert seen[pid]["sum"] == waited or seen[pid]["count"] > times
        assert times > 20


def test_for_prometheus(start_agent, bare, tmp_path: Path) -> None:
    """With --metric agents count a histogram for Prometheus, without a client, exactly as the kernel counts."""
    agent = start_agent("--state", str(tmp_path / "state"), "--metrics", "127.0.0.1:0")
    what = ("runqlat", "-p", "cart-0", "--interval", "100ms", "--detach", "--name", "waits", "--metric", "waited:pod")
    done = run_cli(*what, "--agent", agent.address)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: "waits: runqlat began" in agent.log.read_text(), "the run's beginning")
    run_in(bare("shop", "cart-0").cgroup, sys.executable, "-c", WAITERS, cwd=tmp_path)
    said = [list(map(int, line.split())) for line in (tmp_path / "said").read_text().splitlines()]
    (place,) = re.findall(r"at (127.0.0.1:\d+/metrics)", run_cli("status", "--agent", agent.address).stdout)
    name = "gadget_run_waits_waited_by_pod_seconds"

    def served(what: str) -> float:
        page = urllib.request.urlopen(f"http://{place}", timeout=5).read().decode()
        return float((re.findall(rf'^{name}_{what}{{.*pod="cart-0".*}} (.*)$', page, re.MULTILINE) or [0])[-1])

    times, waited = sum(each[3] for each in said), sum(each[2] for each in said) / 1e9
    wait_until(lambda: served("count") >= times, "the last interval")
    assert served("bucket") == served("count")
    assert served("sum") >= waited
    refused = run_cli("attach", "waits", "--agent", agent.address)
    assert "error: waits keeps no tables of runqlat" in refused.stderr


def test_requests_to_disks(agent, start_cli, bare, tmp_path: Path) -> None:
    """Of requests to a disk I see exactly how many reads and writes there were, by how long they took."""
    with disks.disk(tmp_path) as device:
        only = ("--filter", f"device=={device.name}")
        cli = start_json(start_cli, agent, "biolatency", "-p", "cart-0", "--interval", "100ms", *only)
        run_in(bare("shop", "cart-0").cgroup, sys.executable, "-c", USER, str(device), cwd=ROOT)
        seen = sums(rows_of(cli), "latency", "operation")
    assert (seen["write"]["count"], seen["read"]["count"]) == (disks.WRITES[0], disks.READS[0])
    for each in seen.values():
        low = sum(over * number for over, number in each.items() if isinstance(over, int))
        assert 0 < low <= each["sum"] <= 2 * low


def test_system_calls(agent, start_cli, bare, tmp_path: Path) -> None:
    """Of each system call I see exactly how often it was made, by how long it took."""
    cli = start_json(start_cli, agent, "syscall-latency", "-p", "cart-0", "--interval", "100ms")
    run_in(bare("shop", "cart-0").cgroup, sys.executable, "-c", CALLER, cwd=tmp_path)
    seen = sums(rows_of(cli), "latency", "syscall")
    assert seen["getppid"]["count"] == 10_007
    slept = seen["clock_nanosleep"]
    assert slept["count"] == sum(number for over, number in slept.items() if over not in ("count", "sum")) == 3
    assert min(over for over in slept if isinstance(over, int)) >= 1 << 26  # 0.1 s is between 2^26 and 2^27 ns
    assert slept["sum"] >= 300_000_000


#: A client and a server on loopback, which write what ss says of both ends.
TALKERS = """
import socket, subprocess
place = socket.create_server(("127.0.0.1", 0))
port = place.getsockname()[1]
client = socket.create_connection(("127.0.0.1", port))
server, _ = place.accept()
for _ in range(101):
    client.sendall(b"x")
    server.recv(1)
    server.sendall(b"y")
    client.recv(1)
with open("said", "w") as said:
    subprocess.run(["ss", "-tinHO", f"sport = {port} or dport = {port}"], stdout=said, check=True)
print("done")
"""


def test_round_trips_as_ss_tells(agent, start_cli, bare, tmp_path: Path) -> None:
    """Of a connection I see its round-trip time once for each packet that came, about what ss tells in the end."""
    cli = start_json(start_cli, agent, "tcprtt", "-p", "cart-0", "--interval", "100ms", "--addresses")
    run_in(bare("shop", "cart-0").cgroup, sys.executable, "-c", TALKERS, cwd=tmp_path)
    rows = rows_of(cli)
    assert {row["dst"]["addr"] for row in rows} == {"127.0.0.1"}
    seen = Counter[Any]()
    for row in rows:
        seen.update({each["over"]: each["count"] for each in row["rtt"]["buckets"]})
    said = [float(each) * 1e6 for each in re.findall(r"\brtt:([\d.]+)/", (tmp_path / "said").read_text())]
    assert len(said) == 2
    assert sum(seen.values()) >= 2 * 101
    bounds = [over for over in seen if seen[over]]
    assert min(bounds) <= min(said) and max(said) <= 2 * max(bounds)
