"""Standard output that loses nothing."""

from __future__ import annotations

import errno
import os
import sys


class CutShort(OSError):
    """Standard output takes no more, as a full disk does; taken is the beginning of the data that it has."""

    taken: bytes = b""


def write_all(data: bytes) -> None:
    """Write all of data at once. CutShort if only a part can be.

    Not through Python's buffer, which would not tell how much: a raw file's write returns early when a disk fills or a
    signal comes.
    """
    buffer = sys.stdout.buffer
    buffer.flush()
    raw = getattr(buffer, "raw", buffer)  # with PYTHONUNBUFFERED it is raw itself
    rest = memoryview(data)
    try:
        while rest:
            written = raw.write(rest)
            if written is None:  # it is a terminal or pipe that somebody has set so that it never waits
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            rest = rest[written:]
    except BrokenPipeError:
        raise
    except OSError as error:
        cut = CutShort(error.errno, error.strerror)
        cut.taken = data[: len(data) - len(rest)]
        raise cut from error


def write_text(text: str) -> None:
    """Write text in the terminal's encoding; what that lacks is escaped."""
    write_all(text.encode(sys.stdout.encoding, "backslashreplace"))
