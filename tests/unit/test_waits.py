"""Waiting says for whom, and can be ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from gadget.deadline import set_deadline
from gadget.kube.api import ApiServer
from gadget.kube.kubeconfig import ClusterFlags, read_context
from kubectl_gadget.cluster import agents
from kubectl_gadget.cluster.agents import cluster_agents
from tests.cluster_api import PODS, Cluster, agent_pod, serve_cluster
from tests.conftest import CLI, wait_until


@pytest.fixture
def hanging() -> Iterator[Cluster]:
    """An API server that does not answer who the agents are."""
    with serve_cluster() as cluster:
        over = threading.Event()
        cluster.looked = lambda: over.wait(30) and None
        yield cluster
        over.set()


@pytest.mark.parametrize("command", [["containers"], ["execsnoop"], ["traceloop", "list"], ["status"]])
def test_a_long_wait(hanging: Cluster, command: list[str]) -> None:
    """If the API server does not answer I am told after 3 s, and Ctrl-C ends the command at once."""
    options = ["-A"] if command != ["status"] else []
    line = [CLI, *command, *options, f"--server={hanging.url}", "--kubeconfig=/dev/null"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        assert process.stderr.readline() == "waiting for the API server\n"
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        process.communicate(timeout=10)
        assert time.monotonic() - began < 2


def test_slow_nodes(monkeypatch, capsys) -> None:
    """I am told which nodes are waited for: a few by name, others by number; not those that have answered."""
    over = threading.Event()

    def open_slowly(*arguments: object) -> None:
        if arguments[2].node != "node-0":  # type: ignore[attr-defined]
            over.wait(30)
        raise agents.Unreachable("gone")

    monkeypatch.setattr(agents, "_open", open_slowly)
    with serve_cluster() as cluster:
        cluster.lists[PODS] = [agent_pod(f"node-{number}", ready=True) for number in range(6)]
        api = ApiServer(read_context(ClusterFlags(server=cluster.url, kubeconfig=os.devnull)))
        with cluster_agents(api, "gadget", (), silent_seconds=0.2):
            said = wait_until(lambda: capsys.readouterr().err, "word of it")
            over.set()
    assert said == "waiting for node-1, node-2, node-3 and 2 more\n"


@pytest.mark.parametrize("command", [["containers"], ["execsnoop"], ["traceloop", "list"], ["status"]])
def test_a_deadline(hanging: Cluster, command: list[str]) -> None:
    """--wait bounds how long a command waits for a cluster that does not answer: it ends, and says what it waited for."""
    options = ["-A"] if command != ["status"] else []
    line = [CLI, *command, *options, f"--server={hanging.url}", "--kubeconfig=/dev/null", "--wait=500ms"]
    began = time.monotonic()
    done = subprocess.run(line, capture_output=True, text=True, timeout=20, check=False)
    assert time.monotonic() - began < 5
    assert re.search(
        r"the API server(: no answer within the time of --wait| at \S+ does not answer: timed out)", done.stderr
    )
    assert done.returncode == 1


def test_deadline_of_slow_nodes(monkeypatch) -> None:
    """One deadline is for all nodes together: those that are slow fail at the same time, and the others are shown."""
    over = threading.Event()

    def open_slowly(*arguments: object) -> None:
        if arguments[2].node != "node-0":  # type: ignore[attr-defined]
            over.wait(30)
        raise agents.Unreachable("node-0 is gone")

    monkeypatch.setattr(agents, "_open", open_slowly)
    with serve_cluster() as cluster:
        cluster.lists[PODS] = [agent_pod(f"node-{number}", ready=True) for number in range(6)]
        api = ApiServer(read_context(ClusterFlags(server=cluster.url, kubeconfig=os.devnull)))
        set_deadline(1)
        began = time.monotonic()
        try:
            with cluster_agents(api, "gadget", ()) as targets:
                why = []
                for wait in targets().values():
                    with pytest.raises(agents.Unreachable) as caught:
                        wait()
                    why.append(str(caught.value))
        finally:
            over.set()
            set_deadline(0)
    assert time.monotonic() - began < 2
    assert why == ["node-0 is gone", *(f"node-{n}: no answer within the time of --wait" for n in range(1, 6))]
