"""bindsnoop on this kernel: every way a bind can end, with exact counts."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.live import ROOT, inside, known, rows_of, run_workload, start_json
from tests.pods import run_in

#: What tests/workloads/binds.c does: (protocol, address, port, options, error): how often.
BINDS = {
    ("tcp", "0.0.0.0", 7001, "SO_REUSEADDR", None): 13,
    ("udp", "::", 7002, "SO_REUSEPORT|IPV6_V6ONLY", None): 11,
    ("tcp", "0.0.0.0", 7003, "0", None): 1,
    ("tcp", "0.0.0.0", 7003, "0", "EADDRINUSE"): 7,
    ("tcp", "192.0.2.1", 80, "0", "EADDRNOTAVAIL"): 5,
    ("tcp", "0.0.0.0", "chosen", "0", None): 17,
    ("tcp", "0.0.0.0", 7004, "0", "EINVAL"): 17,
    ("unknown", "0.0.0.0", 7005, "0", "ENOTSOCK"): 19,
    ("unknown", "0.0.0.0", 7006, "0", "EBADF"): 2,
}


def way(row: dict) -> tuple[object, ...]:
    port = row["address"]["port"]
    shown = port if 0 < port < 8000 else "chosen"
    return row["protocol"], row["address"]["addr"], shown, row["options"], row["error"]


def test_exact_count(agent, start_cli, make_pod, workload) -> None:
    """Of binds that succeed and of each way to fail I see exactly as many as happened, with address and options."""
    cli = start_json(start_cli, agent, "bindsnoop", "-p", "cart-0")
    container = run_workload(make_pod("shop", "cart-0"), workload("binds"))
    assert container.log.read_text() == "done\n"
    rows = rows_of(cli)
    assert Counter(map(way, rows)) == BINDS
    assert all(row["address"]["port"] for row in rows)
    assert {(row["namespace"], row["pod"], row["comm"]) for row in rows} == {("shop", "cart-0", "workload")}
    holders = {(row["hpid"] == row["pid"], row["hcomm"]) for row in rows if row["error"] == "EADDRINUSE"}
    assert holders == {(True, "workload")}
    assert {(row["hpid"], row["hcomm"], row["holder"]) for row in rows if row["error"] != "EADDRINUSE"} == {
        (0, "", None)
    }


def test_only_failed(agent, start_cli, make_pod, workload) -> None:
    """With --failed I see only the binds that failed."""
    cli = start_json(start_cli, agent, "bindsnoop", "--failed")
    run_workload(make_pod(), workload("binds"))
    assert Counter(map(way, rows_of(cli))) == {key: count for key, count in BINDS.items() if key[-1]}


def test_calls_that_seccomp_ended(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """A bind that seccomp kept from happening by SIGSYS failed, and --failed shows it."""
    cli = start_json(start_cli, agent, "bindsnoop", "--comm", "trapped", "--failed")
    run_in(bare("shop", "trap-0").cgroup, workload("trapped"), cwd=tmp_path)
    assert Counter(map(way, rows_of(cli))) == {("tcp", "127.0.0.1", 7007, "0", "EPERM"): 17}


def test_who_has_it(agent, start_cli, bare) -> None:
    """Of an address that is in use I see who has it: the process and its pod, or a process of the host; and ? where no
    process has it, or one that nobody saw get it.
    """
    web, cart, db = bare("shop", "web-0"), bare("shop", "cart-0"), bare("shop", "db-0")
    known(agent, web, cart, db)
    pipes: dict[str, Any] = {"cwd": ROOT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    python = (sys.executable, "-m", "tests.binds")
    with ExitStack() as stack:

        def start(*command: str, where: Any = None) -> subprocess.Popen[bytes]:
            started = inside(where, *command, **pipes) if where else subprocess.Popen(command, **pipes)
            process = stack.enter_context(started)
            assert process.stdout and process.stdout.readline() == b"ready\n"
            return process

        alone = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
        held = ("tcp/0.0.0.0/7001", "udp/::/7002", "tcp/127.0.0.1/7004", "tcp6only/::/7007", "tcp/127.0.0.2/7007")
        older = start(*alone, *python, "hold", *held, where=web)
        there = ("nsenter", f"--net=/proc/{older.pid}/ns/net")
        cli = start_json(start_cli, agent, "bindsnoop", "-p", "cart-0", "--failed")
        host = start(*there, *python, "hold", "tcp/127.0.0.1/7003")
        start(*there, *python, "pass", "tcp/127.0.0.1/7005", where=db)
        start(*there, *python, "leave", "tcp/127.0.0.1/7006", where=db)
        tries = (
            "7/tcp/127.0.0.1/7001", "5/udp/127.0.0.1/7002", "3/tcp/127.0.0.1/7003", "2/tcp/0.0.0.0/7004",
            "11/tcp/127.0.0.1/7005", "13/tcp/127.0.0.1/7006", "17/tcp/::1/7007", "19/tcp/0.0.0.0/7007",
        )  # fmt: skip
        with inside(cart, *there, *python, "try", *tries, **pipes) as trying:
            assert trying.communicate()[0] == b"done\n"
        rows = rows_of(cli)

    def has(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["address"]["port"], row["hpid"], row["hcomm"], row["holder"] and row["holder"]["pod"]

    name = Path(sys.executable).name
    assert Counter(map(has, rows)) == {
        (7001, older.pid, name, "web-0"): 7,
        (7002, older.pid, name, "web-0"): 5,
        (7003, host.pid, name, None): 3,
        (7004, older.pid, name, "web-0"): 2,
        (7005, 0, "?", "db-0"): 11,
        (7006, 0, "?", None): 13,
        (7007, older.pid, name, "web-0"): 17 + 19,
    }


#: Binds as many addresses as bindsnoop remembers of all containers, one after the other.
FLOOD = """
import socket
for port in range(10_000, 19_000):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", port))
"""


def test_others_push_nobody_out(agent, start_cli, bare) -> None:
    """However many addresses a container binds: of the one that I want I still see which other pod has it."""
    web, cart, flood = bare("shop", "web-0"), bare("shop", "cart-0"), bare("shop", "flood-0")
    known(agent, web, cart, flood)
    pipes: dict[str, Any] = {"cwd": ROOT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    alone = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")
    python = (sys.executable, "-m", "tests.binds")
    cli = start_json(start_cli, agent, "bindsnoop", "-p", "cart-0", "--failed")
    with inside(web, *alone, *python, "hold", "tcp/127.0.0.1/7001", **pipes) as holding:
        assert holding.stdout and holding.stdout.readline() == b"ready\n"
        with inside(flood, *alone, sys.executable, "-c", FLOOD, **pipes) as flooding:
            flooding.communicate()
            assert flooding.returncode == 0
        there = ("nsenter", f"--net=/proc/{holding.pid}/ns/net")
        with inside(cart, *there, *python, "try", "7/tcp/127.0.0.1/7001", **pipes) as trying:
            assert trying.communicate()[0] == b"done\n"
        rows = rows_of(cli)
    assert Counter(row["holder"] and row["holder"]["pod"] for row in rows) == {"web-0": 7}
