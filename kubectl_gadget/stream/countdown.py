"""What is shown while rows are added up: on a terminal how far it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from gadget.schema import Column, Row
from gadget.text import duration
from kubectl_gadget.output import Output
from kubectl_gadget.progress import Progress


class Countdown(Output):
    """Shows no rows."""

    def __init__(self, doing: str, seconds: float, so_far: Callable[[], str]) -> None:
        """Doing is a word for it; for so long, 0 without end. so_far says how much there is."""
        self.fields: Sequence[Column] = ()
        self._doing, self._seconds, self._so_far, self._began = doing, seconds, so_far, time.monotonic()
        self._progress, self._shown = Progress(), 0.0

    def write(self, rows: Sequence[Row]) -> None:
        """None is shown."""

    def refresh(self, sum_up: Callable[[], str]) -> None:
        """Draw how far it is, once a second."""
        now = time.monotonic()
        if now < self._shown + 1:
            return
        self._shown, gone = now, now - self._began
        left = f", {duration(int(max(self._seconds - gone, 0)))} left" if self._seconds else "; Ctrl-C ends it"
        self._progress.show([f"{self._doing} for {duration(int(gone))}{left}; {self._so_far()}"])

    def close(self) -> None:
        """Give the line back."""
        self._progress.clear()
