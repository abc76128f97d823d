"""A disk of a test's own: a loop device on a file."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SIZE = 16 << 20
#: linux/loop.h
SET_FD, CLR_FD, CTL_GET_FREE = 0x4C00, 0x4C01, 0x4C82
#: What use() does, each a prime number of times, and how many bytes each time.
WRITES, READS = (37, 4096), (19, 8192)


@contextmanager
def disk(folder: Path) -> Iterator[Path]:
    """The device, which nobody else uses; its file lies in a folder."""
    path = folder / "disk"
    with path.open("wb+") as file:
        file.truncate(SIZE)
        while True:
            with Path("/dev/loop-control").open("rb") as control:
                device = Path(f"/dev/loop{fcntl.ioctl(control, CTL_GET_FREE)}")
            fd = os.open(device, os.O_RDWR)
            try:
                fcntl.ioctl(fd, SET_FD, file.fileno())
                break
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:  # another has taken it meanwhile
                    raise
    try:
        yield device
    finally:
        fcntl.ioctl(fd, CLR_FD)
        os.close(fd)
        path.unlink()


def use(device: Path) -> None:
    """Write to a disk and read from it, past the memory."""
    buffer = memoryview(mmap.mmap(-1, 8192))
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    for number in range(WRITES[0]):
        os.pwrite(fd, buffer[: WRITES[1]], number * WRITES[1])
    for number in range(READS[0]):
        os.preadv(fd, [buffer[: READS[1]]], number * READS[1])
    os.close(fd)


def moved(device: Path) -> tuple[int, int]:
    """How many bytes the kernel counts as read from a disk and written to it: Documentation/admin-guide/iostats.rst."""
    line = next(line for line in Path("/proc/diskstats").read_text().splitlines() if line.split()[2] == device.name)
    return int(line.split()[5]) * 512, int(line.split()[9]) * 512
