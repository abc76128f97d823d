"""A system call as it was recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

#: Errors are results from -4095 to -1.
ERROR_MAX = 4095


class Captured(NamedTuple):
    """User memory that was copied, and how long it really was: it was cut if that is more than its data.

    Of several buffers it is the first that is not empty: skipped are before it. Of an array of strings cut says which
    of them go on.
    """

    data: bytes
    size: int
    buffers: int = 1
    skipped: int = 0
    cut: frozenset[int] = frozenset()


_NOTHING: Mapping[tuple[int, str | int], Captured] = {}


class Call(NamedTuple):
    """One system call. args are the registers as they are; result is None if the call never returned.

    captured is by argument index. For strings the NUL is not in it; of arrays of strings each ends with NUL, and size
    counts bytes too. beyond holds what else there is of an argument, by it and "name" or "control" of a struct msghdr,
    or the index of a further buffer. time_ns is since 1970.
    """

    time_ns: int
    duration_ns: int | None
    pid: int
    tid: int
    comm: str
    machine: str
    number: int
    args: tuple[int, ...]
    result: int | None
    captured: Mapping[int, Captured]
    beyond: Mapping[tuple[int, str | int], Captured] = _NOTHING

    @property
    def failed(self) -> bool:
        """Whether it returned an error."""
        return self.result is not None and -ERROR_MAX <= self.result < 0
