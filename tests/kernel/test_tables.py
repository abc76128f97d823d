"""Gadgets that count, and gadgets that tell how things are: each in a folder of its own, run from a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Agent, events, run_cli, wait_until
from tests.kernel.scratch import copy_project, run
from tests.live import inside, known
from tests.pods import BareContainer

GADGETS = Path(__file__).parents[1] / "gadgets"
#: Children that each write so often so much, to where nobody reads, once it is told to begin.
WRITER = """
import os, sys
children, writes, size = map(int, sys.argv[1:])
sys.stdin.read()
to = os.open("/dev/null", os.O_WRONLY)
for _ in range(children):
    if not os.fork():
        for _ in range(writes):
            os.write(to, b"x" * size)
        os._exit(0)
    os.wait()
"""
FEW = 64


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with three more gadgets: `few` is `writes` with room for few rows."""
    folder = tmp_path_factory.mktemp("tables") / "project"
    copy_project(folder)
    for each in ("writes", "processes"):
        shutil.copytree(GADGETS / each, folder / "bpf" / each)
    (folder / "bpf/few").mkdir()
    shutil.copy(GADGETS / "writes/gadget.toml", folder / "bpf/few")
    source = (GADGETS / "writes/writes.bpf.c").read_text()
    (folder / "bpf/few/few.bpf.c").write_text(f"#define ENTRIES {FEW}\n{source}")
    built = run(folder, str(folder / "hatch_build.py"))
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture
def scratch(project: Path, monkeypatch: pytest.MonkeyPatch, start_agent: Callable[..., Agent]) -> Agent:
    """An agent of that project; commands are of it, too."""
    monkeypatch.setenv("PYTHONPATH", str(project))
    return start_agent()


