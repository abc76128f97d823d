"""Finds the state folders of containerd, wherever a distribution put them, by its shim processes.

A shim works in the folder of its container. Any program may look like a shim. So a shim is believed only if it is
root's and outside containers, and only if its folder is in one that only root can write to.
"""

from __future__ import annotations

import logging
import os
import re
import time
from pathlib import Path

from agent.containers.identity import parse_path
from agent.files import read_text
from gadget.errors import UsageError
from gadget.runtimes import CONTAINERS, State, parse_state

log = logging.getLogger(__name__)

AGAIN_SECONDS = 30.0
#: How many processes are looked at: anybody can make more, and the shims of a node are among the first.
MOST_SECONDS = 0.1
_COMM = "containerd-shim"  # as much of it as a name holds
_FOLDER = re.compile(rf"(/.+)/{re.escape(CONTAINERS['containerd'])}/[^/]+/[^/]+")


class Shims:
    """Finds state folders."""

    def __init__(self, proc: Path, host_root: Path) -> None:
        """Look at the host's processes in proc, and at folders below its root."""
        self._proc = proc
        self._host_root = host_root
        self._next = 0.0

    def states(self) -> list[State]:
        """The state folders that exist; none if they were looked for just now."""
        now = time.monotonic()
        if now < self._next:
            return []
        self._next = now + AGAIN_SECONDS
        found: dict[str, State | None] = {}
        for number in sorted(int(name) for name in os.listdir(self._proc) if name.isdecimal()):
            if time.monotonic() - now > MOST_SECONDS:
                break
            if (path := self._place(self._proc / str(number))) and path not in found:
                found[path] = self._state(path)
        return list(filter(None, found.values()))

    def _place(self, process: Path) -> str:
        """The state folder that a process works in; empty if it is not a shim, or not root's."""
        try:
            if not read_text(process / "comm").startswith(_COMM):
                return ""
            # not the owner of /proc/PID, which is root too where a program has made itself undumpable
            users = next(line for line in read_text(process / "status").split("\n") if line.startswith("Uid:"))
            cgroups = read_text(process / "cgroup").split("\n")
            folder = os.readlink(process / "cwd")
        except (OSError, StopIteration):
            return ""
        inside = any(parse_path(line.removeprefix("0::")) for line in cgroups if line.startswith("0::"))
        if users.split()[1:] != ["0"] * 4 or inside:
            return ""
        found = _FOLDER.fullmatch(folder)
        return found[1] if found else ""

    def _state(self, path: str) -> State | None:
        try:
            state = parse_state(path)
        except UsageError:
            return None
        folder = self._host_root / state.containers.lstrip("/")
        if not folder.is_dir():
            log.warning("containerd has %s, which is not here: deploy --runtime-state %s", path, path)
            return None
        for each in (folder, *folder.parents):
            if each == self._host_root:
                break
            about = os.stat(each)
            if about.st_uid != 0 or about.st_mode & 0o022:
                log.warning("containerd has %s, where others than root may write", path)
                return None
        log.info("containerd has %s", path)
        return state
