"""The page of `map`: how soon 1,000 workloads and 20,000 edges are painted, and what its server costs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kubectl_gadget.map.server import MapServer
from kubectl_gadget.page import document
from tests.bench import Figure, Goal, Plan
from tests.browser import Page, browser
from tests.unit.map.flows import CART, ENDED, WEB, edges, large, row

EDGES = 20_000
FLOWS = 20_000
#: From the address to a picture of all edges; 0 as long as there is none.
PAINTED = """new Promise((resolve) => {
  const look = () => {
    if (!document.querySelector("#sum")?.textContent.startsWith("%s pairs")) return requestAnimationFrame(look);
    requestAnimationFrame(() => setTimeout(() => resolve(performance.now())));
  };
  look();
})"""
#: The memory of a process with all that it may keep, beside one with nothing, in MiB.
KEPT = """
import os
from tests.unit.map.flows import edges, large
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
edges()
before = resident()
kept = large()
print(resident() - before)
"""


def measure(plan: Plan) -> Iterator[Figure]:
    """Of the page in a real Chromium, and of the command."""
    if shutil.which("chromium"):
        painted, memory = zip(*(_painted() for _ in range(plan.rounds)), strict=True)
        what = "1,000 workloads and 20,000 edges"
        yield Figure(f"{what}, painted after", "s", [*painted], goal=Goal(2))
        yield Figure(f"{what}, memory of the page's process", "MiB", [*memory], goal=Goal(300))
    else:
        yield Figure("the page", "", [], why="chromium is not there")
    yield Figure("CPU of the command for a flow", "µs", [_cpu() for _ in range(plan.rounds)])
    yield Figure(
        "memory of the command for 20,000 edges with 40,000 flows", "MiB", [_kept() for _ in range(plan.rounds)]
    )


def _painted() -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as page:
        page.look(1440, 900)
        with MapServer(0, document("Flows", live=True)) as server:
            server.edges = large()
            page.go(server.url)
            seconds = _wait(page) / 1000
            return seconds, _renderer(Path(folder))


def _renderer(folder: Path) -> float:
    """The memory of a browser's largest process that draws a page, its part of what it shares, in MiB."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_text().replace("\0", " ").split()
            if "--type=renderer" in words and any(word.startswith(f"--user-data-dir={folder}") for word in words):
                rollup = (process / "smaps_rollup").read_text()
                found.append(int(next(line.split()[1] for line in rollup.splitlines() if line.startswith("Pss:"))))
    return max(found) / 1024


def _wait(page: Page) -> float:
    milliseconds = page.run(PAINTED % f"{EDGES:,}")
    assert isinstance(milliseconds, int | float)
    return float(milliseconds)


def _cpu() -> float:
    of, pairs = (
        edges(),
        [(WEB._replace(name=f"web{at % 100}"), CART._replace(name=f"cart{at % 37}")) for at in range(FLOWS // 2)],
    )
    rows = [
        each for source, target in pairs for each in (row(src=source, dst=target), row(src=source, dst=target, **ENDED))
    ]
    began = time.process_time()
    for at in range(0, len(rows), 100):
        of.write(rows[at : at + 100])
    return (time.process_time() - began) / len(rows) * 1e6


def _kept() -> float:
    done = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, text=True, check=True, env=os.environ)
    return float(done.stdout)
