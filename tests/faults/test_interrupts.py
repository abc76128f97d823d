"""Ctrl-C, at any moment of any command that takes its time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from agent.bpf.bpffs import mount_bpffs
from tests.conftest import CLI, Agent, run_cli

#: How often each command is interrupted; CI has less time than who looks for the last fault.
INTERRUPTS = int(os.environ.get("INTERRUPTS", "5"))
#: When: from the interpreter's first moments to a stream that has been going on for a while.
LATEST_SECONDS = 1.5
#: What is promised, and what a busy machine may add to that for one in ten.
END_SECONDS, BUSY_SECONDS = 1.0, 4.0

COMMANDS = (
    ("execsnoop", "-A"),
    ("opensnoop", "-A", "--host", "-o", "json"),
    ("opensnoop", "-A", "--host", "--count-by", "comm"),
    ("containers", "-w"),
    ("traceloop", "show", "busy", "-f"),
    ("traceloop", "list"),
    ("attach", "opens", "-f"),
    ("why", "-A"),
    ("advise", "network-policy", "monitor", "--output", "/dev/null"),
    ("status",),
    ("story", "-A"),
    ("detect", "-A"),
    ("observe", "-A", "-f"),
    ("map", "-A", "--no-open"),
    ("profile", "-A", "--duration", "0"),
    ("cputop", "-A"),
    ("hubble", "serve", "--listen", "127.0.0.1:0"),
)


@pytest.fixture
def everything(start_agent, bpffs: Path, tmp_path: Path, bare) -> Agent:
    """An agent with all that commands can be about."""
    mount_bpffs(bpffs)
    agent: Agent = start_agent("--bpffs", str(bpffs), "--state", str(tmp_path / "state"))
    bare("busy")
    done = run_cli("opensnoop", "-A", "--host", "--detach", "--name", "opens", "--agent", agent.address)
    assert done.returncode == 0, done.stderr
    return agent


@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command[:2]))
def test_interrupts(everything: Agent, command: tuple[str, ...], figure) -> None:
    """Ctrl-C ends every command within a second, whenever it comes, without a traceback of ours."""
    chance, took = random.Random(str(command)), []
    for _ in range(INTERRUPTS):
        process = subprocess.Popen(
            [CLI, *command, "--agent", everything.address], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        time.sleep(chance.uniform(0, LATEST_SECONDS))  # any moment is to do
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        try:
            _, said = process.communicate(timeout=BUSY_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise AssertionError(f"still there after {BUSY_SECONDS} s") from None
        took.append(time.monotonic() - began)
        assert "kubectl_gadget/" not in said, said  # what the interpreter says before it has our first line is its own
    figure("slowest, and the rest", f"{max(took):.2f} s, {sorted(took)[len(took) // 2]:.2f} s in the middle")
    assert sum(each > END_SECONDS for each in took) <= len(took) / 10
