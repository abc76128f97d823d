"""Mounts of containers, as /proc/PID/mountinfo of their first process tells them: proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from agent.containers.cgroups import processes_in
from agent.containers.tracker import Cgroup
from agent.files import read_bytes
from agent.processes import first_of, held
from agent.readers import Reading

#: Of one container: a process may make any number of mounts.
MOST_MOUNTS, MOST_BYTES = 4096, 4 << 20
_PROCESSES = 4096
#: What runtimes mount where: file systems, some by their names, and files of devices for lack of mknod.
_FOLDERS = {b"proc": b"/proc/", b"sysfs": b"/sys/"}
_OWN = {(b"/dev", b"tmpfs"), (b"/dev/shm", b"shm"), (b"/sys/fs/cgroup", b"tmpfs"), (b"/sys/fs/cgroup", b"cgroup")}
_DEVICES = {b"/null", b"/zero", b"/full", b"/random", b"/urandom", b"/tty"}
_OCTAL = re.compile(rb"\\([0-7]{3})")


class Reader:
    """Reads mounts."""

    def __init__(self, mount: Path, proc: Path) -> None:
        """Of containers below mount, whose processes are in proc."""
        self._mount, self._proc = mount, proc
        #: the devices of what the node has mounted; None if that is not known
        self._of_node: set[bytes] | None = None

    def read(self, containers: Sequence[Cgroup]) -> Iterator[Reading]:
        """Each mount of each container."""
        self._of_node = None
        with suppress(OSError):  # the agent may not see the first process
            lines = (self._proc / "1/mountinfo").read_bytes().split(b"\n")
            self._of_node = {_device(line) for line in lines if parse(line)}
        for each in containers:
            yield Reading(each.id, {})
            with suppress(OSError):  # it has just ended
                yield from self._of(each)

    def _of(self, cgroup: Cgroup) -> Iterator[Reading]:
        list_now = partial(processes_in, self._mount / cgroup.path.lstrip("/"), _PROCESSES)
        first = first_of(list_now(), self._proc, settled=0)
        with held(list_now, self._proc, 1, [first]) as processes:
            for process in processes:
                fd = process.open("mountinfo")
                try:
                    data = read_bytes(fd, MOST_BYTES)
                finally:
                    os.close(fd)
                *lines, _ = data.split(b"\n")  # alone: the kernel escapes no other end of a line
                cut = len(data) >= MOST_BYTES
                found = [(values, _device(line)) for line in lines[:MOST_MOUNTS] if (values := parse(line))]
                over, own = Counter(values["target"] for values, _ in found), os.fsencode(cgroup.path).split(b"/")[-1]
                for values, device in found:
                    of_node = self._of_node is None or device in self._of_node
                    runtime = over[values["target"]] == 1 and is_of_runtime(values, own, of_node=of_node)
                    yield Reading(cgroup.id, {**values, "pid": process.pid, "runtime": runtime})
                if lost := len(lines[MOST_MOUNTS:]) or cut:
                    yield Reading(cgroup.id, {}, int(lost))


def parse(line: bytes) -> dict[str, Any] | None:
    """The values of a line; None if it makes no sense."""
    before, dash, behind = line.partition(b" - ")
    fields, of_fs = before.split(b" "), behind.split(b" ")
    if not dash or len(fields) < 6 or len(of_fs) < 2 or not (fields[0].isdigit() and fields[1].isdigit()):
        return None
    return {
        "id": int(fields[0]),
        "parent": int(fields[1]),
        "root": _plain(fields[3]),
        "target": _plain(fields[4]),
        "options": _plain(fields[5]),
        "propagation": _propagation(fields[6:]),
        "type": _plain(of_fs[0]),
        "source": _plain(of_fs[1]),
        "fs_options": _plain(of_fs[2]) if len(of_fs) > 2 else b"",
    }


def is_of_runtime(values: Mapping[str, Any], own: bytes, *, of_node: bool) -> bool:
    """Whether runtimes mount it in every container.

    own is the name of the container's cgroup. of_node: the node has its file system mounted, or may have.
    """
    kind, target, root, options = (bytes(values[name]) for name in ("type", "target", "root", "options"))
    is_own, is_read_only = not of_node and root == b"/", b"ro" in options.split(b",")
    match kind:
        case b"proc" | b"sysfs":
            return not of_node and (target + b"/").startswith(_FOLDERS[kind])
        case b"cgroup" | b"cgroup2":  # all have one, to be written to only their own
            return (target + b"/").startswith(b"/sys/fs/cgroup/") and (is_read_only or own in root.split(b"/"))
        case b"mqueue" | b"devpts":
            return not of_node and target in (b"/dev/mqueue", b"/dev/pts", b"/dev/console")
        case b"tmpfs" | b"devtmpfs":
            is_device = target == b"/dev" + root and root in _DEVICES
            is_hiding = target.startswith((b"/proc/", b"/sys/")) and (root == b"/null" or (is_own and is_read_only))
            is_shared = target == b"/dev/shm" and root == b"/"  # by the containers of a pod
            return is_device or is_hiding or ((is_own or is_shared) and (target, values["source"]) in _OWN)
    return False


def _device(line: bytes) -> bytes:
    """Major and minor number of a file system."""
    return line.split(b" ", 3)[2]


def _propagation(tags: Sequence[bytes]) -> str:
    names = {tag.partition(b":")[0] for tag in tags}
    if b"unbindable" in names:
        return "unbindable"
    if b"shared" in names:
        return "shared slave" if b"master" in names else "shared"
    return "slave" if b"master" in names else "private"


def _plain(text: bytes) -> bytes:
    """Without the kernel's escapes: whoever shows it makes its own."""
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8) & 0xFF]), text)
