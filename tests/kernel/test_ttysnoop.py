"""ttysnoop on this kernel: exact counts, real sessions, what is escaped and what is masked."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CLI, run_cli, wait_until
from tests.live import rows_of, start_json
from tests.pods import run_in
from tests.terminal import Terminal

LARGE = "x" * 4096
PRINTED = {
    ("plain\n", 6, False): 101,
    (LARGE, 10_000, True): 3,
    (LARGE, 4096, False): 2,
    (LARGE, 6000, True): 1,
    ("\\xff café \\xc3", 9, False): 11,
    ("\33[2J\33]0;title\7\r\n", 16, False): 13,
    ("one two\n", 8, False): 7 + 5,
    ("abcdefghijklmnop", 20, True): 1,
    ("", 6, True): 17 + 19,
}
SESSION = r"""
echo plain; printf 'no end'; printf '\033[1mbold\033[0m caf\303\251\n'; echo error >&2
ls -la --color=always /etc | head -100; seq 1000; python -c 'print("x" * 3000)'; python -c 'print("long " * 3000)'
echo to a file > /dev/null; echo through a pipe | cat > /dev/null; echo /dev/tty > /dev/tty
"""


def test_exact_count(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """Of all that a program writes to a terminal I see each call, with terminal and text; of files, pipes and what
    failed I see none.
    """
    cli = start_json(start_cli, agent, "ttysnoop", "--comm", "prints")
    run_in(bare("shop", "cart-0").cgroup, workload("prints"), cwd=tmp_path)
    rows = rows_of(cli)
    own = [row for row in rows if row["tty"] == "tty"]
    assert Counter(row["data"] for row in own) == {"own\n": 23}
    rest = [row for row in rows if row["tty"] != "tty"]
    assert Counter((row["data"], row["bytes"], row["truncated"]) for row in rest) == PRINTED
    assert len({row["tty"] for row in rest}) == 1
    assert re.fullmatch(r"pts/\d+", rest[0]["tty"])
    assert {row["operation"] for row in rows} == {"write"}
    assert {(row["namespace"], row["pod"], row["pid"]) for row in rows} == {("shop", "cart-0", rows[0]["pid"])}


def test_input(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """With --input I also see what is typed without echo, once, and without it I do not."""
    cli = start_json(start_cli, agent, "ttysnoop", "--comm", "prints", "--input")
    run_in(bare("shop", "cart-0").cgroup, workload("prints"), cwd=tmp_path)
    rows = rows_of(cli)
    read = [row for row in rows if row["operation"] == "read"]
    assert Counter((row["data"], row["bytes"]) for row in read) == {("secret\n", 7): 31 + 3}
    assert sum(row["operation"] == "write" for row in rows) == sum(PRINTED.values()) + 23


def test_filter(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """I can ask for one terminal by its name."""
    cli = start_json(start_cli, agent, "ttysnoop", "--comm", "prints", "--filter", "tty==tty")
    run_in(bare("shop", "cart-0").cgroup, workload("prints"), cwd=tmp_path)
    assert [row["data"] for row in rows_of(cli)] == ["own\n"] * 23


def test_exec(agent, start_cli, make_pod) -> None:
    """Of a session that somebody has in a container, as by `kubectl exec -it`, I see what its programs print."""
    container = make_pod("shop", "cart-0").container("app", "/bin/sleep", "600")
    cli = start_json(start_cli, agent, "ttysnoop", "-n", "shop")
    script = "echo hello; echo typed > /tmp/file; cat /tmp/file; echo kept > /tmp/other"
    with Terminal("runc", "exec", "--tty", container.id, "/bin/sh", "-c", script) as terminal:
        assert terminal.wait() == 0
    rows = rows_of(cli)
    seen = [(row["comm"], row["tty"], row["data"], row["bytes"]) for row in rows]
    # busybox's cat prints by sendfile, if it can
    assert seen in (
        [("sh", "pts/0", "hello\n", 6), ("cat", "pts/0", "", 6)],
        [("sh", "pts/0", "hello\n", 6), ("cat", "pts/0", "typed\n", 6)],
    )
    assert {(row["pod"], row["container"]) for row in rows} == {("cart-0", "app")}


def test_same_as_script(agent, start_cli, bare, tmp_path: Path) -> None:
    """The text of a session is, byte by byte, what script(1) recorded of it; of more than 4,096 bytes at once, as a pipe
    may bring them, it is these first ones, and I see how many there were.
    """
    container = bare("shop", "cart-0")
    cli = start_json(start_cli, agent, "ttysnoop")
    (tmp_path / "session").write_text(SESSION.replace("python", sys.executable))
    with (container.cgroup / "cgroup.procs").open("w") as procs:
        command = [
            "script",
            "--quiet",
            "--command",
            f"sh {tmp_path}/session",
            "--log-out",
            str(tmp_path / "typescript"),
        ]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: procs.write("0") and procs.flush(),
        ) as session:  # standard input stays open: its end would be typed
            assert session.wait(60) == 0
    recorded = (tmp_path / "typescript").read_bytes().partition(b"\n")[2].rpartition(b"\nScript done")[0]
    left = recorded.replace(b"\r\n", b"\n")  # the terminal added the carriage returns
    assert len(left) > 25_000
    rows = [row for row in rows_of(cli) if row["containerId"] == container.id]
    rows.sort(key=lambda row: row["timestamp"])  # those of two rings may come in another order
    for row in rows:
        printed, left = left[: row["bytes"]], left[row["bytes"] :]
        assert row["data"].encode() == printed[:4096]
        assert row["truncated"] == (len(printed) > 4096)
    assert not left
    assert any(row["truncated"] for row in rows)


def test_escapes(agent, bare, workload, tmp_path: Path) -> None:
    """What a program prints does not move the cursor of my terminal, which has 80 columns; I can read it."""
    command = [str(CLI), "ttysnoop", "--agent", agent.address, "--comm", "prints"]
    with Terminal(*command, columns=80) as terminal:
        wait_until(lambda: "ttysnoop: started" in agent.log.read_text(), "the stream's start")
        run_in(bare("shop", "cart-0").cgroup, workload("prints"), cwd=tmp_path)
        wait_until(lambda: terminal.raw.count(r"own\n") == 23, "the last rows")
        terminal.process.terminate()
        terminal.wait()
    assert "title\x07" not in terminal.raw
    assert "\x1b[2J" not in terminal.raw
    shown = [line for line in terminal.lines if "title" in line]
    assert len(shown) == 13
    assert all(r"\x1b[2J\x1b]0;title\x07\r\n" in line and len(line) <= 80 for line in shown)


def test_redact(start_agent: Callable[..., Any], start_cli, bare, workload, tmp_path: Path) -> None:
    """What matches --redact of the agent is masked in what programs print; --input is refused there in one line."""
    agent = start_agent("--redact", "(?<=pl)ai", "--redact", "x+")
    refused = run_cli("ttysnoop", "--agent", agent.address, "--input")
    assert refused.returncode != 0
    assert "--input of ttysnoop shows what cannot be masked: this agent has --redact" in refused.stderr
    cli = start_json(start_cli, agent, "ttysnoop", "--comm", "prints")
    run_in(bare("shop", "cart-0").cgroup, workload("prints"), cwd=tmp_path)
    seen = Counter(row["data"] for row in rows_of(cli))
    assert seen["pl**n\n"] == 101
    assert seen["*" * 4096] == 6
    assert seen["own\n"] == 23
    assert not any("x" in data.replace("\\x", "") for data in seen)


@pytest.mark.parametrize("host", [False, True])
def test_host(agent, start_cli, workload, host: bool) -> None:
    """Terminals of programs outside containers are shown only with --host."""
    cli = start_json(start_cli, agent, "ttysnoop", "--comm", "prints", *["--host"] * host)
    subprocess.run([workload("prints")], check=True, capture_output=True)
    assert len(rows_of(cli)) == (sum(PRINTED.values()) + 23) * host
