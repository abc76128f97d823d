"""Asks several agents at once. A long wait names the agents that are waited for, and Ctrl-C ends it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from kubectl_gadget.progress import Progress
from kubectl_gadget.tell import tell

#: A wait that is longer says for whom: so many names at most.
SILENT_SECONDS, NAMES = 3.0, 3
#: Agents that are asked at a time.
AT_ONCE = 16
T = TypeVar("T")


def answers(
    questions: Mapping[str, Callable[[], T]],
    reached: Container[str] | None = None,
    silent_seconds: float = SILENT_SECONDS,
) -> list[T]:
    """What each of the questions gives, in their order; they are called by whom they are put to.

    reached: those that could be asked by now, for whom alone it is told that they are waited for, after silent_seconds.
    """
    pool = ThreadPoolExecutor(max_workers=AT_ONCE)
    progress = Progress()
    try:
        asked = {name: pool.submit(question) for name, question in questions.items()}
        slow = wait(asked.values(), silent_seconds).not_done
        _tell_waits([name for name in asked if asked[name] in slow and (reached is None or name in reached)], progress)
        return [each.result() for each in asked.values()]
    finally:
        progress.clear()
        pool.shutdown(wait=False, cancel_futures=True)  # whoever interrupts is not to wait for an agent that is slow


def _tell_waits(names: Sequence[str], progress: Progress) -> None:
    """Say who has not answered; on a terminal until all have."""
    if names:
        more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
        said = f"waiting for {', '.join(names[:NAMES])}{more}"
        if sys.stderr.isatty():
            progress.show([said])
        else:
            tell(said)
