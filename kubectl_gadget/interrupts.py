"""Ctrl-C ends a command within a second, whatever the command is doing.

Python's KeyboardInterrupt alone does not. It is lost in callbacks of the interpreter, of which imports of modules have
many, and in libraries that drop errors. It does not come as long as a call does not return, such as getaddrinfo. So a
thread hears of signals, too, and ends the process if nothing else has.

Where a module is being imported, nothing has been shown yet and no error is raised at all: libraries in C take it for
another error, or crash.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any, NoReturn

#: How long a command may take to end by a KeyboardInterrupt.
HEARD_SECONDS = 0.5
#: The exit code of a command that Ctrl-C ended.
INTERRUPTED = 130
#: What is no number of a signal.
_SOON = b"\0"
#: Signals that ask a command to end.
ENDS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
#: The file of the code that imports modules.
_IMPORTING = "<frozen importlib._bootstrap>"
_pipe: int | None = None
_in_order = False
_heard = threading.Event()


def watch() -> None:
    """From now on see to it that Ctrl-C ends the process. For the main thread."""
    global _pipe
    heard, _pipe = os.pipe()
    os.set_blocking(_pipe, False)
    signal.set_wakeup_fd(_pipe, warn_on_full_buffer=False)
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, _interrupt)
    threading.Thread(target=_hear, args=(heard,), name="interrupts", daemon=True).start()


def handle(handler: Callable[[int, Any], None], numbers: Iterable[int]) -> dict[int, Any]:
    """Handle signals, but for those that are ignored, as behind nohup and in the background of a script.

    Gives what handled them before.
    """
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def set_in_order(in_order: bool) -> None:
    """Whether the command has more to say before Ctrl-C ends it, and sees to that."""
    global _in_order
    _in_order = in_order


def was_heard() -> bool:
    """Whether the command has been asked to end, as by Ctrl-C."""
    return _heard.is_set()


def end_soon() -> None:
    """End the process if it has not ended in a moment. For a signal handler, too."""
    if _pipe is not None:
        os.write(_pipe, _SOON)


def end_at_once(number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
    """Raise KeyboardInterrupt, which ends the process even if it is lost: a signal handler."""
    end_soon()
    _interrupt(number, frame)


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame:
        if frame.f_code.co_filename == _IMPORTING:
            end(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def end(code: int) -> NoReturn:
    """End the process at once. All that it had to say has been written.

    The interpreter's own end may wait for threads of gRPC that wait for an agent, and it frees each object by itself,
    which takes seconds for 100,000 flows.
    """
    os._exit(code)


def _hear(heard: int) -> None:
    while numbers := os.read(heard, 64):
        if not ENDS.isdisjoint(numbers):
            _heard.set()
        if _SOON in numbers or (signal.SIGINT in numbers and not _in_order):
            time.sleep(HEARD_SECONDS)
            os._exit(INTERRUPTED)
