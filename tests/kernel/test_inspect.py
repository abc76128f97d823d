"""What the node says of containers that run: files, limits, sockets, and what their threads wait for."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.containers.tracker import Tracker
from agent.inspect import paths
from agent.inspect.service import SECONDS, Inspector
from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from tests.conftest import Agent, run_cli, wait_until
from tests.kernel.recordings import ended
from tests.pods import Container

_libc = ctypes.CDLL(None, use_errno=True)


def inspect(
    agent: Agent, container: Container, paths: tuple[str, ...] = (), ports: tuple[int, ...] = ()
) -> pb.InspectReply:
    """What an agent answers."""
    with grpc.insecure_channel(agent.address) as channel:
        stub = rpc.AgentStub(channel)
        return stub.Inspect(
            pb.InspectRequest(cgroup_id=cgroup_of(stub, container), paths=paths, ports=ports), timeout=5
        )


def cgroup_of(stub: Any, container: Container) -> int:
    """The number of a container's cgroup."""
    (reply,) = stub.Containers(pb.ContainersRequest(), timeout=5)
    return next(each.container.cgroup_id for each in reply.containers if each.container.id == container.id)


def until_waits(agent: Agent, container: Container, right: Callable[[pb.Wait], bool]) -> pb.Wait:
    """The first of its waits that is as it should be."""
    found: list[pb.Wait] = []

    def there() -> bool:
        found[:] = [wait for wait in inspect(agent, container).waits if right(wait)]
        return bool(found)

    wait_until(there, "what it waits for")
    return found[0]


def test_missing_file(start_agent, make_pod) -> None:
    """Of a file that is missing I am told which part of its path is there, with owner and mode, and what is like it."""
    agent = start_agent()
    container = make_pod().prepare("app", "/bin/sleep", "600")
    folder = container.bundle / "rootfs/etc/app"
    folder.mkdir(mode=0o750)
    os.chown(folder, 101, 102)
    for name in ("prices.yml", "users.yml", *(f"{at}.tmp" for at in range(20))):
        (folder / name).touch()
    container.start()
    (found,) = inspect(agent, container, ("/etc/app/prices.yaml",)).paths
    etc, app, file = found.components
    assert etc.exists and app.exists and not file.exists
    assert (app.path, app.mode & 0o7777, app.uid, app.gid) == ("/etc/app", 0o750, 101, 102)
    assert (file.path, file.names[0]) == ("/etc/app/prices.yaml", "prices.yml")
    assert found.mount.path == "/" and found.mount.total_bytes > found.mount.free_bytes > 0


def test_links_do_not_lead_out(start_agent, make_pod, tmp_path: Path) -> None:
    """A container's link out of its root, or through /proc, tells nothing of the host: it leads where it leads inside."""
    agent = start_agent()
    (tmp_path / "secret").touch()
    container = make_pod().prepare("app", "/bin/sleep", "600")
    root = container.bundle / "rootfs"
    (root / "etc/up").symlink_to("../../../../../../.." + str(tmp_path / "secret"))
    (root / "etc/host").symlink_to(tmp_path)
    (root / "etc/here").symlink_to("/bin/busybox")
    container.start()
    asked = ("/etc/up", "/etc/host/secret", "/etc/here", "/proc/1/root/etc", "/../../.." + str(tmp_path / "secret"))
    up, host, here, magic, dots = (each.components for each in inspect(agent, container, asked).paths)
    assert not up[-1].exists and up[-1].link.endswith("/secret") and not up[-1].names
    assert not host[-1].exists and host[-1].link == str(tmp_path)
    assert here[-1].exists and here[-1].link == "/bin/busybox"
    assert magic[-1].error == "ELOOP" and magic[-1].path == "/proc/1/root"
    assert not dots[-1].exists


