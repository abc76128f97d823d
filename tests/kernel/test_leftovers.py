from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import leftovers
from tests.leftovers import remove_leftovers
from tests.pods import UNIFIED, Pod


def test_of_others(start_agent, make_pod) -> None:
    """What belongs to a test run that goes on, another one leaves alone."""
    agent = start_agent()
    container = make_pod().container("app", "/bin/sleep", "1000")
    remove_leftovers()
    assert agent.process.poll() is None
    assert container.running


def test_leftovers(start_agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test run that was killed left behind, the next one removes: it is part of no result."""
    here = os.getpid()
    runs = leftovers.runs
    monkeypatch.setattr(leftovers, "runs", lambda pid: pid != here and runs(pid))
    bpffs = tmp_path / "bpf"
    (bpffs / "gadget").mkdir(parents=True)
    subprocess.run(["mount", "-t", "bpf", "none", bpffs], check=True)
    agent = start_agent()
    pod = Pod(tmp_path, "shop", "cart-0")
    try:
        container = pod.container("app", "/bin/sleep", "1000")
        cgroup = UNIFIED / container.cgroup.lstrip("/")
        (cgroup / "inner/most").mkdir(parents=True)
    finally:
        remove_leftovers()
    assert agent.process.wait(20) == -signal.SIGKILL
    assert not container.running
    assert not container.bundle.exists()
    assert not cgroup.parent.exists()
    assert not bpffs.is_mount()


def test_bpffs_of_the_machine() -> None:
    """The cluster of `make e2e` comes up where the machine has mounted a bpffs, and leaves that alone."""
    code = "from tests.e2e.cluster.__main__ import BPFFS, unmount_all; unmount_all(BPFFS)"
    mount = "mount -t bpf bpf /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf"
    inner = f"unshare --mount {sys.executable} -c '{code}; print(open(\"/proc/self/mounts\").read())'"
    script = f"{mount} && {inner} && cat /proc/self/mounts"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=True)
    within, without = done.stdout.split("\n\n", 1)
    assert " /sys/fs/bpf bpf " not in within and without.count(" /sys/fs/bpf bpf ") >= 2
