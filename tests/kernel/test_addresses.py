"""The addresses of network namespaces that others have filled: told at once, whatever is in there."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.containers import addresses, rtnetlink
from agent.containers.addresses import Addresses, addresses_of, first_pid, network_of
from tests.conftest import wait_until

pytestmark = pytest.mark.kernel
ROUTES, MANY = 120_000, 3_001


class Network:
    """A process in a network namespace of its own."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
        self.path = Path("/proc", str(self.process.pid))
        wait_until(lambda: network_of(self.path) not in ("", network_of(Path("/proc/self"))), "a namespace")

    def ip(self, *lines: str) -> None:
        command = ["nsenter", f"--net={self.path}/ns/net", "ip", "-batch", "-"]
        subprocess.run(command, input="\n".join(lines), text=True, check=True)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def network() -> Iterator[Callable[[], Network]]:
    with ExitStack() as stack:

        def make() -> Network:
            made = Network()
            stack.callback(made.end)
            return made

        yield make


def seconds(call: Callable[[], object], times: int = 5) -> float:
    """What a call takes when nobody else wants this CPU."""
    taken = []
    for _ in range(times):
        began = time.monotonic()
        call()
        taken.append(time.monotonic() - began)
    return min(taken)


def test_many_routes(network: Callable[[], Network], monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with 120,000 routes has its addresses within 50 ms; without the right to enter it, in 0.5 s."""
    made = network()
    own = "link set lo up", "addr add 10.9.8.7/24 dev lo", "addr add fd77::7/64 dev lo", "addr add 169.254.7.7 dev lo"
    made.ip(*own, *(f"route add blackhole 11.{at >> 16}.{at >> 8 & 255}.{at & 255}" for at in range(ROUTES)))
    assert addresses_of(made.path) == ("10.9.8.7", "fd77::7")
    assert seconds(lambda: addresses_of(made.path)) < 0.05

    def refused(namespace: int) -> None:
        raise PermissionError

    monkeypatch.setattr(rtnetlink, "enter", refused)
    assert "fd77::7" in addresses_of(made.path)
    assert seconds(lambda: addresses_of(made.path)) < 0.5


def test_many_addresses(network: Callable[[], Network]) -> None:
    """Of a container with 3,000 addresses I see 64, at once."""
    made = network()
    ten = [f"addr add 10.7.{at >> 8}.{at & 255}/32 dev lo" for at in range(MANY)]
    made.ip("link set lo up", *ten)
    found = addresses_of(made.path)
    assert len(found) == rtnetlink.MOST and set(found) <= {f"10.7.{at >> 8}.{at & 255}" for at in range(MANY)}
    assert seconds(lambda: addresses_of(made.path)) < 0.05


def test_odd_interface(network: Callable[[], Network], monkeypatch: pytest.MonkeyPatch) -> None:
    """An interface whose name is not UTF-8 costs nothing, with the right to enter its network and without."""
    made = network()
    name = b"\xff\xc2\x85fe01"  # in it U+0085, which str.splitlines takes for the end of a line
    for command in (
        [b"link", b"add", name, b"type", b"veth", b"peer", b"name", b"other"],
        [b"addr", b"add", b"fd77::9/64", b"dev", name],
    ):
        subprocess.run([b"nsenter", os.fsencode(f"--net={made.path}/ns/net"), b"ip", *command], check=True)
    assert addresses_of(made.path) == ("fd77::9",)

    def refused(namespace: int) -> None:
        raise PermissionError

    monkeypatch.setattr(rtnetlink, "enter", refused)
    assert addresses_of(made.path) == ("fd77::9",)


def test_remembered(network: Callable[[], Network], monkeypatch: pytest.MonkeyPatch) -> None:
    """A network is not read again at once, however many ask; an address that comes later is seen after a second."""
    made = network()
    now, reads = [time.clock_gettime(time.CLOCK_BOOTTIME) + 1.0], []
    real = addresses.read_addresses
    monkeypatch.setattr(addresses, "read_addresses", lambda *args: (reads.append(1), real(*args))[1])
    known = Addresses(clock=lambda: now[0])
    inode = os.stat(made.path / "ns/net").st_ino
    assert [known.of(made.process.pid) for _ in range(10)] == [(inode, ())] * 10
    made.ip("addr add 10.1.2.3 dev lo")
    assert known.of(made.process.pid) == (inode, ())
    assert len(reads) == 1
    now[0] += addresses.AGAIN_SECONDS
    assert known.of(made.process.pid) == (inode, ("10.1.2.3",))
    assert len(reads) == 2


def test_inode_of_another(network: Callable[[], Network]) -> None:
    """A new pod never has the addresses of one that is gone: the kernel gives the inode of its namespace again."""
    made = network()
    made.ip("addr add 10.1.2.3 dev lo")
    began = addresses._started(made.path)
    known = Addresses(clock=lambda: began + 0.2)
    inode = os.stat(made.path / "ns/net").st_ino
    known._networks[inode] = addresses._Network(("10.9.9.9",), read=began - 0.05)  # less than a second ago
    assert known.of(made.process.pid) == (inode, ("10.1.2.3",))


def test_another_process(network: Callable[[], Network], tmp_path: Path) -> None:
    """If a process's number is another's by the time it is looked at, nothing of that one is told."""
    made = network()
    made.ip("addr add 10.1.2.3 dev lo")
    (tmp_path / "cgroup.procs").write_text(f"{made.process.pid}\n")
    known = Addresses()
    inode = os.stat(made.path / "ns/net").st_ino
    assert known.of_cgroup(tmp_path) == (inode, ("10.1.2.3",))
    assert known.of(made.process.pid, lambda: False) == (0, ())
    made.end()
    assert known.of_cgroup(tmp_path) == (0, ())


def test_cgroups_without_end(tmp_path: Path) -> None:
    """A container that fills its cgroup with others costs no more than 64 of them, and its processes are found."""
    for name in (*map(str, range(300)), "/".join(["deep"] * 30)):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "cgroup.procs").touch()
    (tmp_path / "cgroup.procs").write_bytes(b"0\n")
    assert first_pid(tmp_path) == 0
    assert len(list(addresses._folders(tmp_path))) <= addresses.MOST_FOLDERS
    (tmp_path / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in range(1_000_000, 1_002_000)))
    assert first_pid(tmp_path) == 1_000_000


def test_no_descriptors_are_left(network: Callable[[], Network]) -> None:
    """To ask as often as one likes leaves no file open, and no thread."""
    made = network()
    addresses_of(made.path)
    before = len(os.listdir("/proc/self/fd"))
    known = Addresses()
    for _ in range(50):
        addresses_of(made.path)
        known.of(made.process.pid)
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before, "descriptors to be closed")
