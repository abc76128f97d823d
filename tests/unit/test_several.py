"""Several clusters in one stream."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gadget.errors import UsageError
from gadget.kube.kubeconfig import ClusterFlags
from kubectl_gadget.cluster import agents
from kubectl_gadget.cluster.options import ClusterOptions
from kubectl_gadget.cluster.several import agents_of
from tests.cluster_api import PODS, agent_pod, serve_cluster
from tests.conftest import run_cli, wait_until
from tests.fakes import FakeAgent
from tests.unit.test_session import ms, run, shown


class Way:
    """The way to an agent of a cluster, by the API server's address."""

    agents: dict[str, FakeAgent] = {}  # noqa: RUF012

    def __init__(self, api: Any, *_: object) -> None:
        self.address = self.agents[api._server].address

    def close(self) -> None:
        """Nothing is open."""


def write_config(path: Path, servers: dict[str, str]) -> Path:
    """A kubeconfig with a context for each API server, called as its cluster."""
    lines = ["apiVersion: v1", "kind: Config", "current-context: east", "users: []", "clusters:"]
    lines += [f"- {{name: {name}, cluster: {{server: '{url}'}}}}" for name, url in servers.items()]
    lines += ["contexts:", *(f"- {{name: {name}, context: {{cluster: {name}, user: ''}}}}" for name in servers)]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def east_and_west(fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Two clusters, each with an agent on a node of the same name."""
    monkeypatch.setattr(agents, "Tunnel", Way)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serve_cluster()) for name in ("east", "west")}
        fakes = {name: fake("node-1") for name in servers}
        for name, server in servers.items():
            server.lists[PODS] = [agent_pod("node-1", ready=True)]
            Way.agents[server.url] = fakes[name]
        config = write_config(tmp_path / "config", {name: server.url for name, server in servers.items()})
        yield {"agents": fakes, "servers": servers, "config": config}


def clusters(config: Path, *names: str, nodes: tuple[str, ...] = ()) -> list[ClusterOptions]:
    return [ClusterOptions(ClusterFlags(context=name, kubeconfig=str(config)), "gadget", nodes, name) for name in names]


def test_two_clusters(east_and_west, capsys) -> None:
    """With --context east,west I see the events of both in one stream, each with its cluster and node."""
    both = east_and_west["agents"]

    def do() -> None:
        for number, each in enumerate(both.values()):
            assert each.started.wait(5)
            each.emit(*ms(10 + number, 20 + number))

    with agents_of(clusters(east_and_west["config"], "east", "west")) as find:
        run(find(), do, record=None)
    out, err = capsys.readouterr()
    assert shown(out) == [("east/node-1", 10), ("west/node-1", 11), ("east/node-1", 20), ("west/node-1", 21)]
    assert err.startswith("4 events from 2 nodes")
    assert "not believed" not in err


def test_one_dies(east_and_west, capsys) -> None:
    """If one of two clusters dies the other goes on, and I am told which one is not watched any more."""
    both, seen = east_and_west["agents"], []

    def do() -> None:
        for each in both.values():
            assert each.started.wait(5)
        both["west"].die()
        east_and_west["servers"]["west"].lists.clear()
        wait_until(lambda: seen.append(capsys.readouterr().err) or "west/node-1" in "".join(seen), "the warning")
        both["east"].emit(*ms(30))

    with agents_of(clusters(east_and_west["config"], "east", "west")) as find:
        run(find(), do, record=None)
    out, err = capsys.readouterr()
    assert shown(out) == [("east/node-1", 30)]
    assert "nothing lost of what was watched; not watched: west/node-1" in err


def test_one_is_not_there(east_and_west, tmp_path: Path, capsys) -> None:
    """A cluster that does not answer is told by its name, and the others are shown all the same."""
    agent, seen = east_and_west["agents"]["east"], []
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        servers = {
            "east": east_and_west["servers"]["east"].url,
            "gone": f"http://127.0.0.1:{closed.getsockname()[1]}",
        }
        config = write_config(tmp_path / "other", servers)

        def do() -> None:
            assert agent.started.wait(5)
            wait_until(lambda: seen.append(capsys.readouterr().err) or "gone" in "".join(seen), "the warning")
            agent.emit(*ms(40))

        with agents_of(clusters(config, "east", "gone")) as find:
            run(find(), do, record=None)
    assert shown(capsys.readouterr().out) == [("east/node-1", 40)]
    assert "warning: gone: " in "".join(seen)


def test_nodes(east_and_west) -> None:
    """--node names nodes of any of the clusters; one that none of them has is told, with those that there are."""
    west = east_and_west["servers"]["west"]
    west.lists[PODS] = [agent_pod("node-1", ready=True), agent_pod("node-2", ready=True)]
    with agents_of(clusters(east_and_west["config"], "east", "west", nodes=("node-2",))) as find:
        assert list(find()) == ["west/node-2"]
    with (
        agents_of(clusters(east_and_west["config"], "east", "west", nodes=("node-1,node-3",))) as find,
        pytest.raises(UsageError, match="no agent on node node-3: there is east/node-1, west/node-1"),
    ):
        find()


def test_one_at_a_time(tmp_path: Path) -> None:
    """A command that is about one cluster says so, and does nothing."""
    done = run_cli("undeploy", "--context", "east,west", "--kubeconfig", str(tmp_path / "none"))
    assert done.returncode == 2
    assert done.stderr == "error: --context east,west: one at a time here; streams take several\n"
