"""A cache of what was read of files, for all clients that take samples. The least used file leaves first."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Protocol

#: What is kept of all files together.
MOST_BYTES = 64 << 20
#: The same file, as it is: a container can give two files the same build id, but not the same device and number.
Identity = tuple[int, int, int, int, int]


class Sized(Protocol):
    """Something that was read of a file, and knows its size."""

    @property
    def bytes(self) -> int:
        """The memory that it takes."""


def identity(fd: int) -> Identity:
    """Identifies a descriptor's file and the file's present state."""
    state = os.fstat(fd)
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


class FileCache:
    """What was read of each file, by the file's identity; None if nothing can be read."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        """Nothing yet."""
        self._most, self._taken = most, 0
        self._lock = threading.Lock()
        self._found: dict[tuple[type[Sized], Identity], Sized | None] = {}

    def has(self, kind: type[Sized], of: Identity) -> bool:
        """Whether a file has been read."""
        return (kind, of) in self._found

    def get(self, kind: type[Sized], of: Identity, read: Callable[[], Sized | None]) -> Sized | None:
        """What is kept of a file. If nothing is, read makes it, which may take long."""
        key = (kind, of)
        with self._lock:
            if key in self._found:
                self._found[key] = found = self._found.pop(key)
                return found
        made = read()
        with self._lock:
            self._forget(key)
            self._found[key] = made
            self._taken += _size(made)
            while self._taken > self._most and len(self._found) > 1:
                self._forget(next(iter(self._found)))
        return made

    def _forget(self, key: tuple[type[Sized], Identity]) -> None:
        if key in self._found:
            self._taken -= _size(self._found.pop(key))


def _size(found: Sized | None) -> int:
    return found.bytes if found else 256
