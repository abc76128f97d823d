from __future__ import annotations

from contextlib import closing
from pathlib import Path

from agent.containers.cgroups import CgroupTree


def test_walk_beside_many(tmp_path: Path) -> None:
    """Containers are found at an agent's start beside any number of cgroups that a user has made."""
    own = [f"/user.slice/{number}" for number in range(20)]
    pods = ["/kubepods", "/kubepods/pod", "/kubepods/pod/cart"]
    for path in (*own, *pods):
        (tmp_path / path[1:]).mkdir(parents=True)
    with closing(CgroupTree(tmp_path)) as tree:
        found = list(tree.walk(lambda path: False, 5))
        assert found[0] == "/" and set(pods) <= set(found)
        assert len(found) == 1 + 5 + 3
        assert set(tree.walk(lambda path: path == "/kubepods/pod")) == {"/", "/user.slice", *own, *pods[:2]}
