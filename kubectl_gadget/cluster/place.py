"""A folder for the sockets of one command."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kubectl_gadget.agents.sockets import socket_root

PREFIX = "gadget-tunnels-"
#: A folder is not locked in the moment in which it is made.
YOUNG_SECONDS = 10.0


@contextmanager
def own_folder(young_seconds: float = YOUNG_SECONDS) -> Iterator[Path]:
    """A folder that is gone in the end; removes those of commands that were killed, but for young ones.

    Not abstract sockets, which would need no folder: every user of this machine could connect to them.
    """
    root = socket_root()
    for other in root.glob(f"{PREFIX}*"):
        with suppress(OSError):
            _remove_if_left(other, young_seconds)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=root, ignore_cleanup_errors=True) as folder:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(lock)


def _remove_if_left(folder: Path, young_seconds: float) -> None:
    """Remove a folder of ours that no process holds. OSError if one does, or if it is something else."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        about = os.fstat(lock)
        if about.st_uid == os.geteuid() and time.time() - about.st_mtime > young_seconds:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if all(stat.S_ISSOCK(item.lstat().st_mode) for item in folder.iterdir()):
                shutil.rmtree(folder)
    finally:
        os.close(lock)
