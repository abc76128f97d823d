"""Names of users and groups are those of a container's own files, whatever the container does to them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.containers import accounts
from agent.containers.accounts import ALL_NAMES, CONTAINER_NAMES, FILE_NAMES, HOST, Accounts, parse
from tests.conftest import wait_until

IDENTITY = "         0          0 4294967295\n"
HOST_PASSWD = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"
PASSWD = (
    "root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\nweb2:x:1000:1000::/:/bin/sh\nnobody:*:65534:65534::/:\n"
)
GROUP = "root:x:0:\nwww:x:1000:web,ann\n"


class Machine:
    """A host's files, and containers by number: each has a cgroup, a process and a root."""

    def __init__(self, folder: Path, **settings: int) -> None:
        self.folder, self.time = folder, 1000.0
        self.put("host/etc/passwd", HOST_PASSWD)
        self.put("host/etc/group", "root:x:0:\n")
        self.process(1, "host")
        self.accounts = Accounts(self.cgroup, folder / "proc", folder / "elsewhere", lambda: self.time, **settings)

    def put(self, path: str, text: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def process(self, pid: int, root: str, users: str = IDENTITY, groups: str = IDENTITY) -> None:
        self.put(f"proc/{pid}/stat", f"{pid} (x) S 1\n")
        self.put(f"proc/{pid}/uid_map", users)
        self.put(f"proc/{pid}/gid_map", groups)
        (self.folder / root).mkdir(parents=True, exist_ok=True)
        link = self.folder / f"proc/{pid}/root"
        link.unlink(missing_ok=True)
        link.symlink_to(self.folder / root)

    def cgroup(self, cgroup_id: int) -> Path:
        return self.folder / f"cgroup/{cgroup_id}"

    def container(self, number: int, passwd: str = PASSWD, group: str = GROUP, **maps: str) -> None:
        self.put(f"cgroup/{number}/cgroup.procs", f"{number}\n")
        self.put(f"root/{number}/etc/passwd", passwd)
        self.put(f"root/{number}/etc/group", group)
        self.process(number, f"root/{number}", **maps)

    def user(self, number: int, uid: int = 1000) -> str:
        return self.accounts.user(number, uid)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_names(machine: Machine) -> None:
    """The user and the group of a process have the names that its container knows, not those of the host."""
    machine.container(100)
    assert [machine.user(100, uid) for uid in (0, 1000, 65534, 7, 0xFFFFFFFF)] == [
        "root",
        "web",
        "nobody",
        "<NA>",
        "<NA>",
    ]
    assert [machine.accounts.group(100, gid) for gid in (0, 1000, 7)] == ["root", "www", "<NA>"]
    assert [machine.user(HOST, uid) for uid in (0, 1000, 65534)] == ["root", "ann", "<NA>"]


def test_no_files(machine: Machine) -> None:
    """In an image without /etc/passwd root is root, and nobody else has a name."""
    machine.put("cgroup/100/cgroup.procs", "100\n")
    machine.process(100, "root/100")
    assert [machine.user(100, 0), machine.accounts.group(100, 0), machine.user(100)] == ["root", "root", "<NA>"]
    assert machine.user(999) == "<NA>"  # a container that is gone


def test_user_namespaces(machine: Machine) -> None:
    """In a user namespace a process has the user that it is inside, not the number that the host gave it."""
    machine.container(100, users="0 100000 1000\n5000 200000 1\n", groups="0 300000 65536\n")
    assert [machine.user(100, uid) for uid in (100000, 100999, 101000, 200000, 0)] == [
        "root",
        "<NA>",
        "<NA>",
        "<NA>",
        "<NA>",
    ]
    assert [machine.accounts.group(100, gid) for gid in (300000, 301000)] == ["root", "www"]
    machine.container(101, PASSWD + "late:x:5000:0:::\n", users="0 100000 1001\n5000 200000 1\n")
    assert [machine.user(101, uid) for uid in (101000, 200000)] == ["web", "late"]


def test_changes(machine: Machine) -> None:
    """Who was added to a running container has a name within 2 s, and files are not read again without need."""
    machine.container(100)
    assert machine.user(100, 42) == "<NA>"
    machine.put("root/100/etc/new", "fresh:x:42:42:::\n").rename(machine.folder / "root/100/etc/passwd")
    assert machine.user(100, 42) == "<NA>"
    machine.time += 2
    assert machine.user(100, 42) == "fresh"
    kept = machine.accounts._known[100].tables
    machine.time += 2
    assert machine.user(100, 42) == "fresh"
    assert machine.accounts._known[100].tables[0] is kept[0]


def test_after_the_end(machine: Machine) -> None:
    """The names of a container that has ended stay known for what it did last."""
    machine.container(100)
    assert machine.user(100) == "web"
    machine.put("cgroup/100/cgroup.procs", "")
    machine.time += 2
    assert machine.user(100) == "web"


def test_helpers_of_the_runtime(machine: Machine) -> None:
    """What a runtime does for a container before it enters its root does not give it the host's users."""
    machine.container(100)
    machine.process(100, "host")
    assert machine.user(100) == "ann"
    machine.process(100, "root/100")
    machine.time += 0.05
    assert machine.user(100) == "web"


def test_process_of_others(machine: Machine) -> None:
    """A number that another container's process has by now is not taken for one of this container."""
    machine.container(100)
    machine.container(200, "other:x:1000:0:::\n")
    lists = iter(["100\n", "200\n"])
    procs = machine.folder / "cgroup/100/cgroup.procs"
    real = accounts.processes_in

    def changing(folder: Path, most: int) -> list[int]:
        procs.write_text(next(lists))
        return real(folder, most)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accounts, "processes_in", changing)
        assert machine.user(100) == "<NA>"


