"""`memtop`, beside the files of the container's cgroup, in the version that this machine has."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import events, wait_until
from tests.pods import CGROUPS, UNIFIED

LIMIT = 48 << 20
#: Fills a file in memory, then begins a program that wants more than the limit and is killed; waits, and ends.
WORK = """
cd /dev/shm; busybox dd if=/dev/zero of=full bs=1M count=8 2>/dev/null
busybox dd if=/dev/zero of=/dev/null bs=200M count=1 2>/dev/null
echo killed; while [ ! -e over ]; do sleep 0.01; done
"""


def counted(cgroup: str) -> tuple[int, int, int]:
    """What the kernel says of a cgroup: limit, cache, processes killed."""
    first = CGROUPS / "memory" / cgroup.lstrip("/")
    folder = first if first.exists() else UNIFIED / cgroup.lstrip("/")
    names = ("memory.limit_in_bytes", "total_cache", "memory.oom_control") if first.exists() else (
        "memory.max", "file", "memory.events"
    )  # fmt: skip

    def of(file: str, name: str) -> int:
        pairs = dict(line.split() for line in (folder / file).read_text().splitlines())
        return int(pairs[name])

    return int((folder / names[0]).read_text()), of("memory.stat", names[1]), of(names[2], "oom_kill")


def test_memory_of_a_container(agent, start_cli, make_pod, tmp_path: Path) -> None:
    """I see what the container's cgroup counts, its limit and who was killed; when it ends it is in the table once more, as it was last."""
    pod = make_pod("shop", "cart-0")
    container = pod.container("app", "/bin/sh", "-c", WORK, memory=LIMIT)
    wait_until(lambda: "killed" in container.log.read_text(), "the end of the large one")
    shown = tmp_path / "shown"
    with shown.open("w") as file:
        options = ("-n", "shop", "--interval", "100ms", "-o", "json", "--agent", agent.address)
        cli = start_cli("memtop", *options, stdout=file)
    limit, cache, killed = counted(container.cgroup)
    assert (limit, killed) == (LIMIT, 1) and cache >= 8 << 20
    wait_until(lambda: "app" in shown.read_text(), "a table")
    Path(f"/proc/{container.pid}/root/dev/shm/over").touch()
    container.wait()
    container.delete()
    wait_until(lambda: '"ended":true' in shown.read_text(), "its last row")
    err = cli.finish()[1]
    assert "nothing lost" in err
    rows = [row for row in events(shown.read_text()) if row["container"] == "app"]
    assert {(row["limit"], row["oom_kill"]) for row in rows} == {(LIMIT, 1)}
    assert 8 << 20 <= rows[0]["cache"] <= rows[0]["usage"] + (1 << 20) and rows[0]["max"]
    assert [row["ended"] for row in rows] == [False] * (len(rows) - 1) + [True]
    assert rows[-1]["usage"] == rows[-2]["usage"]
