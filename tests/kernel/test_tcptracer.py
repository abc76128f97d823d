"""tcptracer on this kernel: every connection's begin and end, with its bytes."""

from __future__ import annotations

import subprocess
from collections import Counter, defaultdict

from tests.conftest import events, wait_until


def test_exact_bytes(agent, start_cli, make_pod, workload) -> None:
    """Of each connection I see connect, accept and the close of both ends, with exactly the bytes of each direction."""
    container = make_pod().container("app", "/workload", files={"/workload": workload("traffic")})
    subprocess.run(["nsenter", f"--net=/proc/{container.pid}/ns/net", "ip", "link", "set", "lo", "up"], check=True)
    cli = start_cli("tcptracer", "--agent", agent.address, "-o", "json", "-p", "cart-0")
    wait_until(lambda: "tcptracer: started" in agent.log.read_text(), "the stream's start")
    (container.bundle / "rootfs/tmp/go").touch()
    wait_until(lambda: "done" in container.log.read_text(), "the workload's end")
    assert container.log.read_text() == "done\n"
    out, err = cli.finish()
    assert "nothing lost" in err
    rows = events(out)
    assert Counter(row["operation"] for row in rows) == {"connect": 101, "accept": 101, "close": 202}
    assert Counter((row["operation"], row["version"]) for row in rows) == {
        ("connect", 6): 13, ("accept", 6): 13, ("close", 6): 26, ("connect", 4): 88, ("accept", 4): 88, ("close", 4): 176,
    }  # fmt: skip
    closes = Counter((row["sent"], row["received"]) for row in rows if row["operation"] == "close")
    assert closes == Counter([(10 * n, 3 * n) for n in range(1, 102)] + [(3 * n, 10 * n) for n in range(1, 102)])
    ends = defaultdict(list)
    for row in rows:
        ends[row["src"]["addr"], row["src"]["port"], row["dst"]["port"]].append(row)
    assert all(
        sorted(row["operation"] for row in rows) in (["close", "connect"], ["accept", "close"])
        for rows in ends.values()
    )
    assert all(row["duration"] >= 0 for row in rows)