@pytest.mark.parametrize("kind", ["link out", "absolute link", "pipe", "folder", "device", "magic"])
def test_files_that_are_traps(machine: Machine, kind: str) -> None:
    """No container shows the host's files as its own, and none makes the agent wait by a pipe or open a device."""
    machine.container(100)
    passwd = machine.folder / "root/100/etc/passwd"
    passwd.unlink()
    machine.put("root/secret", PASSWD)
    if kind == "link out":
        passwd.symlink_to("../../secret")
    elif kind == "absolute link":
        passwd.symlink_to(machine.folder / "host/etc/passwd")
    elif kind == "magic":
        (machine.folder / "root/100/etc/proc").symlink_to("/proc")
        passwd.symlink_to("/proc/self/root/etc/passwd")
    elif kind == "pipe":
        os.mkfifo(passwd)
    elif kind == "folder":
        passwd.mkdir()
    elif os.geteuid() == 0:
        os.mknod(passwd, 0o600 | 0o020000, os.makedev(1, 5))  # zero
    began = time.monotonic()
    assert [machine.user(100), machine.user(100, 0)] == ["<NA>", "root"]
    assert machine.accounts.group(100, 1000) == "www"
    assert time.monotonic() - began < 1


def test_link_inside(machine: Machine) -> None:
    """A link that leads to a file of the same container is followed, from the container's root."""
    machine.container(100)
    passwd = machine.folder / "root/100/etc/passwd"
    passwd.rename(machine.folder / "root/100/users")
    passwd.symlink_to("/users")
    assert machine.user(100) == "web"


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Files of roots of even containers do not answer until the event is set."""
    answer = threading.Event()
    real = accounts.open_regular

    def slow(root: int, path: bytes) -> int:
        if int(os.readlink(f"/proc/self/fd/{root}").rpartition("/")[2] or 1) % 2 == 0:
            answer.wait(20)
        return real(root, path)

    monkeypatch.setattr(accounts, "open_regular", slow)
    yield answer
    answer.set()


def test_file_systems_that_do_not_answer(machine: Machine, stuck: threading.Event) -> None:
    """A container whose file system never answers costs a tenth of a second, once, and no other container its names."""
    machine.container(100)
    machine.container(101)
    began = time.monotonic()
    assert machine.user(100) == "<NA>"
    assert 0.05 < time.monotonic() - began < 2
    began = time.monotonic()
    for _ in range(1000):
        machine.time += 2
        assert machine.user(100, 7) == "<NA>"
    assert time.monotonic() - began < 1
    assert machine.user(101) == "web"
    stuck.set()

    def is_told() -> bool:
        machine.time += 2
        return machine.user(100) == "web"

    wait_until(is_told, "the name")


def test_memory(tmp_path: Path) -> None:
    """However many users containers make up, and however many containers there are, the memory for them is bounded."""
    assert ALL_NAMES * 150 < 32 << 20
    machine = Machine(tmp_path / "one")
    many = "".join(f"u{number}:x:{number}:0:::\n" for number in range(1, FILE_NAMES + 7))
    machine.container(100, many)
    assert [machine.user(100, FILE_NAMES), machine.user(100, FILE_NAMES + 1)] == [f"u{FILE_NAMES}", "<NA>"]
    machine = Machine(tmp_path / "many", most_names=3 * CONTAINER_NAMES + 15)
    for number in range(101, 108):
        machine.container(number)
        assert machine.user(number) == "web"
    known = machine.accounts._known
    assert list(known) == [105, 106, 107]
    assert machine.accounts._size == sum(each.size for each in known.values())
    assert machine.user(101) == "web"


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (b"a:x:1:2::/:/bin/sh\nb:x:2:2::/:\n", {1: "a", 2: "b"}),
        (b"+::::::\n-x:x:3:\n:x:4:\nx:x:five:\ny:x:-6:\nz:x:7\n", {}),  # NSS, no name, no number, cut
        (b"\xff\x1b[31m:x:1:\n", {1: "\\xff\x1b[31m"}),
        (b"a" * 257 + b":x:1:\n" + b"b" * 256 + b":x:2:\n", {2: "b" * 256}),
        (b"a:x:4294967296:\nb:x:00000000001:\n", {4294967296: "a"}),
        (b"", {}),
    ],
)
def test_lines(data: bytes, names: dict[int, str]) -> None:
    """Lines that are no user's are left out, and what is not text is shown as such."""
    assert parse(data) == names


@given(st.binary(max_size=200) | st.lists(st.sampled_from([b"a", b":", b"\n", b"1", b"\xff"])).map(b"".join))
def test_any_file(data: bytes) -> None:
    """Whatever is in the file, names are text and few."""
    assert all(isinstance(name, str) and number >= 0 for number, name in parse(data).items())
