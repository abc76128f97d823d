"""What is shown while `--duration` passes."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

PROGRAM = "from kubectl_gadget.advise import commands; commands.TICK_SECONDS = 0.05; commands._wait(0.3); print('done')"


def test_progress() -> None:
    """On a terminal I see for how long I still wait, and nothing of it is left afterwards."""
    terminal, own = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=own) as waiting:
        os.close(own)
        out, _ = waiting.communicate(timeout=30)
    shown = os.read(terminal, 65_536).decode()
    os.close(terminal)
    assert out == b"done\n"
    assert "watching for 0 s, 0 s more" in shown
    assert shown.endswith("\x1b[1A\r\x1b[J")


def test_no_progress_in_a_pipe() -> None:
    """In a script nothing is shown but the result."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("done\n", "")