def write_in(container: BareContainer, *numbers: int) -> None:
    command = [sys.executable, "-c", WRITER, *map(str, numbers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.stdin
        # from outside: a process that moves itself is in the container when its write ends
        (container.cgroup / "cgroup.procs").write_text(str(process.pid))
        process.stdin.close()
        assert process.wait(60) == 0


def begun(agent: Agent, gadget: str) -> None:
    wait_until(lambda: f"{gadget}: started" in agent.log.read_text(), "the stream's start")


def sums(rows: list[dict[str, Any]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for row in rows:
        total["writes"] += row["writes"]
        total["bytes"] += row["bytes"]
    return total


def test_tables_add_up(scratch, start_cli, bare) -> None:
    """Each write is in one table and no more, however intervals cut what happens: the tables add up to all of it."""
    cart, web = bare("shop", "cart-0"), bare("web", "web-0")
    known(scratch, cart, web)
    command = ("writes", "-n", "shop", "--interval", "100ms", "-o", "json", "--agent", scratch.address)
    cli = start_cli(*command)
    begun(scratch, "writes")
    for _ in range(3):
        write_in(cart, 5, 20_011, 7)
    write_in(web, 1, 11, 3)
    out, err = cli.finish()
    rows = events(out)
    assert sums(rows) == {"writes": 3 * 5 * 20_011, "bytes": 3 * 5 * 20_011 * 7}
    assert {row["pod"] for row in rows} == {"cart-0"}
    times = {row["timestamp"] for row in rows}
    assert len({(row["timestamp"], row["pid"]) for row in rows}) == len(rows)
    assert len(times) > 3
    assert err.startswith(f"{len(rows)} rows in ")
    assert err.endswith("; nothing lost.\n")


def test_others_watch(scratch, start_cli, bare) -> None:
    """Who ends while others watch the same has all that happened up to then, and the others have it once."""
    cart = bare("shop", "cart-0")
    known(scratch, cart)
    command = ("writes", "-n", "shop", "--interval", "10m", "-o", "json", "--agent", scratch.address)
    first = start_cli(*command)
    begun(scratch, "writes")
    second = start_cli(*command)
    wait_until(lambda: scratch.log.read_text().count("writes: started") == 2, "the second stream's start")
    write_in(cart, 3, 1_009, 7)
    assert sums(events(second.finish()[0])) == {"writes": 3_027, "bytes": 21_189}
    write_in(cart, 1, 11, 1)
    assert sums(events(first.finish()[0])) == {"writes": 3_038, "bytes": 21_200}


def test_totals_grow(scratch, start_cli, bare) -> None:
    """With --totals the last table has all sums, also of processes that have ended."""
    cart = bare("shop", "cart-0")
    known(scratch, cart)
    command = ("writes", "--totals", "-n", "shop", "--interval", "100ms", "-o", "json", "--agent", scratch.address)
    cli = start_cli(*command)
    begun(scratch, "writes")
    for _ in range(3):
        write_in(cart, 2, 5_003, 3)
    rows = events(cli.finish()[0])
    last = max(row["timestamp"] for row in rows)
    assert sums([row for row in rows if row["timestamp"] == last]) == {"writes": 30_018, "bytes": 90_054}


def test_full_table(scratch, start_cli, bare) -> None:
    """A container that fills the table loses its own rows, none of another's, and is named for it."""
    cart, web = bare("shop", "cart-0"), bare("web", "web-0", "quiet")
    known(scratch, cart, web)
    cli = start_cli("few", "--interval", "10m", "-o", "json", "--agent", scratch.address)
    begun(scratch, "few")
    write_in(cart, 71, 3, 1)
    write_in(web, 5, 2, 1)
    out, err = cli.finish()
    seen = Counter((row["pod"], row["writes"]) for row in events(out))
    assert seen == {("cart-0", 3): FEW // 2 + 1, ("web-0", 2): 5}
    lost = (71 - FEW // 2 - 1) * 3
    assert f"; {lost} lost: table full on node-a (app {lost})." in err


def test_sort_and_top(scratch, start_cli, bare) -> None:
    """--sort and --top show the rows that I ask for, the greatest first; --count ends the command."""
    cart = bare("shop", "cart-0")
    known(scratch, cart)
    options = ("--interval", "2s", "--sort=-writes", "--top", "2", "--count", "1", "--fields", "bytes")
    cli = start_cli("writes", "-n", "shop", *options, "--agent", scratch.address)
    begun(scratch, "writes")
    for writes in (5, 11, 3, 7):
        write_in(cart, 1, writes, 1)
    out, err = cli.finish(0)
    assert out.split() == ["BYTES", "11", "7"]
    assert re.match(r"2 rows in 1 table from 1 node", err)


def test_bad_sort(project, monkeypatch) -> None:
    """A field to sort by that does not exist is refused with the one that I meant."""
    monkeypatch.setenv("PYTHONPATH", str(project))
    done = run_cli("writes", "--sort", "-byte", "--local")
    assert (done.returncode, done.stderr) == (2, "error: --sort: unknown field 'byte': did you mean bytes?\n")


def test_interval_of_the_agent(scratch) -> None:
    """An interval that would cost more than it tells is refused."""
    done = run_cli("writes", "--interval", "1ms", "--agent", scratch.address)
    assert done.returncode != 0
    assert "--interval: from 100ms to 24h" in done.stderr


def test_snapshot(scratch, bare) -> None:
    """A snapshot has each process that runs in the containers I ask for, and no other, and then ends."""
    cart, web = bare("shop", "cart-0"), bare("web", "web-0")
    known(scratch, cart, web)
    command = ("processes", "-n", "shop", "-o", "json", "--agent", scratch.address)
    with (
        inside(cart, "/bin/sleep", "600") as one,
        inside(cart, "/bin/cat", "/dev/zero") as two,
        inside(web, "/bin/sleep", "600"),
    ):
        os.kill(two.pid, signal.SIGSTOP)
        done = run_cli(*command)
        rows = events(done.stdout)
        assert done.returncode == 0
        assert [row["pid"] for row in rows] == sorted([one.pid, two.pid])
        assert {(row["pod"], row["parent"], row["uid"]) for row in rows} == {("cart-0", os.getpid(), 0)}
        assert len({row["timestamp"] for row in rows}) == 1
        assert [row["pid"] for row in events(run_cli(*command, "--comm", "sleep").stdout)] == [one.pid]
        assert [row["pid"] for row in events(run_cli(*command, "--pid", str(two.pid)).stdout)] == [two.pid]
        assert done.stderr.startswith("2 rows in 1 table from 1 node, 1 container")


def test_snapshots_at_an_interval(scratch, bare) -> None:
    """With --interval there is a snapshot at once, and then one each time."""
    cart = bare("shop", "cart-0")
    known(scratch, cart)
    with inside(cart, "/bin/sleep", "600") as one:
        done = run_cli(
            "processes", "-n", "shop", "-o", "json", "--interval", "100ms", "--count", "3", "--agent", scratch.address
        )
    rows = events(done.stdout)
    assert [row["pid"] for row in rows] == [one.pid] * 3
    assert len({row["timestamp"] for row in rows}) == 3