def test_what_a_mount_has(start_agent, make_pod) -> None:
    """I am told that a mount is read only, or has no room: 0 bytes free of 64 KiB."""

    def change(config: dict[str, Any]) -> None:
        config["root"]["readonly"] = True
        options = ["nosuid", "size=65536", "nr_inodes=7"]
        config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": options})

    agent = start_agent()
    container = make_pod().container("app", "/bin/sh", "-c", "cat /dev/zero > /tmp/full; sleep 600", change=change)
    wait_until(lambda: inspect(agent, container, ("/tmp/full",)).paths[0].mount.free_bytes == 0, "a full disk")
    root, full = (each.mount for each in inspect(agent, container, ("/etc/x", "/tmp/full")).paths)
    assert (root.path, root.read_only) == ("/", True)
    assert (full.path, full.read_only, full.total_bytes) == ("/tmp", False, 65536)
    assert (full.total_inodes, full.free_inodes) == (7, 5)


def test_relative_path(start_agent, make_pod) -> None:
    """A path that its program gave relative to its folder is looked for there."""
    agent = start_agent()
    container = make_pod().container(
        "app", "/bin/sleep", "600", change=lambda config: config["process"].update(cwd="/etc")
    )
    (container.bundle / "rootfs/etc/conf").touch()
    (found,) = inspect(agent, container, ("conf",)).paths
    assert (found.components[-1].path, found.components[-1].exists) == ("/etc/conf", True)


def test_limits(start_agent, make_pod, workload) -> None:
    """I am told the limit of descriptors and that all are in use, the memory's limit and use, and who the process is."""
    agent = start_agent()
    change = lambda config: config["process"]["user"].update(uid=0, gid=0, additionalGids=[7])  # noqa: E731
    files = {"/workload": workload("waits")}
    container = make_pod().container("app", "/workload", "files", files=files, memory=48 << 20, change=change)
    wait_until(lambda: {each.name: each for each in inspect(agent, container).usages}["nofile"].used == 64, "64 files")
    reply = inspect(agent, container)
    usages = {each.name: each for each in reply.usages}
    assert (usages["nofile"].limit, usages["nofile"].used) == (64, 64)
    assert usages["memory"].limit == 48 << 20 and 0 < usages["memory"].used < 48 << 20
    assert usages["pids"].used == 1
    assert usages["inotify_watches"].limit > 0
    assert (reply.identity.pid, reply.identity.uid, list(reply.identity.groups)) == (container.pid, 0, [7])
    assert not reply.missing


def test_listener(start_agent, make_pod, workload) -> None:
    """I am told who listens at a port: address, process and its name; and of a port where nobody does nothing."""
    agent = start_agent()
    container = make_pod().container("app", "/workload", "read", files={"/workload": workload("waits")})
    wait_until(lambda: inspect(agent, container, ports=(4321,)).listeners, "a listener")
    (found,) = inspect(agent, container, ports=(4321, 4322)).listeners
    assert (found.port, found.protocol, found.address) == (4321, "tcp", "127.0.0.1")
    assert (found.task.pid, found.task.comm) == (container.pid, "workload")


def test_peer_of_a_read(start_agent, make_pod, workload) -> None:
    """Of a program that hangs in a read, or in a poll of one socket, I am told the peer and the connection's state."""
    agent, pod = start_agent(), make_pod()
    for what in ("read", "poll"):
        container = pod.container(what, "/workload", what, files={"/workload": workload("waits")})
        found = until_waits(agent, container, lambda wait: wait.kind == "socket")
        assert (found.pid, found.descriptor, found.name, found.state) == (container.pid, 4, "127.0.0.1:4321", "ESTAB")


def test_lock_holder(start_agent, make_pod, workload) -> None:
    """Of a thread that waits for a lock of its program I am told which thread holds it; of a file's, which process."""
    agent, pod = start_agent(), make_pod()
    container = pod.container("mutex", "/workload", "mutex", files={"/workload": workload("waits")})
    found = until_waits(agent, container, lambda wait: wait.HasField("holder"))
    assert (found.tid, found.holder.pid, found.holder.comm) == (container.pid, container.pid, "holder")
    assert found.holder.tid != container.pid
    container = pod.container("flock", "/workload", "flock", files={"/workload": workload("waits")})
    found = until_waits(agent, container, lambda wait: wait.HasField("holder"))
    assert (found.tid, found.holder.comm) == (container.pid, "workload")
    assert found.holder.pid not in (0, container.pid)


