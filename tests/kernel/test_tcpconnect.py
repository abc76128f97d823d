"""tcpconnect on this kernel: every way an attempt can end, with exact counts."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import Agent, Cli, events, run_cli, wait_until
from tests.pods import Container, link

ROOT = Path(__file__).parents[2]


@contextmanager
def peers(container: Container) -> Iterator[None]:
    """Give a container's network namespace the peers of tests/tun.py."""
    command = ["nsenter", f"--net=/proc/{container.pid}/ns/net", sys.executable, "-m", "tests.tun"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout and process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.wait()


def run_connects(agent: Agent, start_cli: Callable[..., Cli], make_pod: Any, workload: Any, *args: str) -> Any:
    """The rows of tests/workloads/connects.c, and what the stream said in the end."""
    container = make_pod().container("app", "/workload", files={"/workload": workload("connects")})
    with peers(container):
        cli = start_cli("tcpconnect", "--agent", agent.address, "-o", "json", "-p", "cart-0", *args)
        wait_until(lambda: "tcpconnect: started" in agent.log.read_text(), "the stream's start")
        (container.bundle / "rootfs/tmp/go").touch()
        wait_until(lambda: "done" in container.log.read_text(), "the workload's end")
        assert container.log.read_text() == "done\n"
        out, err = cli.finish()
    assert "nothing lost" in err
    return events(out)


def test_exact_counts(agent, start_cli, make_pod, workload) -> None:
    """Of every way in which a connection attempt can end I see exactly as many as happened, each once."""
    rows = run_connects(agent, start_cli, make_pod, workload)
    seen = Counter((e["dst"]["addr"], e["dst"]["port"], e["result"], e["error"]) for e in rows if e["dst"])
    assert seen == {
        ("10.9.0.2", 80, "ok", None): 2 + 5,
        ("fd09::2", 80, "ok", None): 3,
        ("10.9.0.3", 80, "refused", "ECONNREFUSED"): 7,
        ("fd09::3", 80, "refused", "ECONNREFUSED"): 11,
        ("10.9.0.4", 80, "unreachable", "EHOSTUNREACH"): 13,
        ("203.0.113.7", 80, "unreachable", "ENETUNREACH"): 17,
        ("2001:db8::7", 80, "unreachable", "ENETUNREACH"): 19,
        ("10.9.0.6", 80, "reset", "ECONNRESET"): 23,
        ("10.9.0.2", 81, "ok", None): 29,
        ("10.9.0.3", 81, "refused", "ECONNREFUSED"): 31,
        ("fd09::4", 81, "unreachable", "EHOSTUNREACH"): 37,
        ("203.0.113.7", 81, "unreachable", "ENETUNREACH"): 41,
        ("127.0.0.1", 81, "refused", "ECONNREFUSED"): 47,
        ("10.9.0.5", 83, "interrupted", "EINTR"): 5,
        ("10.9.0.2", 85, "ok", None): 1,
        ("10.9.0.2", 85, "unreachable", "EADDRNOTAVAIL"): 3,
        ("10.9.0.2", 86, "failed", "EINVAL"): 7,
        ("10.9.0.5", 82, "no answer", None): 43,
        ("fd09::5", 82, "pending", None): 11,
        ("fd09::5", 82, "no answer", None): 11,
        ("10.9.0.5", 84, "pending", None): 13,
        ("10.9.0.5", 84, "timed out", "ETIMEDOUT"): 13,
    }


def test_names(agent, start_cli, make_pod, tmp_path: Path) -> None:
    """The other end is shown by its pod's name, without a cluster too, and still so when I replay it without an agent."""
    web = make_pod("web", "web-0").container("nginx", "/bin/sleep", "60")
    cart = make_pod().container("app", "/bin/sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.05; done; "
                                "for a in 10.77.0.2 fd77::2; do busybox nc $a 80; done; echo done; sleep 60")  # fmt: skip
    link(cart, web)
    kept = tmp_path / "kept"
    cli = start_cli("tcpconnect", "--agent", agent.address, "-n", "shop", "--no-pending", "--record", str(kept))
    wait_until(lambda: "tcpconnect: started" in agent.log.read_text(), "the stream's start")
    (cart.bundle / "rootfs/tmp/go").touch()
    wait_until(lambda: "done" in cart.log.read_text(), "the workload's end")
    out, _ = cli.finish()
    rows = [line.split() for line in out.splitlines()[1:]]
    assert [row[7] for row in rows] == ["pod/web/web-0:80"] * 2
    assert all(row[6].startswith("pod/shop/cart-0:") for row in rows)
    agent.stop()
    replayed = run_cli("replay", str(kept), "--filter", "dst.name==web-0,dst.port==80", "--count-by", "dst.name,result")
    assert replayed.stdout.split() == ["COUNT", "DST.NAME", "RESULT", "2", "web-0", "refused"]
    parts = run_cli("replay", str(kept), "-o", "json", "--fields", "dst.addr,dst")
    assert {(row["dst.addr"], row["dst"]["kind"], row["dst"]["namespace"]) for row in events(parts.stdout)} == {
        ("10.77.0.2", "pod", "web"), ("fd77::2", "pod", "web"),
    }  # fmt: skip


def test_no_pending(agent, start_cli, make_pod, workload) -> None:
    """--no-pending leaves just one row for each attempt."""
    rows = run_connects(agent, start_cli, make_pod, workload, "--no-pending")
    assert not [row for row in rows if row["result"] == "pending"]
    assert len(rows) == 2 + 5 + 3 + 7 + 11 + 13 + 17 + 19 + 23 + 29 + 31 + 37 + 41 + 47 + 5 + 1 + 3 + 7 + 43 + 11 + 13
