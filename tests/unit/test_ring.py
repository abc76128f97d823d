from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.bpf.ring import BUSY, HEADER, RingBuffer

SIZE = 4096
RECORD = 40  # 48 with its header, which does not divide the ring: records lie across its end
STRIDE = 48


class Kernel:
    """The kernel's side of a ring of SIZE bytes: kernel/bpf/ringbuf.c."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * mmap.PAGESIZE + SIZE)
        self.position = self.written = 0

    def _put(self, at: int, data: bytes) -> None:
        at %= SIZE
        head = data[: SIZE - at]
        os.pwrite(self.fd, head, 2 * mmap.PAGESIZE + at)
        os.pwrite(self.fd, data[len(head) :], 2 * mmap.PAGESIZE)

    @property
    def room(self) -> int:
        consumed = int.from_bytes(os.pread(self.fd, 8, 0), "little")
        return (SIZE - (self.position - consumed)) // STRIDE

    def write(self, flags: int = 0) -> int:
        """Write the next record, which holds its number; returns where its header is."""
        at = self.position
        self._put(at, (RECORD | flags).to_bytes(8, "little") + self.written.to_bytes(8, "little") * (RECORD // 8))
        self.position += STRIDE
        self.written += 1
        os.pwrite(self.fd, self.position.to_bytes(8, "little"), mmap.PAGESIZE)
        return at

    def commit(self, at: int) -> None:
        self._put(at, RECORD.to_bytes(8, "little"))


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    os.close(made.fd)


def take(ring: RingBuffer) -> list[int]:
    """The numbers in the records that wait."""
    records = ring.peek()
    if records is None:
        return []
    assert records.shape[1] == RECORD
    words = np.ascontiguousarray(records).view(np.uint64)
    assert (words == words[:, :1]).all()
    numbers = words[:, 0].tolist()
    ring.release()
    return numbers


@given(st.lists(st.integers(1, SIZE // STRIDE), min_size=1, max_size=50))
def test_whole_and_in_order(counts: list[int]) -> None:
    """Every event comes once, whole and in order, also one that lies across the end of the ring."""
    kernel = Kernel()
    with closing(RingBuffer(kernel.fd, SIZE)) as ring:
        for count in counts:
            first = kernel.written
            for _ in range(min(count, kernel.room)):
                kernel.write()
            assert take(ring) == list(range(first, kernel.written))
            assert not ring.waiting
    os.close(kernel.fd)
    assert HEADER + RECORD == STRIDE


def test_unfinished(kernel: Kernel) -> None:
    """An event that is not finished yet is waited for, and what comes after it stays in order."""
    with closing(RingBuffer(kernel.fd, SIZE)) as ring:
        for _ in range(SIZE // STRIDE - 2):
            kernel.write()
        assert len(take(ring)) == kernel.written
        kernel.write()
        first = kernel.written
        unfinished = [kernel.write(BUSY) for _ in range(3)]
        assert take(ring) == [first - 1]
        assert take(ring) == []
        kernel.commit(unfinished[0])
        kernel.commit(unfinished[2])
        assert take(ring) == [first]
        kernel.commit(unfinished[1])
        assert take(ring) == [first + 1, first + 2]
