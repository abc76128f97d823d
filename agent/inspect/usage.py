"""The limits of a process and of its cgroups, and how much of each is in use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from agent.files import read_text
from agent.processes import Process
from gadget._generated import gadget_pb2 as pb

#: proc_pid_limits(5)
_LIMITS = {
    "Max open files": "nofile",
    "Max processes": "nproc",
    "Max address space": "as",
    "Max file size": "fsize",
    "Max locked memory": "memlock",
    "Max data size": "data",
    "Max stack size": "stack",
}
#: Of proc_pid_status(5), in KiB.
_USED = {"VmSize": "as", "VmLck": "memlock", "VmData": "data", "VmStk": "stack"}
_INOTIFY = {"inotify_watches": "max_user_watches", "inotify_instances": "max_user_instances"}
#: Descriptors that are counted where the kernel does not tell their number (before Linux 6.2).
_MOST_FILES = 65_536
#: Version 1 has no word for none: what is above is more than a machine has.
_NONE = 1 << 62
_STATUS_BYTES = 1 << 16


def of_process(process: Process) -> Iterator[pb.Usage]:
    """Soft limits of a process. OSError if it is over."""
    used = {"nofile": _open_files(process)}
    for line in process.read("status", _STATUS_BYTES).split("\n"):
        name, _, value = line.partition(":")
        if name in _USED and value.split()[1:] == ["kB"]:
            used[_USED[name]] = int(value.split()[0]) << 10
    for line in process.read("limits").split("\n"):
        name, soft = line[:26].strip(), line[26:].split()[:1]
        if name in _LIMITS and soft:
            limit = int(soft[0]) if soft[0].isdigit() else None
            yield pb.Usage(name=_LIMITS[name], limit=limit, used=used.get(_LIMITS[name]))


def _open_files(process: Process) -> int | None:
    try:
        fd = process.open("fd", os.O_PATH)
        try:
            counted = os.fstat(fd).st_size
        finally:
            os.close(fd)
    except OSError:
        return None
    return counted or len(process.names("fd", _MOST_FILES)) or None


def of_cgroup(folder: Path, mount: Path) -> Iterator[pb.Usage]:
    """Memory and number of processes of a cgroup2, or of the cgroup of version 1 beside it with the same path."""
    below = folder.relative_to(mount) if folder.is_relative_to(mount) else Path("gone")
    names = {"memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"), "pids": ("pids.max", "pids.current")}
    for name, (limit, used) in names.items():
        if (found := _tightest(name, folder, mount, f"{name}.max", f"{name}.current")) or (
            found := _tightest(name, mount.parent / name / below, mount.parent / name, limit, used)
        ):
            yield found


def _tightest(name: str, folder: Path, top: Path, limit: str, used: str) -> pb.Usage | None:
    """The limit with the least left, of a cgroup and those above it. Without a limit, what the cgroup itself uses."""
    found: pb.Usage | None = None
    while folder != top and folder.is_relative_to(top):
        most, taken = _number(folder / limit), _number(folder / used)
        if taken is not None and (found is None or _left(most, taken) < _left_of(found)):
            found = pb.Usage(name=name, limit=most, used=taken)
        folder = folder.parent
    return found


def _left(limit: int | None, used: int) -> float:
    return float("inf") if limit is None else limit - used


def _left_of(usage: pb.Usage) -> float:
    return _left(usage.limit if usage.HasField("limit") else None, usage.used)


def of_node(proc: Path) -> Iterator[pb.Usage]:
    """How many inotify(7) instances and watches each user may have."""
    for name, file in _INOTIFY.items():
        if (limit := _number(proc / "sys/fs/inotify" / file)) is not None:
            yield pb.Usage(name=name, limit=limit)


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):  # "max"
        number = int(read_text(path))
        return number if number < _NONE else None
    return None
