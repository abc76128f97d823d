"""bpffs: where maps and links stay when their process ends."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent.bpf import libbpf
from agent.folders import check_place, open_own
from agent.folders import remove as remove
from gadget.errors import NoBpffs, Unsupported

_MAGIC = 0xCAFE4A11  # BPF_FS_MAGIC, linux/magic.h
_libc = ctypes.CDLL(None, use_errno=True)


class _StatFs(ctypes.Structure):
    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_long * 31))


def is_bpffs(path: Path) -> bool:
    """Whether path lies in a bpffs."""
    found = _StatFs()
    done: int = _libc.statfs(os.fsencode(path), ctypes.byref(found))
    return done == 0 and bool(found.f_type & 0xFFFFFFFF == _MAGIC)


def mount_bpffs(path: Path) -> None:
    """Make sure that a bpffs is mounted at path. NoBpffs if it cannot be, NotOurs if others could replace it."""
    check_place(path / "any")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoBpffs(f"no bpffs at {path}: {error.strerror}") from None
    if is_bpffs(path):
        return
    if _libc.mount(b"bpf", os.fsencode(path), b"bpf", 0, b"mode=0700"):
        raise NoBpffs(f"no bpffs at {path}, and it cannot be mounted: {os.strerror(ctypes.get_errno())}")


def lock(folder: Path) -> int:
    """Hold folder for this process, until the file descriptor is closed. Unsupported if another agent does.

    NotOurs if the folder is not this user's alone.
    """
    fd = open_own(folder)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise Unsupported(f"another agent records in {folder}: one is enough for a machine") from None
    return fd


def check_free(folder: Path) -> None:
    """Unsupported if another agent holds folder."""
    if folder.exists():
        os.close(lock(folder))


def end(folder: Path) -> bool:
    """End what an earlier agent has been recording into folder, and forget it. Unsupported if that agent runs."""
    if not folder.exists():
        return False
    locked = lock(folder)
    remove(folder)
    remove_if_empty(folder.parent)
    os.close(locked)
    return True


def digest(data: bytes) -> str:
    """A short name for data: other data has another name."""
    return hashlib.sha256(data).hexdigest()[:12]


def open_pinned(path: Path) -> int:
    """The file descriptor of the map, program or link pinned at path. OSError if there is none."""
    return libbpf.check(libbpf.library().bpf_obj_get(os.fsencode(path)), f"open {path}")


@contextmanager
def pinned(path: Path) -> Iterator[int]:
    """The same as open_pinned(), closed at the end of the with block."""
    fd = open_pinned(path)
    try:
        yield fd
    finally:
        os.close(fd)


def unpin(path: Path) -> None:
    """Remove what is pinned at path, whatever it is."""
    if path.is_dir() and not path.is_symlink():
        remove(path)
    else:
        path.unlink(missing_ok=True)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder, unless somebody else's pins are there."""
    with suppress(OSError):
        folder.rmdir()
