"""Fixtures: agents with every recorder on, and containers that may make cgroups."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Agent
from tests.faults.conftest import figure, pytest_terminal_summary
from tests.pods import UNIFIED, Container, remove_below

__all__ = ["figure", "pytest_terminal_summary"]

#: How an attacker comes to a cgroup tree: it is mounted as in a privileged pod, or it mounts it itself.
WAYS = ("mounted", "unshared")

#: containerd's pkg/oci/spec.go, defaultUnixCaps; SETFCAP is what it takes to be root of a user namespace.
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP"),
    *("NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
)
KINDS = ("bounding", "effective", "permitted")


@pytest.fixture
def record(bpffs: Path, start_agent: Callable[..., Agent], tmp_path: Path) -> Callable[..., Agent]:
    """Starts agents with every recorder on."""
    return lambda *args, **options: start_agent(
        "--bpffs", str(bpffs), "--state", str(tmp_path / "state"), *args, **options
    )


def mount_cgroups(config: dict[str, Any]) -> None:
    """Give a container the cgroup tree, from its own on, to write to."""
    config["mounts"].append({"destination": "/cg", "type": "cgroup2", "source": "cgroup2", "options": ["rw"]})


def usual_root(config: dict[str, Any]) -> None:
    """Give a container the capabilities that a pod has which asks for none: containerd's and CRI-O's own lists."""
    config["process"]["capabilities"] = {kind: [f"CAP_{name}" for name in CAPABILITIES] for kind in KINDS}


class Attacker:
    """A container that attacks when told to."""

    def __init__(self, container: Container) -> None:
        """Tell container, which has the program at /attack."""
        self.container = container
        self.folder = UNIFIED / container.cgroup.lstrip("/")

    def start(self, *args: str | bytes | int) -> subprocess.Popen[bytes]:
        """Begin an attack."""
        words = [word if isinstance(word, bytes) else str(word).encode() for word in args]
        command = [b"runc", b"exec", self.container.id.encode(), b"/attack", *words]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def attack(self, *args: str | bytes | int) -> int:
        """Attack, to the end; gives the number that the program says."""
        return finish(self.start(*args))

    def remove_cgroups(self) -> None:
        """Remove what it has made."""
        remove_below(self.folder)
        assert not [each for each in self.folder.iterdir() if each.is_dir()]


def finish(attack: subprocess.Popen[bytes]) -> int:
    """Wait for the end of an attack, which must have done what it was to do; gives the number that it says."""
    out, _ = attack.communicate(timeout=600)
    assert attack.returncode == 0 and out.startswith(b"done "), out
    return int(out.split()[1])


@pytest.fixture
def attacker(make_pod, workload) -> Callable[..., Attacker]:
    """Makes containers that attack."""

    def make(way: str = "mounted", namespace: str = "evil", pod: str = "evil-0") -> Attacker:
        change = mount_cgroups if way == "mounted" else usual_root
        files = {"/attack": workload("attack")}
        container = make_pod(namespace, pod).container("app", "/bin/sleep", "3600", files=files, change=change)
        return Attacker(container)

    return make
