"""Real containers by runc, laid out as containerd's CRI lays out a pod's: bundle, annotations, cgroup path."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

BUNDLES = Path("/run/containerd/io.containerd.runtime.v2.task/k8s.io")
CGROUPS = Path("/sys/fs/cgroup")
#: Where cgroup2 is: beside version 1 on this host, or alone
UNIFIED = CGROUPS / "unified" if (CGROUPS / "unified").is_dir() else CGROUPS
BUSYBOX = Path("/bin/busybox")
#: The file in a bundle that tells which process's test made it, and where its cgroup is
MARK = "made-by-test"


def mark(bundle: Path, cgroup: str) -> None:
    """Tell in a bundle which process made it and where its cgroup is, at once: others may read it meanwhile."""
    new = bundle / f"{MARK}.new"
    new.write_text(f"{os.getpid()} {cgroup}")
    new.replace(bundle / MARK)


def annotations(namespace: str, pod: str, name: str, kind: str = "container") -> dict[str, str]:
    """What containerd's CRI writes into a container's config.json."""
    return {
        "io.kubernetes.cri.container-type": kind,
        "io.kubernetes.cri.container-name": name,
        "io.kubernetes.cri.sandbox-name": pod,
        "io.kubernetes.cri.sandbox-namespace": namespace,
    }


@cache
def default_spec() -> str:
    """What `runc spec` writes."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["runc", "spec", "--bundle", folder], check=True)
        return (Path(folder) / "config.json").read_text()


class Pod:
    """A pod of containers that each run a command. A context manager: everything is gone in the end."""

    def __init__(self, folder: Path, namespace: str, name: str) -> None:
        """Prepare a pod whose files lie in folder."""
        self.folder, self.namespace, self.name = folder, namespace, name
        self.uid = str(uuid.uuid4())
        self.containers: list[Container] = []

    def __enter__(self) -> Pod:
        return self

    def __exit__(self, *_: object) -> None:
        for container in self.containers:
            container.delete()
        remove_cgroups(f"kubepods/besteffort/pod{self.uid}")

    def prepare(
        self,
        name: str,
        *args: str,
        files: dict[str, Path] | None = None,
        kind: str = "container",
        memory: int = 0,
        change: Callable[[dict[str, Any]], None] | None = None,
    ) -> Container:
        """Lay out a container that will run args, with files copied to its root by their path there.

        memory is its limit in bytes, 0 for none; change alters its config.json.
        """
        container = Container(self, name, list(args), files or {}, kind, memory, change)
        self.containers.append(container)
        return container

    def container(self, name: str, *args: str, **options: Any) -> Container:
        """Lay out a container, and start it."""
        container = self.prepare(name, *args, **options)
        container.start()
        return container


