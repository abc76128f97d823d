"""Containers of users who are not root: which user a cgroup belongs to, and what this user's own files say.

A user may name cgroups as any runtime does, and put anything anywhere below home: links, pipes, file systems that
never answer.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from agent.containers.cgroups import find_cgroup2
from agent.containers.identity import CgroupPath
from agent.files import load_json, read_below, read_text
from gadget.errors import Unsupported

#: Longer files are not read. A pod of 1.5 MB, etcd's limit, is well below this.
MOST_BYTES = 4 << 20
_SLICE = re.compile(r"user-(\d+)\.slice")


class Users:
    """The users of a host."""

    def __init__(self, host_root: Path) -> None:
        """Look below the host's root."""
        self._host_root = host_root
        try:
            self._cgroups: Path | None = find_cgroup2(host_root)
        except Unsupported:
            self._cgroups = None

    def owner(self, place: CgroupPath) -> int:
        """The user that a container belongs to: who may make cgroups where it is. 0 is root."""
        above = Path(place.path).parent
        while self._cgroups and above != above.parent:
            try:
                return os.stat(self._cgroups / str(above).lstrip("/")).st_uid
            except OSError:
                above = above.parent  # it has gone since
        users = [user[1] for part in Path(place.path).parent.parts if (user := _SLICE.fullmatch(part))]
        return 0 if self._cgroups or not users else int(users[-1])

    def load(self, user: int, path: str) -> Any:
        """A JSON file below a user's home; None if there is none that can be read at once."""
        home = self._home(user)
        if home is None:
            return None
        # from above home, so that home is no file system of the user's either
        return load_json(home / path, lambda: read_below(home.parent, f"{home.name}/{path}", MOST_BYTES))

    def _home(self, user: int) -> Path | None:
        """A user's home, by the host's own list: who looks through all homes is at the mercy of each."""
        try:
            lines = read_text(self._host_root / "etc/passwd", MOST_BYTES).split("\n")
        except OSError:
            return None
        fields = next((each for line in lines if len(each := line.split(":")) == 7 and each[2] == str(user)), None)
        if not fields or not fields[5].startswith("/") or len(Path(fields[5]).parts) < 2:
            return None
        return self._host_root / fields[5].lstrip("/")
