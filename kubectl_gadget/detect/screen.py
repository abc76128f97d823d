"""Standard output of alerts: in a thread of its own, so that one that nobody reads stops no other place."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from gadget.text import counted
from kubectl_gadget import interrupts
from kubectl_gadget.output.stdout import CutShort, write_text
from kubectl_gadget.tell import tell

#: What may wait for a reader, in characters: of most alerts 20,000 and more.
MOST_WAITING = 16 << 20
#: How long a reader that is not late has, in seconds. Order on a terminal and errors are then as without a thread.
_AT_ONCE = 0.1
#: How long a reader may take nothing when Ctrl-C has been heard, and how often that is looked at.
_STUCK, _TICK = 0.4, 0.1


class Screen:
    """Writes texts, each of an alert, in order."""

    def __init__(self, room: float, failed: Callable[[], None] = lambda: None, *, thing: str = "alert") -> None:
        """Room: how long in seconds an alert waits if too many do and none is read; then it is lost.

        failed is called, in another thread, where standard output takes no more. thing is what is written.
        """
        self._thing = thing
        self._room, self._failed = room, failed
        self._waiting: deque[str | Callable[[], None]] = deque()
        self._size = self._written = self._lost = 0
        self._late = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def write(self, texts: Iterable[str]) -> None:
        """Write texts, at once if the reader is not late.

        Raises:
            OSError: Standard output takes no more.

        """
        with self._changed:
            for text in texts:
                if self._size < MOST_WAITING or self._wait(lambda: self._size < MOST_WAITING, self._room):
                    self._put(text)
                else:
                    self._lose()
            self._late = not self._wait(self._is_done, 0 if self._late else _AT_ONCE)
            self.check()

    def write_by(self, writes: Callable[[], None]) -> None:
        """Let the thread call what writes something else to standard output, such as a table."""
        with self._changed:
            self._put(writes)

    def _put(self, what: str | Callable[[], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="screen", daemon=True)
            self._thread.start()
        self._waiting.append(what)
        self._size += len(what) if isinstance(what, str) else 0
        self._changed.notify_all()

    def check(self) -> None:
        """OSError if standard output takes no more."""
        if self._error:
            raise self._error

    def flush(self) -> None:
        """Wait until all is written, or given up after Ctrl-C.

        Raises:
            OSError: Standard output takes no more.

        """
        with self._changed:
            self._wait(self._is_done, float("inf"))
            self.check()

    def end(self) -> int:
        """Write what waits, and tell what is lost; gives how much that is."""
        with self._changed:
            if self._wait(self._is_done, float("inf")):
                lost = self._lost
            else:
                lost, self._lost = self._lost + len(self._waiting), 0
        if lost:
            tell(f"{counted(self._written, self._thing)} written to standard output, {lost} lost: nobody reads it")
        return lost

    def _is_done(self) -> bool:
        return not self._waiting or self._error is not None

    def _wait(self, ready: Callable[[], bool], patience: float) -> bool:
        """Wait for something; False if nothing has been read for so long."""
        written, since = self._written, time.monotonic()
        while not ready():
            quiet = time.monotonic() - since
            if quiet >= (min(_STUCK, patience) if interrupts.was_heard() else patience):
                return False
            self._changed.wait(_TICK)
            if self._written != written:
                written, since = self._written, time.monotonic()
        return True

    def _lose(self) -> None:
        if not self._lost:
            tell("warning: nobody reads standard output: alerts are not written there")
        self._lost += 1

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                what = self._waiting[0]
            try:
                write_text(what) if isinstance(what, str) else what()
            except Exception as error:
                with self._changed:
                    self._error = self._said(error)
                    self._changed.notify_all()
                self._failed()
                return
            with self._changed:
                self._waiting.popleft()
                self._size -= len(what) if isinstance(what, str) else 0
                self._written += 1
                self._changed.notify_all()

    def _said(self, error: Exception) -> Exception:
        if isinstance(error, CutShort):
            return OSError(error.errno, f"{error.strerror}: {counted(self._written, self._thing)} written")
        return error
