"""The ways to many agents: how many at once, and what a command that was killed leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gadget.kube.api import ApiServer
from gadget.kube.kubeconfig import ClusterFlags, read_context
from kubectl_gadget.cluster import agents, place
from tests.cluster_api import PODS, agent_pod, serve_cluster
from tests.conftest import wait_until


class SlowTunnel:
    """Takes until it may go on, and counts how many do."""

    opening, most = 0, 0
    lock, may_open = threading.Lock(), threading.Event()

    def __init__(self, api: ApiServer, namespace: str, pod: str, port: int, path: Path) -> None:
        kind = type(self)
        with kind.lock:
            kind.opening += 1
            kind.most = max(kind.most, kind.opening)
        kind.may_open.wait(10)
        with kind.lock:
            kind.opening -= 1
        self.address = f"{pod}:{port}"

    def close(self) -> None:
        """Nothing is open."""


def test_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many nodes all are reached, 16 at a time: a large cluster's API server is not run over."""
    monkeypatch.setattr(agents, "Tunnel", SlowTunnel)
    names = [f"node-{number:02}" for number in range(41)]
    with serve_cluster() as cluster:
        cluster.lists[PODS] = [agent_pod(name, ready=True) for name in names]
        api = ApiServer(read_context(ClusterFlags(server=cluster.url, kubeconfig="/dev/null")))
        with agents.cluster_agents(api, "gadget", ()) as wait:
            targets = wait()
            wait_until(lambda: SlowTunnel.opening == 16, "as many tunnels as may be opened at once")
            SlowTunnel.may_open.set()
            assert [reach() for reach in targets.values()] == [f"gadget-{name}:7070" for name in names]
            assert targets.look
            assert list(targets.look()) == names
        versions = [query.get("resourceVersion") for path, query in cluster.queries if path == PODS]
    assert SlowTunnel.most == 16
    assert versions == [None, "0"], "who looks again and again is content with what the API server has in memory"


def test_nothing_is_left_of_the_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command that was killed left in the temporary folder the next one removes; what others use stays."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = """
import socket, sys
from kubectl_gadget.cluster.place import own_folder
with own_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
    listener.bind(str(folder / "0"))
    print(folder, flush=True)
    sys.stdin.read()
"""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        for _ in range(2)
    ]
    folders = [Path(process.stdout.readline().strip()) for process in started if process.stdout]
    (tmp_path / f"{place.PREFIX}others").mkdir()
    (tmp_path / f"{place.PREFIX}others" / "precious").write_text("data")
    (tmp_path / f"{place.PREFIX}link").symlink_to(tmp_path / f"{place.PREFIX}others")
    started[0].send_signal(signal.SIGKILL)
    started[0].communicate()
    assert all(folder.exists() for folder in folders)
    with place.own_folder(young_seconds=0.0) as own:
        there = {path.name for path in tmp_path.iterdir()}
        assert there == {own.name, folders[1].name, f"{place.PREFIX}others", f"{place.PREFIX}link"}
    started[1].communicate(timeout=20)
    assert not own.exists() and not folders[1].exists()
    assert (tmp_path / f"{place.PREFIX}others" / "precious").exists()
