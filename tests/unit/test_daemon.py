"""How a daemon ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: The signal comes to a thread that waits in the kernel, as any may get it; the main thread has begun to wait long before.
ELSEWHERE = """
import signal, threading, time
from agent.daemon import Stopped
stopped = Stopped()
other = threading.Thread(target=time.sleep, args=(60,), daemon=True)
other.start()
threading.Timer(0.2, lambda: signal.pthread_kill(other.ident, signal.{number})).start()
stopped.wait()
print("ended")
"""


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_signal_to_another_thread(number: str) -> None:
    """An agent that is told to end does so, whichever of its threads the kernel chose to tell."""
    script = ELSEWHERE.format(number=number)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "ended\n", done.stderr


def test_signal_before_the_wait() -> None:
    """An agent that is told to end while it still begins ends as soon as it has begun."""
    script = ELSEWHERE.format(number="SIGTERM").replace("stopped.wait()", "time.sleep(1)\nstopped.wait()")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "ended\n", done.stderr
