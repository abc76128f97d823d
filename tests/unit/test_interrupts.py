"""Ctrl-C, where Python alone would not hear it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kubectl_gadget import interrupts
from kubectl_gadget.stream.begin import stops

#: A library that drops the error, and one that does not come back.
DROPPED = """
import signal, weakref
class Thing: pass
thing = Thing()
reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
del thing
signal.sigwait([signal.SIGUSR1])
"""
IN_A_CALL = """
import ctypes, os, signal
lock, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
libc.pthread_mutex_lock(lock)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
import threading
threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
libc.pthread_mutex_lock(lock)
"""
IN_ORDER = """
import signal
interrupts.set_in_order(True)
interrupts.HEARD_SECONDS = 0
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    signal.sigtimedwait([signal.SIGUSR1], 0.3)
    print("the last line")
"""


IN_AN_IMPORT = """
import sys
sys.path.insert(0, {folder!r})
try:
    import within
except RuntimeError as error:
    print(error)
"""
WITHIN = """
import signal
class Named:
    def __set_name__(self, owner, name):
        signal.raise_signal(signal.SIGINT)
class Owner:
    named = Named()
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    program = f"from kubectl_gadget import interrupts\ninterrupts.watch()\n{program}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=False)


@pytest.mark.parametrize("program", [DROPPED, IN_A_CALL], ids=["dropped", "in a call"])
def test_ctrl_c_that_python_does_not_hear(program: str) -> None:
    """Ctrl-C ends a command also while a library drops it, or does not come back from a call."""
    assert run(program).returncode == interrupts.INTERRUPTED


def test_ctrl_c_in_an_import(tmp_path: Path) -> None:
    """Ctrl-C while a command is still being imported ends it without a word, whatever the import makes of errors."""
    (tmp_path / "within.py").write_text(WITHIN)
    done = run(IN_AN_IMPORT.format(folder=str(tmp_path)))
    assert (done.returncode, done.stdout, done.stderr) == (interrupts.INTERRUPTED, "", "")


def test_ctrl_c_in_order() -> None:
    """A command that has something to say behind Ctrl-C says it, however long that takes."""
    done = run(IN_ORDER)
    assert (done.returncode, done.stdout) == (0, "the last line\n")


class Unstopped:
    """Runs that nobody is to stop."""

    has_begun = True

    def stop(self, waits: bool = False) -> None:
        raise AssertionError("stopped")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ignored(number: signal.Signals) -> None:
    """A stream behind nohup, or in the background of a script, goes on whatever the terminal does."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with stops(Unstopped(), 0.0):
            assert signal.getsignal(number) == signal.SIG_IGN
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)
