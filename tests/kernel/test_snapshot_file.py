"""`snapshot file`, beside what /proc/PID/fd says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Agent, events, run_cli
from tests.live import inside, known
from tests.pods import BareContainer

#: Files of each type: two that are removed, a memfd, a pipe, a socket, a directory, a device, what has no inode of its
#: own, a name that moves the cursor, one deeper than 40 parts and a long one, a high descriptor, and many of one.
OPENER = r"""
import os, select, socket, sys, time
folder = sys.argv[1]
os.chdir(folder)
kept = [open(name, "w+") for name in ("kept", "removed", "\x1b[2Jodd", "renamed")]
os.link("removed", "link")
os.remove("removed")
os.rename("renamed", "other")
kept += [open("gone", "a"), os.memfd_create("secret"), os.pipe(), socket.socket(), os.open(".", os.O_DIRECTORY),
         open("/dev/null"), select.epoll(), os.eventfd(7)]
os.remove("gone")
for _ in range(45):
    os.mkdir("d")
    os.chdir("d")
kept += [open("deep", "w"), open("x" * 255, "w")]
os.chdir(folder)
for _ in range(6):
    os.mkdir("y" * 250)
    os.chdir("y" * 250)
kept.append(open("long", "w"))
os.dup2(kept[0].fileno(), 1000)
kept[0].seek(4711)
os.write(1, b"done\n")
time.sleep(600)
"""
#: Many descriptors of one file in each of some processes.
HOARDER = r"""
import os, resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
for _ in range(2):
    if not os.fork():
        break
for _ in range(5000):
    os.dup(1)
os.write(1, b"done\n")
time.sleep(600)
"""
SHARE = 8192


@pytest.fixture
def opener(bare: Callable[..., BareContainer], tmp_path: Path) -> Iterator[tuple[BareContainer, int]]:
    """A container, and its process."""
    cart = bare("shop", "cart-0")
    with inside(cart, sys.executable, "-c", OPENER, str(tmp_path), stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"done\n"
        yield cart, process.pid


def shown(agent: Agent, *args: str) -> tuple[list[dict[str, Any]], str]:
    done = run_cli("snapshot", "file", "-n", "shop", "-o", "json", "--agent", agent.address, *args)
    return events(done.stdout), done.stderr


def named(row: dict[str, Any]) -> str:
    """A row's file as /proc names it."""
    if row["type"] in ("pipe", "socket"):
        return f"{row['type']}:[{row['inode']}]"
    if row["path"].startswith("/["):
        return f"anon_inode:{row['path'][1:]}"
    return row["path"] + " (deleted)" * row["deleted"]


def test_files_are_those_of_proc(agent, opener) -> None:
    """Each descriptor is there once, with the name that /proc has for it, its flags and its position."""
    cart, pid = opener
    known(agent, cart)
    rows, told = shown(agent)
    assert "nothing lost" in told
    expected = {int(fd): os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert [row["fd"] for row in rows] == sorted(expected)
    for row in rows:
        name = expected[row["fd"]]
        if row["path"] and row["path"][0] == "…":
            assert name.endswith(row["path"][1:]) and row["path"].count("/") == 40
        else:
            assert named(row) == name
        info = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/fdinfo/{row['fd']}").read_text().splitlines()
            if "\t" in line
        )
        assert row["position"] == int(info["pos"])
        assert row["flags_raw"] == int(info["flags"], 8) & ~0o2000000  # which is the descriptor's, not the file's
        assert row["inode"] == os.stat(f"/proc/{pid}/fd/{row['fd']}").st_ino
    assert {row["type"] for row in rows} >= {"file", "pipe", "socket", "directory", "character device", "other"}
    assert {(row["pod"], row["container"], row["pid"]) for row in rows} == {("cart-0", "app", pid)}


def test_deleted_files(agent, opener) -> None:
    """--deleted-only shows what takes room on the disk without a name: not what was renamed, also if a link is left."""
    cart, _ = opener
    known(agent, cart)
    rows, _ = shown(agent, "--deleted-only")
    # of its standard files one may have no name either
    found = [os.path.basename(row["path"]) for row in rows if row["fd"] > 2]
    assert found == ["removed", "gone", "memfd:secret"]
    done = run_cli("snapshot", "file", "-n", "shop", "--fields", "path", "--agent", agent.address)
    assert r"\x1b[2Jodd" in done.stdout and "\x1b" not in done.stdout


def test_one_that_opens_very_many(agent, bare) -> None:
    """A container that opens a great many files is cut, which is told, and takes no room from others."""
    cart, web = bare("shop", "cart-0"), bare("shop", "web-0")
    known(agent, cart, web)
    with inside(cart, sys.executable, "-c", HOARDER, stdout=subprocess.PIPE) as first, inside(web, "/bin/sleep", "600"):
        assert first.stdout
        try:
            said = [first.stdout.readline() for _ in range(3)]
            assert said == [b"done\n"] * 3, said
            rows, told = shown(agent)
        finally:
            for pid in map(int, (cart.cgroup / "cgroup.procs").read_text().split()):
                os.kill(pid, 9)
    pods = [row["pod"] for row in rows]
    assert (pods.count("cart-0"), pods.count("web-0")) == (
        SHARE,
        len({row["fd"] for row in rows if row["pod"] == "web-0"}),
    )
    assert "; 2 lost: table full on node-a (app 2)." in told
