"""Memory for batches, which come and go many times a second."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
#: Heaps that threads share. By default each of the first 16 threads has its own, which keeps what it once took.
HEAPS = 2
#: More than all copies of a batch of 1 MiB take together on its way, and little beside what Python itself takes.
KEPT_BYTES = 16 << 20
LARGEST_BYTES = 4 << 20
#: How many objects are made before Python looks for cycles. A batch is thousands of tuples, which are in no cycle.
OBJECTS = 50_000


def expect_batches() -> None:
    """Let malloc keep what is freed instead of returning it to the kernel, and Python seldom look for garbage.

    The next batch would ask for the memory again, and getting a page takes ten times as long as filling it.
    """
    gc.freeze()
    gc.set_threshold(OBJECTS)
    with suppress(OSError, TypeError, AttributeError):  # only glibc has it; the command line also runs elsewhere
        library = ctypes.CDLL(None)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        library.mallopt(_M_MMAP_THRESHOLD, LARGEST_BYTES)
        library.mallopt(_M_ARENA_MAX, HEAPS)
        library.malloc_trim(0)  # what importing has freed is another thing: 1.3 MiB of an agent


@contextmanager
def no_collections() -> Iterator[None]:
    """Let Python not look for cycles meanwhile: where 100,000 objects are made that stay, it takes most of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
