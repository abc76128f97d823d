"""The cgroup2 tree: where it is mounted, and which directory a cgroup id is.

A cgroup's id is its directory's inode number and its file handle (kernfs, fs/kernfs/mount.c), so the kernel can
be asked for the path of an id without a walk: open_by_handle_at(2), readlink of the descriptor.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from gadget.errors import Unsupported

_FILEID_KERNFS = 0xFE  # linux/exportfs.h
_libc = ctypes.CDLL(None, use_errno=True)

#: How deep containers lie at most: CONTAINER_DEPTH in bpf/include/cgroups.h.
DEPTH = 16
#: How many levels to go up at once from a cgroup whose path is too long, and how often. A path of 4,096 bytes has at
#: least 16 components: what is left is longer than the path of any container's own cgroup.
_CLIMB, _CLIMBS = 8, 512


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
        """The path of a living cgroup below the mount, beginning with a slash; None if it is gone.

        A container can make cgroups whose path is longer than any call takes. For these it is the path of an ancestor,
        or None if they lie too deep for that too.
        """
        handle = _FileHandle(8, _FILEID_KERNFS, cgroup_id)
        fd = _libc.open_by_handle_at(self._fd, ctypes.byref(handle), os.O_RDONLY | os.O_DIRECTORY)
        if fd < 0:
            return None
        try:
            for _ in range(_CLIMBS):
                try:
                    return os.readlink(f"/proc/self/fd/{fd}").removeprefix(self.mount) or "/"
                except OSError as error:
                    if error.errno != errno.ENAMETOOLONG:
                        return None
                above = os.open("/".join([".."] * _CLIMB), os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = above
            return None
        except OSError:  # it went meanwhile
            return None
        finally:
            os.close(fd)

    def id(self, path: str) -> int:
        """The id of the cgroup at a path below the mount; 0 if there is none."""
        try:
            return os.stat(self.mount + path).st_ino
        except OSError:
            return 0

    def walk(self, enough: Callable[[str], bool], most: int = 65_536) -> Iterator[str]:
        """The paths of cgroups as deep as containers lie, each before the cgroups inside it.

        At most `most` below each cgroup of the root: users have one of these to themselves, so they leave room for
        containers.

        After a path was given out, enough(path) says whether to leave out what is inside it.
        """
        yield "/"
        for top in self._below(""):
            waiting, left = [top], most
            while waiting and left > 0:
                path = waiting.pop()
                yield path
                left -= 1
                if path.count("/") < DEPTH and not enough(path):
                    waiting += self._below(path)

    def _below(self, path: str) -> list[str]:
        with suppress(OSError), os.scandir(self.mount + path) as entries:
            return [f"{path}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]
        return []

    def close(self) -> None:
        """Close the tree."""
        os.close(self._fd)


def processes_in(folder: Path, most: int = 4096) -> list[int]:
    """The processes in a cgroup and in the cgroups inside it. Both are limited, as a container may make any number."""
    found: list[int] = []
    folders = [str(folder)]
    for at in range(most):
        if at == len(folders) or len(found) >= most:
            break
        with suppress(OSError), open(f"{folders[at]}/cgroup.procs", "rb") as procs:
            found += [int(pid) for pid in procs.read(most * 8).split()[:most] if pid.isdigit()]
        with suppress(OSError), os.scandir(folders[at]) as entries:
            folders += [entry.path for entry in islice(entries, most) if entry.is_dir(follow_symlinks=False)]
    return found[:most]
