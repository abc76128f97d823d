"""A path as programs of a container see it, component by component: never opened for reading but to list a folder."""

from __future__ import annotations

import difflib
import errno
import heapq
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from agent.files import open_in_root, printable, read_descriptor
from gadget._generated import gadget_pb2 as pb

#: Components of a path that are looked at, each from the root on, as links mean something there alone.
MOST_COMPONENTS = 64
#: Names of a folder that are compared, and letters of each; comparing costs the square of them. Then so many are told.
_NAMES, _LETTERS, _ALIKE = 4096, 48, 5
#: Of these the likest are found exactly; the rest by their letters.
_LIKELY = 32
_MISSING = (errno.ENOENT, errno.ENOTDIR)
_MOUNT = re.compile(r"^mnt_id:\s*(\d+)$", re.MULTILINE)


class Walk:
    """Goes along a path below a root, and holds the last component that is there. A context manager."""

    def __init__(self, root: int) -> None:
        """Begin at the root, a descriptor that stays the caller's."""
        self._root = root
        self._fd = os.dup(root)
        #: what was passed, and the mount of each
        self._passed = [("/", _mount_of(self._fd))]

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def along(self, path: str) -> list[pb.Component]:
        """Go along the path's components. The last one given is the first that does not exist."""
        found: list[pb.Component] = []
        parts = [part for part in path.split("/") if part not in ("", ".")][:MOST_COMPONENTS]
        for at, part in enumerate(parts):
            whole = "/" + "/".join(parts[: at + 1])
            component = pb.Component(path=printable(whole))
            found.append(component)
            try:
                self._enter(whole, component)
            except OSError as error:
                if error.errno not in _MISSING:
                    component.error = errno.errorcode.get(error.errno or 0, "EIO")
                elif not component.link:
                    component.names.extend(self._names_like(self._passed[-1][0], part))
                break
        return found

    def mount(self) -> pb.Mount:
        """The mount that holds the last existing component."""
        last = self._passed[-1][1]
        top = self._passed[-1][0]
        for whole, mount in reversed(self._passed):
            if mount != last:
                break
            top = whole
        system = os.fstatvfs(self._fd)
        return pb.Mount(
            path=printable(top),
            read_only=bool(system.f_flag & os.ST_RDONLY),
            free_bytes=system.f_bavail * system.f_frsize,
            total_bytes=system.f_blocks * system.f_frsize,
            free_inodes=system.f_favail,
            total_inodes=system.f_files,
        )

    def _enter(self, whole: str, component: pb.Component) -> None:
        name = os.fsencode(whole)
        fd = open_in_root(self._root, name, os.O_PATH | os.O_NOFOLLOW)
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                component.link = printable(os.readlink("", dir_fd=fd))
                os.close(fd)
                fd = -1
                fd = open_in_root(self._root, name, os.O_PATH)
            state = os.fstat(fd)
            mount = _mount_of(fd)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            raise
        os.close(self._fd)
        self._fd = fd
        self._passed.append((whole, mount))
        component.exists, component.mode = True, state.st_mode
        component.uid, component.gid = state.st_uid, state.st_gid

    def _names_like(self, folder: str, name: str) -> list[str]:
        with suppress(OSError):
            fd = open_in_root(self._root, os.fsencode(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK)
            try:
                with os.scandir(fd) as entries:
                    there = [printable(entry.name) for entry in islice(entries, _NAMES)]
            finally:
                os.close(fd)
            return most_alike(name, there)
        return []


def most_alike(name: str, there: Sequence[str]) -> list[str]:
    """Of the names of a folder those that are most like one; all of them if they are few.

    Without those that Kubernetes puts into a volume beside its files (..data).
    """
    there = [each for each in there if not each.startswith("..")]
    if len(there) <= _ALIKE:
        return sorted(there)
    short = name[:_LETTERS]
    matcher = difflib.SequenceMatcher(b=short, autojunk=False)

    def likely(other: str) -> float:
        matcher.set_seq1(other[:_LETTERS])
        return matcher.quick_ratio()

    few = {each[:_LETTERS]: each for each in heapq.nlargest(_LIKELY, there, key=likely)}
    return [few[each] for each in difflib.get_close_matches(short, list(few), _ALIKE)]


def _mount_of(fd: int) -> str:
    """The number of the mount through which a file is reached; empty if it cannot be told."""
    with suppress(OSError):
        info = os.open(f"/proc/self/fdinfo/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = _MOUNT.search(read_descriptor(info))
            return found[1] if found else ""
        finally:
            os.close(info)
    return ""
