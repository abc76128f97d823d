"""Names of users in real containers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.containers.accounts import HOST, Accounts
from agent.containers.tracker import Tracker
from tests.conftest import wait_until

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n"


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    with closing(Tracker()) as running:
        yield running


def accounts_of(tracker: Tracker) -> Accounts:
    def folder(cgroup_id: int) -> Path:
        found = tracker.resolve(cgroup_id)
        assert found
        return tracker.folder(found)

    return Accounts(folder, tracker.proc)


def in_user_namespace(config: dict[str, Any]) -> None:
    config["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        config["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]


@pytest.mark.parametrize("mapped", [False, True], ids=["host's numbers", "user namespace"])
def test_users_of_a_container(tracker: Tracker, make_pod, tmp_path: Path, mapped: bool) -> None:
    """Users have the names that the container gives them, also those who are added while it runs, and in a user namespace."""
    passwd = tmp_path / "passwd"
    passwd.write_text(PASSWD)
    change = in_user_namespace if mapped else None
    container = make_pod("shop", "users-0").container(
        "app", "/bin/sleep", "60", files={"/etc/passwd": passwd}, change=change
    )
    (cgroup,) = [each for each in tracker.containers() if each.container and each.container.id == container.id]
    accounts, first = accounts_of(tracker), 100000 if mapped else 0
    wait_until(lambda: accounts.user(cgroup.id, first + 1000) == "web", "its own names")
    assert [accounts.user(cgroup.id, first + each) for each in (0, 7)] == ["root", "<NA>"]
    assert accounts.group(cgroup.id, first) == "root"
    assert accounts.user(HOST, 0) == "root"
    with (container.bundle / "rootfs/etc/passwd").open("a") as file:
        file.write("late:x:7:7:::\n")
    wait_until(lambda: accounts.user(cgroup.id, first + 7) == "late", "the name of the new user")
