"""Files whose content others choose: read up to a limit, and never taken for text before it has been decoded."""

from __future__ import annotations

import ctypes
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from gadget.kinds.texts import decode_text

log = logging.getLogger(__name__)

#: A file of /proc that is about one process or thread is no longer.
PROCESS_BYTES = 4096
_OPENAT2 = 437  # asm-generic/unistd.h: the same on all machines
_BENEATH = 0x01 | 0x02 | 0x04 | 0x08  # linux/openat2.h: RESOLVE_NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH
_IN_ROOT = 0x02 | 0x10  # RESOLVE_NO_MAGICLINKS, IN_ROOT
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def read_text(path: Path, most: int = PROCESS_BYTES) -> str:
    """The beginning of a file of /proc or of a cgroup, whatever bytes a program has put into it. OSError as read(2)."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_descriptor(fd, most)
    finally:
        os.close(fd)


def read_descriptor(fd: int, most: int = PROCESS_BYTES) -> str:
    """The beginning of a file that is open, as read_text()."""
    return decode_text(read_bytes(fd, most))


def read_regular(path: Path, most: int, *, follow: bool = False) -> bytes:
    """A whole regular file; follow: a link is followed.

    OSError if it is a link, something else, or longer: then it is neither read nor waited for.
    """
    return _whole(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW * (not follow) | os.O_NONBLOCK), most)


def read_below(folder: Path, path: str, most: int) -> bytes:
    """read_regular() for a path below a folder. It crosses no link and no mount: a user's file system may hang."""
    above = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        fd = _openat2(above, os.fsencode(path), os.O_RDONLY | os.O_NONBLOCK, _BENEATH)
    finally:
        os.close(above)
    return _whole(fd, most)


def open_in_root(root: int, path: bytes, flags: int) -> int:
    """A descriptor of a path, as seen by programs whose root is the folder of descriptor root. OSError as openat2(2).

    No link leads out of that root, and none of /proc anywhere.
    """
    return _openat2(root, path, flags, _IN_ROOT)


def open_regular(root: int, path: bytes) -> int:
    """A descriptor of a regular file, to read, as seen by programs whose root is the folder of descriptor root.

    OSError if it is something else: that is not opened, as a device does things when it is. A file system in the way
    need not answer, so this may never return, and reading neither.
    """
    found = open_in_root(root, path, os.O_PATH)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise OSError("not a regular file")
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(found)


def _openat2(folder: int, path: bytes, flags: int, resolve: int) -> int:
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    fd: int = _libc.syscall(_OPENAT2, folder, path, ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


def load_json(path: Path, read: Callable[[], bytes]) -> Any:
    """The JSON that read returns for path. None if path is not there; None and a log line if it cannot be read."""
    try:
        return orjson.loads(read())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        log.warning("%s: %s", path, error)
        return None


class StateFile:
    """A recorder's memory in a file, for the next agent. problem: why the file is not up to date, or empty."""

    def __init__(self, path: Path, what: str) -> None:
        """Remember in path, which need not be there. what: what is in it, for the log."""
        self._path, self._what = path, what
        self.problem = ""

    def recall(self, take: Callable[[Any], None]) -> None:
        """Give take what was written last, if there is any; a file that cannot be read or used is told in the log.

        So take is to change nothing before it has looked at everything.
        """
        try:
            take(orjson.loads(self._path.read_bytes()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s: %s: %s are lost", self._path, error, self._what)

    def write(self, content: Any) -> bool:
        """Write the file anew. Returns whether it could be; a disk that refuses is told in the log, once."""
        try:
            _write_json(self._path, content)
        except OSError as error:
            problem = error.strerror or str(error)
            if problem != self.problem:
                log.warning("%s: %s: %s are not saved", self._path, error, self._what)
            self.problem = problem
            return False
        self.problem = ""
        return True


def _write_json(path: Path, content: Any) -> None:
    """Write a file whole or not at all, in a folder that is made if need be. OSError if it cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_suffix(".new")
    new.write_bytes(orjson.dumps(content))
    new.replace(path)


def _whole(fd: int, most: int) -> bytes:
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("not a regular file")
        data = read_bytes(fd, most + 1)
    finally:
        os.close(fd)
    if len(data) > most:
        raise OSError(f"longer than {most >> 10} KiB")
    return data


def printable(text: str) -> str:
    """Text that may hold what no encoding has, such as a path (os.fsdecode): JSON and protobuf refuse it as it is."""
    return text.encode("utf-8", "backslashreplace").decode()


def read_bytes(fd: int, most: int) -> bytes:
    """The next bytes of an open file: so many, or fewer at its end. OSError as read(2)."""
    data = bytearray()  # /proc gives a page at a time
    while len(data) < most and (more := os.read(fd, most - len(data))):
        data += more
    return bytes(data)
