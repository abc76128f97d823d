"""Files whose content others choose: read up to a limit, and never taken for text before it has been decoded."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from gadget.rows import decode_text

#: A file of /proc that is about one process or thread is no longer.
PROCESS_BYTES = 4096


def read_text(path: Path, most: int = PROCESS_BYTES) -> str:
    """The beginning of a file of /proc or of a cgroup, whatever bytes a program has put into it. OSError as read(2)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return decode_text(_read(fd, most))
    finally:
        os.close(fd)


def read_regular(path: Path, most: int) -> bytes:
    """A whole file. OSError if it is none, is a link, or is longer: nothing else of it is read, or waited for."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("not a regular file")
        data = _read(fd, most + 1)
    finally:
        os.close(fd)
    if len(data) > most:
        raise OSError(f"longer than {most >> 20} MiB")
    return data


def printable(text: str) -> str:
    """Text that may hold what no encoding has, such as a path (os.fsdecode): JSON and protobuf refuse it as it is."""
    return text.encode("utf-8", "backslashreplace").decode()


def _read(fd: int, most: int) -> bytes:
    data = b""
    while len(data) < most and (more := os.read(fd, most - len(data))):
        data += more
    return data
