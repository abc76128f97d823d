"""biotop on this kernel: exact requests and bytes of a disk, as the kernel's own statistics of it have them."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from tests import disks
from tests.live import ROOT, rows_of, start_json
from tests.pods import run_in

USER = "import sys; from pathlib import Path; from tests import disks; disks.use(Path(sys.argv[1])); print('done')"


def test_bytes_as_the_kernel_counts(agent, start_cli, bare, tmp_path: Path) -> None:
    """Of requests to a disk I see by process how many there were, their bytes as /proc/diskstats has them, and how long they took."""
    with disks.disk(tmp_path) as device:
        cli = start_json(
            start_cli, agent, "biotop", "-p", "cart-0", "--interval", "100ms", "--filter", f"device=={device.name}"
        )
        before = disks.moved(device)
        run_in(bare("shop", "cart-0").cgroup, sys.executable, "-c", USER, str(device), cwd=ROOT)
        after = disks.moved(device)
        rows = rows_of(cli)
    seen = {each: Counter[str]() for each in ("read", "write")}
    for row in rows:
        if row["operation"] in seen:
            seen[row["operation"]].update({each: row[each] for each in ("requests", "errors", "bytes")})
        assert row["time"] >= row["longest"] > 0
        assert row["longest"] * row["requests"] >= row["time"]
    for name, (count, size) in (("read", disks.READS), ("write", disks.WRITES)):
        assert seen[name] == Counter(requests=count, errors=0, bytes=count * size)
    assert (seen["read"]["bytes"], seen["write"]["bytes"]) == (after[0] - before[0], after[1] - before[1])
    assert len({row["pid"] for row in rows}) == 1
