"""The cgroup2 tree: where it is mounted, and which directory a cgroup id is.

A cgroup's id is its directory's inode number and its file handle (kernfs, fs/kernfs/mount.c), so the kernel can
be asked for the path of an id without a walk: open_by_handle_at(2), readlink of the descriptor.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from gadget.errors import Unsupported

_FILEID_KERNFS = 0xFE  # linux/exportfs.h
_libc = ctypes.CDLL(None, use_errno=True)


class _FileHandle(ctypes.Structure):
    _fields_ = (("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("id", ctypes.c_uint64))


def find_cgroup2(host_root: Path = Path("/")) -> Path:
    """The mount point of cgroup2: /sys/fs/cgroup, or its unified/ beside version 1. Unsupported if there is none."""
    wanted = [host_root / "sys/fs/cgroup", host_root / "sys/fs/cgroup/unified"]
    for path in wanted:
        if (path / "cgroup.procs").exists() and (path / "cgroup.subtree_control").exists():
            return path
    raise Unsupported(
        f"no cgroup2 at {wanted[0]} or {wanted[1]}: containers cannot be told apart. "
        f"Mount it: mkdir -p {wanted[1]} && mount -t cgroup2 none {wanted[1]}, then restart the containers"
    )


class CgroupTree:
    """Looks up cgroups by id. Needs CAP_DAC_READ_SEARCH."""

    def __init__(self, mount: Path) -> None:
        """Open the tree at a cgroup2 mount point."""
        self.mount = os.path.realpath(mount)
        self._fd = os.open(self.mount, os.O_RDONLY | os.O_DIRECTORY)

    def path(self, cgroup_id: int) -> str | None:
        """The path of a living cgroup below the mount, beginning with a slash; None if it is gone."""
        handle = _FileHandle(8, _FILEID_KERNFS, cgroup_id)
        fd = _libc.open_by_handle_at(self._fd, ctypes.byref(handle), os.O_RDONLY | os.O_DIRECTORY)
        if fd < 0:
            return None
        try:
            return os.readlink(f"/proc/self/fd/{fd}").removeprefix(self.mount) or "/"
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the tree."""
        os.close(self._fd)
