"""Standard error that stops nobody: where it takes nothing now, a thread waits in the command's place."""

from __future__ import annotations

import atexit
import os
import select
import sys
import threading
import time
from collections import deque

import click

from kubectl_gadget import interrupts

#: What a pipe takes at once that has any room (PIPE_BUF), in bytes.
_AT_ONCE = 4096
#: Characters that may wait. What comes then is lost: it would be read long after it was told.
_MOST_WAITING = 1 << 20
#: How long the end waits after Ctrl-C while nothing is read, and how often it looks.
_STUCK, _TICK = 0.4, 0.05


class _Late:
    """What standard error could not take at once, written in order by a thread."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._size = self._written = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def is_busy(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting)

    def put(self, data: bytes) -> None:
        """Write it after what waits; never waits itself."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stderr", daemon=True)
                self._thread.start()
                atexit.register(self.finish)
            if self._size + len(data) <= _MOST_WAITING:
                self._waiting.append(data)
                self._size += len(data)
                self._changed.notify_all()

    def finish(self) -> None:
        """Wait until all is written, after Ctrl-C only as long as it is read."""
        with self._changed:
            written, since = self._written, time.monotonic()
            while self._waiting and not (interrupts.was_heard() and time.monotonic() - since > _STUCK):
                self._changed.wait(_TICK)
                if self._written != written:
                    written, since = self._written, time.monotonic()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                data = self._waiting[0]
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[os.write(2, rest) :]  # not by Python's buffer, whose lock the end of the process needs
            except OSError:  # nobody is there to be told
                pass
            with self._changed:
                self._waiting.popleft()
                self._size -= len(data)
                self._written += 1
                self._changed.notify_all()


_late = _Late()
#: Waits for what waits: before an end that Python does not know of.
finish = _late.finish


def has_room() -> bool:
    """Whether standard error takes something now, and nothing waits for it. For a signal handler, too."""
    if _late.is_busy:
        return False
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    return bool(poll.poll(0))


def write_error(text: str) -> None:
    """Write a line to standard error."""
    data = f"{text}\n".encode(errors="backslashreplace")
    if _is_replaced() or (len(data) <= _AT_ONCE and has_room()):
        click.echo(text, err=True)
    else:
        _late.put(data)


def _is_replaced() -> bool:
    """Whether what is written goes elsewhere than to the process's own."""
    try:
        return sys.stderr.fileno() != 2
    except (OSError, ValueError):
        return True
