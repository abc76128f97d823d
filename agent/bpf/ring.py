"""Drains a BPF ring buffer of equal records as numpy views, without a callback per record.

Layout: kernel/bpf/ringbuf.c. Page 0 holds the consumer position, page 1 the producer position; the data follows. The
kernel offers the data twice in a row, so that a record that wraps would be contiguous. We map the data once, as a
process is charged for each page that it maps, and copy a batch that wraps. Each record has a header of 8 bytes: its
length with a busy bit, and a page offset.
"""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np
import numpy.typing as npt

BUSY = 1 << 31  # BPF_RINGBUF_BUSY_BIT
DISCARD = 1 << 30  # BPF_RINGBUF_DISCARD_BIT
HEADER = 8  # BPF_RINGBUF_HDR_SZ
#: A batch is one gRPC message: large enough to be cheap, small enough to be no burden.
BATCH_BYTES = 2 << 20

_SYS_MEMBARRIER = {"x86_64": 324, "aarch64": 283}[os.uname().machine]
_REGISTER_PRIVATE_EXPEDITED, _PRIVATE_EXPEDITED = 1 << 4, 1 << 3
_libc = ctypes.CDLL(None)
_libc.syscall(_SYS_MEMBARRIER, _REGISTER_PRIVATE_EXPEDITED, 0)


def fence() -> None:
    """Keep the reads and writes before this call apart from those after it.

    Without it arm64 could read a record before its header, or publish the new position before the record was read.
    """
    _libc.syscall(_SYS_MEMBARRIER, _PRIVATE_EXPEDITED, 0)


class RingBuffer:
    """One mapped ring of records of one size."""

    def __init__(self, map_fd: int, size: int) -> None:
        """Map the ring of size bytes behind map_fd."""
        self.fd = map_fd
        self._mask = size - 1
        page = mmap.PAGESIZE
        self._consumer_page = mmap.mmap(map_fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._data_pages = mmap.mmap(map_fd, page + size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumer = np.frombuffer(self._consumer_page, np.uint64, 1)
        self._producer = np.frombuffer(self._data_pages, np.uint64, 1)
        self._data = np.frombuffer(self._data_pages, np.uint8, size, offset=page)
        self._headers = self._data.view(np.uint32)
        self._position = int(self._consumer[0])
        self._pending = 0

    @property
    def waiting(self) -> int:
        """How many bytes wait to be read."""
        return int(self._producer[0]) - self._position

    @property
    def pressed(self) -> bool:
        """Whether more than a quarter of the ring waits.

        At that the kernel wakes the reader (gadget_output in gadget.h).
        """
        return self.waiting > (self._mask + 1) // 4

    def peek(self) -> npt.NDArray[np.uint8] | None:
        """The waiting records, a batch at most, as a view of (records, record size) bytes. None without any.

        Stops at the first record that its writer has not finished. Valid until release.
        """
        waiting = self.waiting
        if not waiting:
            return None
        fence()
        start = self._position & self._mask
        length = int(self._headers[start // 4])
        if length & BUSY:
            return None
        size = length & ~DISCARD
        stride = (HEADER + size + 7) & ~7
        count = min(waiting, max(BATCH_BYTES, stride)) // stride
        busy = self._headers[(start + np.arange(0, count * stride, stride) & self._mask) // 4] & BUSY != 0
        if busy.any():
            count = int(busy.argmax())
        fence()
        self._pending = count * stride
        data, past = self._data, start + self._pending - len(self._data)
        if past > 0:
            data, start = np.concatenate((data[start:], data[:past])), 0
        return np.ndarray((count, size), np.uint8, data, start + HEADER, (stride, 1))

    def release(self) -> None:
        """Give the memory of the last peek's records back to the kernel."""
        fence()
        self._position += self._pending
        self._pending = 0
        self._consumer[0] = self._position

    def close(self) -> None:
        """Unmap."""
        del self._consumer, self._producer, self._data, self._headers
        self._consumer_page.close()
        self._data_pages.close()
