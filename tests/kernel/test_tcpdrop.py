"""tcpdrop on this kernel: every packet that is dropped, with why, where, and whose it was."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.live import rows_of, start_json, start_python_in
from tests.losses import LOST


def test_exact(agent, start_cli, make_pod, tmp_path: Path) -> None:
    """I see each packet that is dropped, exactly as many as TCP had to send again, with reason, state and process."""
    container = make_pod("shop", "cart-0").container("app", "/bin/sleep", "600")
    cli = start_json(start_cli, agent, "tcpdrop", "-p", "cart-0")
    counts = tmp_path / "counts"
    with start_python_in(container, "tests.losses", str(counts)) as process:
        assert process.communicate(timeout=120)[0] == "done\n"
    told = json.loads(counts.read_text())
    rows = [row for row in rows_of(cli) if row["bytes"] == LOST]
    assert len(rows) == sum(told["timeouts"]) + sum(told["fast"])
    keys = ("reason", "state", "flags", "protocol", "function", "pid", "pod")
    assert {tuple(row[key] for key in keys) for row in rows} == {
        ("SOCKET_FILTER", "established", "PSH|ACK", "tcp", "tcp_v4_rcv", process.pid, "cart-0")
    }
    assert {(row["sender"]["addr"], row["receiver"]["addr"]) for row in rows} == {("127.0.0.1", "127.0.0.1")}


def test_for_nobody(agent, start_cli, pair) -> None:
    """With --host and --all I also see what came for nobody, over UDP too, with both addresses."""
    cart, _ = pair
    cli = start_json(start_cli, agent, "tcpdrop", "--all", "--host", "--filter", "receiver.addr==10.77.0.2")
    program = (
        "import socket\n"
        "for _ in range(7): assert socket.socket().connect_ex(('10.77.0.2', 7001))\n"
        "for _ in range(5): socket.socket(type=socket.SOCK_DGRAM).sendto(b'abc', ('10.77.0.2', 7002))\n"
    )
    subprocess.run(["nsenter", f"--net=/proc/{cart.pid}/ns/net", "python3", "-c", program], check=True)
    rows = rows_of(cli)
    seen = [(row["protocol"], row["receiver"]["port"], row["reason"], row["bytes"]) for row in rows]
    assert sorted(seen) == [("tcp", 7001, "NO_SOCKET", 0)] * 7 + [("udp", 7002, "NO_SOCKET", 3)] * 5
    assert {(row["sender"]["addr"], row["pod"], row["state"]) for row in rows} == {("10.77.0.1", None, "unknown")}