def test_child(start_agent, make_pod, workload) -> None:
    """Of a program that waits for a child I am told which one."""
    files = {"/workload": workload("waits")}
    container = make_pod().container("app", "/workload", "child", "/bin/sleep", "600", files=files)
    found = until_waits(start_agent(), container, lambda wait: wait.HasField("child"))
    assert (found.tid, found.child.comm) == (container.pid, "sleep")


def test_redacted(start_agent, make_pod) -> None:
    """What --redact names is masked in names of files, too."""
    agent = start_agent("--redact", "token-[0-9]+")
    container = make_pod().prepare("app", "/bin/sleep", "600")
    (container.bundle / "rootfs/etc/token-8431").touch()
    container.start()
    (found,) = inspect(agent, container, ("/etc/token-8432",)).paths
    assert (found.components[-1].path, list(found.components[-1].names)) == ("/etc/**********", ["**********"])


def test_without_the_right_to(start_agent, make_pod) -> None:
    """An agent that may not look into processes of others says which right it lacks, and tells the rest."""
    agent = start_agent(under=["setpriv", "--bounding-set=-sys_ptrace"])
    change = lambda config: config["process"]["user"].update(uid=1000, gid=1000)  # noqa: E731
    container = make_pod().container("app", "/bin/sleep", "600", change=change)
    reply = inspect(agent, container, ("/etc",))
    assert list(reply.missing) == [f"{what}: the agent lacks CAP_SYS_PTRACE" for what in ("calls", "files")]
    assert (reply.identity.uid, list(reply.paths)) == (1000, [])
    assert {"nofile", "memory", "pids"} <= {each.name for each in reply.usages}


def test_too_much(start_agent, make_pod) -> None:
    """An agent refuses to look at more than some paths at a time, at longer ones, and at what does not run."""
    agent = start_agent()
    container = make_pod().container("app", "/bin/sleep", "600")
    for asked in (("/x",) * 17, ("/" * 4097,), ("/a\0b",)):
        with pytest.raises(grpc.RpcError) as raised:
            inspect(agent, container, asked)
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    with grpc.insecure_channel(agent.address) as channel, pytest.raises(grpc.RpcError) as raised:
        rpc.AgentStub(channel).Inspect(pb.InspectRequest(cgroup_id=1), timeout=5)
    assert "no container that runs" in raised.value.details()


