"""Names for cgroup ids: who the process behind an event belongs to."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from agent.cgroups import CgroupTree, find_cgroup2
from agent.identity import Container, identify, parse_path

#: Cgroups remembered, living or gone; about 300 bytes each.
REMEMBERED = 20_000


class Containers:
    """Resolves cgroup ids to containers, and remembers them for events that arrive after their cgroup is gone."""

    def __init__(self, host_root: Path = Path("/")) -> None:
        """Look at the cgroup tree of the host whose root is mounted at host_root."""
        self._host_root = host_root
        self._tree = CgroupTree(find_cgroup2(host_root))
        self._known: OrderedDict[int, Container | None] = OrderedDict()
        self._lock = threading.Lock()
        for path in Path(self._tree.mount).rglob("*/"):
            self.resolve(path.stat().st_ino)

    def resolve(self, cgroup_id: int) -> Container | None:
        """The container of a cgroup; None for the host's own processes and for a cgroup that was gone too soon."""
        with self._lock:
            if cgroup_id in self._known:
                self._known.move_to_end(cgroup_id)
                return self._known[cgroup_id]
            path = self._tree.path(cgroup_id)
            place = parse_path(path) if path else None
            container = identify(place, self._host_root) if place else None
            if path:
                self._known[cgroup_id] = container
                if len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            return container

    def living(self) -> dict[int, Container]:
        """The containers that run now, by cgroup id."""
        with self._lock:
            known = list(self._known.items())
        return {
            cgroup_id: container
            for cgroup_id, container in known
            if container and not container.sandbox and self._tree.path(cgroup_id)
        }

    def close(self) -> None:
        """Forget everything."""
        self._tree.close()
