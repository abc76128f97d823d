"""observe of several clusters."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from kubectl_gadget.cli import cli
from kubectl_gadget.cluster import agents
from tests.cluster_api import PODS, agent_pod, serve_cluster
from tests.unit.observe.test_last import EndingAgent
from tests.unit.test_several import Way, write_config


@pytest.mark.parametrize(
    ("option", "value", "nodes"),
    [("--in-cluster", "west", {"west/node-1"}), ("--from-cluster", "!w*", {"east/node-1"}), ("--in-cluster", "*", {"east/node-1", "west/node-1"})],
)  # fmt: skip
def test_in_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], option: str, value: str,
    nodes: set[str],
) -> None:  # fmt: skip
    """With --context east,west I choose flows by the cluster that an end of them is in."""
    monkeypatch.setattr(agents, "Tunnel", Way)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serve_cluster()) for name in ("east", "west")}
        for name, server in servers.items():
            server.lists[PODS] = [agent_pod("node-1", ready=True)]
            folder = tmp_path / name
            folder.mkdir()
            Way.agents[server.url] = agent = EndingAgent(folder)  # type: ignore[assignment]
            stack.callback(agent.die)
        config = write_config(tmp_path / "config", {name: server.url for name, server in servers.items()})
        args = ["observe", "--context=east,west", f"--kubeconfig={config}", "-A", "--all", "-o", "json", option, value]
        cli.main(args, "kubectl-gadget", standalone_mode=False)
    assert {json.loads(line)["node"] for line in capfd.readouterr().out.splitlines()} == nodes