@contextmanager
def silent_file_system(folder: Path) -> Iterator[None]:
    """A FUSE file system of which the server never answers."""
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    try:
        if _libc.mount(b"silent", os.fsencode(folder), b"fuse", 0, options):
            pytest.skip(f"no FUSE: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            os.close(server)
            server = -1
            _libc.umount2(os.fsencode(folder), 2)
    finally:
        if server >= 0:
            os.close(server)


def test_file_system_that_is_silent(start_agent, make_pod) -> None:
    """A file system of a container that does not answer costs me a second and its own files: the rest is told."""
    agent = start_agent()
    container = make_pod().prepare("app", "/bin/sleep", "600")
    folder = container.bundle / "rootfs/tmp/silent"
    folder.mkdir()
    with silent_file_system(folder):
        container.start()
        began = time.monotonic()
        reply = inspect(agent, container, ("/etc/passwd", "/tmp/silent/file"))
        assert SECONDS <= time.monotonic() - began < SECONDS + 1
        assert [path.components[-1].path for path in reply.paths] == ["/etc/passwd"]
        assert list(reply.missing) == ["files: the container does not answer"]
        assert any(each.name == "nofile" for each in reply.usages)
        began = time.monotonic()
        again = inspect(agent, container, ("/etc/passwd",))
        assert time.monotonic() - began < SECONDS
        assert list(again.missing) == ["files: what was asked before has not been answered yet"]
    wait_until(lambda: not inspect(agent, container, ("/etc/passwd",)).missing, "an answer")


def test_silence_holds_up_no_other(make_pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one container's files do not answer, others' do."""
    over = threading.Event()
    along = paths.Walk.along

    def slow(walk: paths.Walk, path: str) -> list[pb.Component]:
        if path == "/silent":
            over.wait(20)
        return along(walk, path)

    monkeypatch.setattr(paths.Walk, "along", slow)
    pod = make_pod()
    with closing(Tracker()) as tracker:
        silent, other = (pod.container(name, "/bin/sleep", "600") for name in ("silent", "other"))

        def ids() -> dict[str, int]:
            return {item.container.id: item.id for item in tracker.containers() if item.container}

        wait_until(lambda: {silent.id, other.id} <= ids().keys(), "both")
        inspector = Inspector("node-a", tracker)
        asked = threading.Thread(
            target=inspector.inspect, args=(pb.InspectRequest(cgroup_id=ids()[silent.id], paths=["/silent"]),)
        )
        asked.start()
        reply = inspector.inspect(pb.InspectRequest(cgroup_id=ids()[other.id], paths=["/etc"]))
        assert [path.components[-1].exists for path in reply.paths] == [True] and not reply.missing
        over.set()
        asked.join()


def test_why_hangs(record, make_pod, workload) -> None:
    """`why` of what hangs says on whom: which thread holds the lock, which file is opened, which child does not end."""
    agent, pod = record(), make_pod()
    files = {"/workload": workload("waits")}
    pod.container("mutex", "/workload", "mutex", files=files)
    pod.container("child", "/workload", "child", "/bin/sleep", "600", files=files)
    fifo = pod.prepare("fifo", "/bin/cat", "/tmp/jobs")
    os.mkfifo(fifo.bundle / "rootfs/tmp/jobs")
    fifo.start()
    for name, said in (("mutex", r"for a lock that thread \d+ \(holder\) holds"), ("child", "for a child to end: sleep, which waits on purpose"),
                       ("fifo", "in an open of /tmp/jobs, a FIFO that nobody has opened")):  # fmt: skip
        wait_until(lambda: re.search(said, why(agent, name)), said)  # noqa: B023
    shown = run_cli("traceloop", "show", "cart-0", "-c", "fifo", "--agent", agent.address).stdout.splitlines()[-1]
    assert "open" in shown and '"/tmp/jobs", O_RDONLY' in shown and shown.startswith("now ")


def why(agent: Agent, container: str, *more: str) -> str:
    """What `why` says of a container of the pod, on one line."""
    done = run_cli("why", "cart-0", "-c", container, "--agent", agent.address, *more)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def test_why_in_its_place(record, make_pod) -> None:
    """`why` of a container that ended tells how it is in the one that runs in its place; if none does, that it no longer runs."""
    agent, pod = record(), make_pod()
    first = pod.container("app", "/bin/sh", "-c", "echo starting; cat /etc/app/prices.yaml || exit 3")
    ended(first)
    assert "how it is now: not looked at, as it no longer runs" in why(agent, "app")
    second = pod.prepare("app", "/bin/sleep", "600")
    (second.bundle / "rootfs/etc/app").mkdir()
    (second.bundle / "rootfs/etc/app/prices.yml").touch()
    second.start()
    wait_until(lambda: "the folder /etc/app exists; it has prices.yml" in why(agent, "app"), "the folder")


def test_why_nobody_answers(record, make_pod) -> None:
    """Of a program that hangs in a connect to an address that nobody has `show` and `why` say which address that is."""
    agent, pod = record(), make_pod()
    container = pod.container(
        "app", "/bin/sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done; busybox nc 10.77.0.9 80"
    )
    for command in ("link add gadget0 type veth peer name gadget1", "addr add 10.77.0.1/24 dev gadget0",
                    "link set gadget0 up", "link set gadget1 up",
                    "neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev gadget0"):  # fmt: skip
        subprocess.run(["nsenter", f"--net=/proc/{container.pid}/ns/net", "ip", *command.split()], check=True)
    (container.bundle / "rootfs/tmp/go").touch()
    wait_until(lambda: "for 10.77.0.9:80 to answer its connect" in why(agent, "app"), "the connect")
    shown = run_cli("traceloop", "show", "cart-0", "--agent", agent.address).stdout
    assert 'sin_port=htons(80), sin_addr=inet_addr("10.77.0.9")}, 16, <unfinished ...>)' in shown