class Container:
    """One container of a pod."""

    def __init__(
        self,
        pod: Pod,
        name: str,
        args: list[str],
        files: dict[str, Path],
        kind: str,
        memory: int = 0,
        change: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Lay out its bundle."""
        self.pod, self.name = pod, name
        self.id = secrets.token_hex(32)
        self.bundle = BUNDLES / self.id
        self.cgroup = f"/kubepods/besteffort/pod{pod.uid}/{self.id}"
        root = self.bundle / "rootfs"
        for folder in ("bin", "proc", "sys", "dev", "tmp", "etc"):
            (root / folder).mkdir(parents=True)
        shutil.copy(BUSYBOX, root / "bin/busybox")
        for applet in ("sh", "true", "sleep", "cat", "ls"):
            (root / "bin" / applet).symlink_to("busybox")
        for path, source in files.items():
            shutil.copy(source, root / path.lstrip("/"))
        config = json.loads(default_spec())
        config["process"].update(args=args, terminal=False, rlimits=[])
        config["root"]["readonly"] = False
        config["linux"]["cgroupsPath"] = self.cgroup
        config["linux"].pop("resources", None)
        if memory:
            config["linux"]["resources"] = {"memory": {"limit": memory}}
        config["linux"]["namespaces"].append({"type": "cgroup"})
        config["annotations"] = annotations(pod.namespace, pod.name, name, kind)
        if change:
            change(config)
        mark(self.bundle, self.cgroup.lstrip("/"))
        (self.bundle / "config.json").write_text(json.dumps(config))

    @property
    def command(self) -> list[str]:
        """What starts it in the background."""
        return ["runc", "run", "--detach", "--bundle", str(self.bundle), self.id]

    def start(self) -> None:
        """Run it in the background; its output goes to self.log."""
        self.log = self.pod.folder / f"{self.id[:12]}.log"
        with self.log.open("wb") as log:
            done = subprocess.run(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise RuntimeError(self.log.read_text())

    def exec(self, *args: str) -> None:
        """Run a command in it, to its end."""
        subprocess.run(["runc", "exec", self.id, *args], check=True, stdin=subprocess.DEVNULL)

    @property
    def pid(self) -> int:
        """Its first process."""
        return int(
            json.loads(subprocess.run(["runc", "state", self.id], capture_output=True, check=True).stdout)["pid"]
        )

    @property
    def running(self) -> bool:
        """Whether its first process lives."""
        state = subprocess.run(["runc", "state", self.id], capture_output=True, text=True, check=False)
        return state.returncode == 0 and json.loads(state.stdout)["status"] == "running"

    def wait(self, seconds: float = 20.0) -> None:
        """Wait until nothing of it runs any more; unlike `runc state` it costs little."""
        events, deadline = UNIFIED / self.cgroup.lstrip("/") / "cgroup.events", time.monotonic() + seconds
        while events.exists() and "populated 1" in events.read_text():
            assert time.monotonic() < deadline, f"{self.name} still runs"
            time.sleep(0.001)

    def delete(self) -> None:
        """End it and remove its files. An error if its cgroup stays: the next test would see one container more."""
        deadline = time.monotonic() + 20
        cgroup = UNIFIED / self.cgroup.lstrip("/")
        if cgroup.exists() and any(each.is_dir() for each in cgroup.iterdir()):
            subprocess.run(["runc", "kill", "--all", self.id, "KILL"], check=False, capture_output=True)
        while True:
            remove_below(cgroup)  # runc looks for what was made inside by path, which may be too long
            done = subprocess.run(["runc", "delete", "--force", self.id], check=False, capture_output=True, text=True)
            if not cgroup.exists():
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"runc delete {self.name}: {done.stderr}")
            time.sleep(0.05)
        shutil.rmtree(self.bundle, ignore_errors=True)


def link(first: Container, second: Container) -> None:
    """Join two containers' networks: 10.77.0.1 and fd77::1 in the first, .2 and ::2 in the second."""
    for command in (
        f"ip link add gadget0 netns {first.pid} type veth peer name gadget1 netns {second.pid}",
        *(
            f"nsenter --net=/proc/{item.pid}/ns/net ip {what}"
            for at, item in enumerate((first, second))
            for what in (
                f"addr add 10.77.0.{at + 1}/24 dev gadget{at}",
                f"addr add fd77::{at + 1}/64 dev gadget{at} nodad",
                f"link set gadget{at} up",
            )
        ),
    ):
        subprocess.run(command.split(), check=True)


class BareContainer:
    """A container without a runtime: its cgroup and config.json alone, for tests that need thousands."""

    def __init__(self, namespace: str, pod: str, name: str = "app") -> None:
        """Write config.json, then make the cgroup, as a runtime does."""
        self.id = secrets.token_hex(32)
        self.pod_uid = str(uuid.uuid4())
        self.pod_path = f"kubepods/besteffort/pod{self.pod_uid}"
        self.bundle = BUNDLES / self.id
        self.bundle.mkdir(parents=True)
        mark(self.bundle, f"{self.pod_path}/{self.id}")
        (self.bundle / "config.json").write_text(json.dumps({"annotations": annotations(namespace, pod, name)}))
        self.cgroup = UNIFIED / self.pod_path / self.id
        self.cgroup.mkdir(parents=True)

    def run(self, *args: str) -> None:
        """Run a program in it, to its end."""
        procs = os.open(self.cgroup / "cgroup.procs", os.O_WRONLY)
        pid = os.fork()
        if pid == 0:
            os.write(procs, b"0")
            os.execv(args[0], args)
        os.close(procs)
        os.waitpid(pid, 0)

    def delete(self) -> None:
        """Remove its cgroups and files, when the last of its processes has ended."""
        deadline = time.monotonic() + 5
        while self.cgroup.exists():
            try:
                self.cgroup.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        remove_cgroups(self.pod_path)
        shutil.rmtree(self.bundle)


def run_in(cgroup: Path, *command: str | Path, cwd: Path | None = None) -> None:
    """Run a workload in a cgroup, to its end; it says "done", and nothing else."""
    with (cgroup / "cgroup.procs").open("w") as procs:
        done = subprocess.run(
            command,
            preexec_fn=lambda: os.write(procs.fileno(), b"0"),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0)


def remove_below(folder: Path) -> None:
    """Remove the cgroups inside one, however deep they are and whatever their names; those that are in use stay."""
    if not folder.is_dir():
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    left = [_folders(fd)]
    names: list[bytes] = []
    while left:
        if left[-1]:
            names.append(left[-1].pop())
            fd, before = os.open(names[-1], os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd), fd
            os.close(before)
            left.append(_folders(fd))
            continue
        left.pop()
        fd, before = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd), fd
        os.close(before)
        if names:
            with suppress(OSError):
                os.rmdir(names.pop(), dir_fd=fd)
    os.close(fd)


def _folders(fd: int) -> list[bytes]:
    with os.scandir(fd) as found:
        return [os.fsencode(each.name) for each in found if each.is_dir(follow_symlinks=False)]


def remove_cgroups(path: str) -> None:
    """Remove a pod's cgroups in every hierarchy, and its parents that are empty and ours."""
    for hierarchy in [CGROUPS, *CGROUPS.iterdir()]:
        folder = hierarchy / path
        while folder != hierarchy and folder.is_dir():
            try:
                folder.rmdir()
            except OSError:
                break
            folder = folder.parent
