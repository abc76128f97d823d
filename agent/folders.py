"""Our folders in places that others can write: never reached through a link, never another user's.

bpffs mounted without options is 1777 (bpf_fill_super, kernel/bpf/inode.c): any user may put a link where the agent has
a folder. So each folder is opened without following links and looked at, and its content is reached from there.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from gadget.errors import Unsupported

_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
#: Links on the way to a path; as many as the kernel follows (MAXSYMLINKS, linux/namei.h).
_LINKS = 40


class NotOurs(Unsupported):
    """Another user could change, or has made, a folder or file that we are about to trust."""


def check_place(path: Path, links: int = _LINKS) -> None:
    """NotOurs unless all on the way to path, but for path itself, is such that only root and this user can change it.

    A folder that all may write is fine if it is sticky, such as /tmp, and the next one on the way is not another
    user's.
    """
    owners = (0, os.geteuid())
    path = Path(os.path.abspath(path))
    for at in reversed(path.parents):
        try:
            found = at.lstat()
        except FileNotFoundError:
            return  # what we make there is ours
        if found.st_uid not in owners:
            raise NotOurs(f"{path}: {at} is of user {found.st_uid}, who could replace it")
        if stat.S_ISLNK(found.st_mode):
            if not links:
                raise NotOurs(f"{path}: too many links")
            target = at.parent / at.readlink()
            return check_place(target / path.relative_to(at), links - 1)
        if found.st_mode & _OTHERS and not found.st_mode & stat.S_ISVTX:
            raise NotOurs(f"{path}: others may write to {at} (mode {stat.S_IMODE(found.st_mode):o})")


def open_own(path: Path) -> int:
    """A folder of this user's that others cannot write, as a file descriptor. NotOurs if it is anything else."""
    check_place(path)
    return _open_own(path.name, path, os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))


def check_own(path: Path) -> None:
    """NotOurs if path is there and is not a folder of this user's alone, or could be replaced by others."""
    with suppress(FileNotFoundError):
        os.close(open_own(path))


def own_folder(path: Path) -> int:
    """The same as open_own(), but the folder is made if there is none."""
    check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    return open_own(path)


def _open_own(name: str, path: Path, parent: int) -> int:
    """The folder name in parent, which is closed; path is what it is called in errors."""
    try:
        fd = os.open(name, _FLAGS, dir_fd=parent)
    except NotADirectoryError:  # what O_NOFOLLOW with O_DIRECTORY says of a link, too
        raise NotOurs(f"{path} is a link or a file that is not the agent's: remove it") from None
    finally:
        os.close(parent)
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or found.st_mode & _OTHERS:
            mode = f"{stat.S_IMODE(found.st_mode):o}"
            raise NotOurs(f"{path} is of user {found.st_uid}, with mode {mode}: not the agent's own; remove it")
        if found.st_mode & stat.S_IRWXU != stat.S_IRWXU:  # of agents up to 0.1.0, whose umask was 0177
            os.fchmod(fd, 0o700)
    except BaseException:
        os.close(fd)
        raise
    return fd


def remove(folder: Path) -> None:
    """Remove a folder of ours and all below it, without following a link. NotOurs if one there is another's."""
    fd = open_own(folder)
    try:
        _empty(fd, folder)
    finally:
        os.close(fd)
    folder.rmdir()


def _empty(fd: int, path: Path) -> None:
    for name in os.listdir(fd):
        if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            inner = _open_own(name, path / name, os.dup(fd))
            try:
                _empty(inner, path / name)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=fd)
        else:
            os.unlink(name, dir_fd=fd)
