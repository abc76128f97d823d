"""Files with what was captured: arguments and paths of processes, which are for their owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

MODE = 0o600


def open_private(path: Path) -> BinaryIO:
    """A file to write, made if it is not there: then nobody else can read it, whatever the umask."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, MODE), "wb")


def empty(file: BinaryIO) -> None:
    """Remove what a file held before, where there is something to remove."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.truncate(0)
