"""Files with captured arguments and paths of processes. Only their owner may read them."""

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
    """Empty a file, if it has any content."""
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.truncate(0)
