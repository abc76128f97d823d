"""The maps of an agent's programs, to bring about what a machine only does under load."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from types import TracebackType

from agent.bpf import libbpf
from tests.loaded import maps_of


class HashMap:
    """The one hash map of that name that a process holds. A context manager."""

    def __init__(self, name: str, pid: int) -> None:
        """Find and open it."""
        (found,) = (each for each in maps_of(pid) if each["name"] == name)
        self._lib = libbpf.library()
        self._fd: int = libbpf.check(ctypes.CDLL("libbpf.so.1").bpf_map_get_fd_by_id(found["id"]), name)
        self._key, self._value = found["bytes_key"], found["bytes_value"]
        self.size: int = found["max_entries"]

    def __enter__(self) -> HashMap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def keys(self) -> Iterator[bytes]:
        """Its keys."""
        key, following = None, ctypes.create_string_buffer(self._key)
        while self._lib.bpf_map_get_next_key(self._fd, key, following) == 0:
            yield following.raw
            key = following.raw

    def take(self, key: bytes) -> bytes:
        """Remove a key; its value."""
        value = ctypes.create_string_buffer(self._value)
        libbpf.check(self._lib.bpf_map_lookup_elem(self._fd, key, value), "look up")
        libbpf.check(self._lib.bpf_map_delete_elem(self._fd, key), "delete")
        return value.raw

    def put(self, key: bytes, value: bytes) -> None:
        """Set a key to a value."""
        libbpf.check(self._lib.bpf_map_update_elem(self._fd, key, value, 0), "update")

    def fill(self) -> None:
        """Leave no room in it, whatever of others is there."""
        for number in range(self.size):
            try:
                self.put(number.to_bytes(self._key, "little"), bytes(self._value))
            except OSError as error:
                if error.errno != errno.E2BIG:
                    raise
                return
