"""What the agent says at its start, before it has done anything."""

from __future__ import annotations

import json
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from agent.logs import JsonFormatter
from agent.rights import require_rights
from gadget.errors import NoRights

SAY = "import logging; from agent.logs import log_to_stderr; log_to_stderr('info'); logging.getLogger('agent').warning('low %s', chr(27) + '[2J')"


def test_log_on_a_terminal() -> None:
    """On a terminal I read the agent's log as text."""
    terminal, end = pty.openpty()
    subprocess.run([sys.executable, "-c", SAY], stderr=end, check=True)
    os.close(end)
    said = os.read(terminal, 1024).decode()
    os.close(terminal)
    assert said.endswith(" warning agent: low \\x1b[2J\r\n")


def test_log_in_a_file() -> None:
    """Elsewhere, as in a pod, each line is JSON."""
    done = subprocess.run([sys.executable, "-c", SAY], stderr=subprocess.PIPE, text=True, check=True)
    entry = json.loads(done.stderr)
    assert (entry["level"], entry["logger"], entry["message"]) == ("warning", "agent", "low \x1b[2J")


def test_log_of_an_error() -> None:
    """The traceback of an unexpected error stays in its own line."""
    try:
        raise ValueError("bad")
    except ValueError:
        record = logging.LogRecord("agent", logging.ERROR, "", 1, "it failed", (), sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["exception"].endswith("ValueError: bad")


@pytest.mark.parametrize(
    ("capabilities", "lacks"),
    [
        (["CAP_BPF", "CAP_PERFMON", "CAP_DAC_READ_SEARCH"], ""),
        (["CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH"], ""),
        (["CAP_SYS_ADMIN"], "CAP_DAC_READ_SEARCH (finds the cgroup of an event)"),
        (["CAP_BPF", "CAP_DAC_READ_SEARCH"], "CAP_PERFMON (attaches them)"),
    ],
)
def test_rights(tmp_path: Path, capabilities: list[str], lacks: str) -> None:
    """An agent that lacks a capability says which, what it is for, and what to do; its exit code tells deploy."""
    numbers = {"CAP_BPF": 39, "CAP_PERFMON": 38, "CAP_DAC_READ_SEARCH": 2, "CAP_SYS_ADMIN": 21}
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nCapEff:\t{sum(1 << numbers[name] for name in capabilities):016x}\n")
    if not lacks:
        require_rights(status)
        return
    with pytest.raises(NoRights) as refused:
        require_rights(status)
    assert str(refused.value) == f"the agent lacks {lacks}: run it as root"
    assert refused.value.exit_code == 77
