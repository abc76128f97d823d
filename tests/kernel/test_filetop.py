"""filetop on this kernel: exact calls and bytes of each file, by its path."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.live import rows_of, start_json
from tests.pods import BareContainer, run_in

#: Two processes; what they do to each file is COUNTS.
WORKER = """
import os
os.makedirs("deep/" + "d" * 200 + "/" + "e" * 100)
long = os.open("deep/" + "d" * 200 + "/" + "e" * 100 + "/file", os.O_RDWR | os.O_CREAT)
one, two, three = (os.open(name, os.O_RDWR | os.O_CREAT) for name in ("one", "two", "three"))
ends = os.pipe()
for _ in range(10_007):
    os.write(one, b"x" * 7)
for _ in range(503):
    os.pread(one, 11, 0)
os.pwritev(two, [b"y" * 1000, b"y" * 24], 0)
for _ in range(5):
    os.sendfile(two, one, 0, 3)
for _ in range(3):
    os.copy_file_range(one, three, 100, 0)
for _ in range(13):
    os.write(ends[1], b"no file")
    os.read(ends[0], 7)
os.write(long, b"z" * 2)
try:
    os.read(os.open("one", os.O_WRONLY), 100)
except OSError:
    pass
if not os.fork():
    os.write(two, b"child")
    os._exit(0)
os.wait()
print("done")
"""
LONG = "…/" + "e" * 100 + "/file"
#: By path, of two processes each: reads, writes, read, written
COUNTS = {
    "one": (503 + 5 + 3, 10_007, 503 * 11 + 15 + 300, 70_049),
    "two": (0, 1 + 5 + 1, 0, 1024 + 15 + 5),
    "three": (0, 3, 0, 300),
    LONG: (0, 1, 0, 2),
}


@pytest.mark.parametrize("totals", [False, True])
def test_exact_bytes(agent, start_cli, bare, tmp_path: Path, totals: bool) -> None:
    """Of files I see by process and path exactly how many reads and writes there were, and their bytes."""
    options = ["--totals"] if totals else []
    cli = start_json(start_cli, agent, "filetop", "-p", "cart-0", "--interval", "100ms", *options)
    run_in(bare("shop", "cart-0").cgroup, sys.executable, "-c", WORKER, cwd=tmp_path)
    rows = rows_of(cli)
    if totals:
        last = max(row["timestamp"] for row in rows)
        rows = [row for row in rows if row["timestamp"] == last]
    own = [row for row in rows if row["path"].startswith((str(tmp_path), "…"))]
    sums = {each: Counter[str]() for each in COUNTS}
    for row in own:
        for each in ("reads", "writes", "read", "written"):
            sums[row["path"].removeprefix(f"{tmp_path}/")][each] += row[each]
    seen = {path: (each["reads"], each["writes"], each["read"], each["written"]) for path, each in sums.items()}
    assert seen == COUNTS
    assert len({row["pid"] for row in own}) == 2
    assert {row["inode"] for row in own if row["path"].endswith("/one")} == {(tmp_path / "one").stat().st_ino}
    assert not [row for row in rows if "pipe" in row["path"]]


def test_greatest_first(agent, start_cli, tmp_path: Path) -> None:
    """A container that is gone is in the table of its last interval once more; what wrote most comes first."""
    cart = BareContainer("shop", "cart-0")
    try:
        cli = start_json(start_cli, agent, "filetop", "-p", "cart-0", "--interval", "10m", "--top", "2")
        run_in(cart.cgroup, sys.executable, "-c", WORKER, cwd=tmp_path)
    finally:
        cart.delete()
    assert [(Path(row["path"]).name, row["written"], row["pod"]) for row in rows_of(cli)] == [
        ("one", 70_049, "cart-0"),
        ("two", 1039, "cart-0"),
    ]
