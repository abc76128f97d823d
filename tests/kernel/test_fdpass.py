"""fdpass on this kernel: files of each type that pass a pair of sockets, with exact counts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.live import rows_of, start_json
from tests.pods import run_in


def test_exact_count(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """Of open files that a process passes to another I see each at both ends, with its type, name and the other end."""
    cli = start_json(start_cli, agent, "fdpass", "--comm", "passes")
    run_in(bare("shop", "cart-0").cgroup, workload("passes"), cwd=tmp_path)
    rows = rows_of(cli)
    kinds = {
        ("file", f"{tmp_path}/passed"): 47,
        ("directory", f"{tmp_path}"): 7,
        ("pipe", ""): 5,
        ("socket", "/UNIX-STREAM"): 3,
        ("file", "/memfd:memo"): 11,
        ("other", "/[eventfd]"): 2,
        ("character device", "/dev/null"): 101,
    }
    seen = Counter((row["operation"], row["type"], row["path"]) for row in rows)
    assert seen == {(way, *kind): count for way in ("send", "receive") for kind, count in kinds.items()}
    assert {(row["peer_comm"], row["peer"]["namespace"], row["peer"]["pod"]) for row in rows} == {
        ("passes", "shop", "cart-0")
    }
    sent, received = ({row["inode"] for row in rows if row["operation"] == way} for way in ("send", "receive"))
    assert len(sent) == 7
    assert sent == received
    sender, receiver = ({row["pid"] for row in rows if row["operation"] == way} for way in ("send", "receive"))
    assert {row["peer_pid"] for row in rows} == sender
    assert len(sender) == len(receiver) == 1
    assert sender != receiver
