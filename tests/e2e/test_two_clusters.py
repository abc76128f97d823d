"""Two clusters in one stream: a second API server, with an etcd of its own, knows one of our nodes and the agent there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, wait_until
from tests.e2e.cluster.control_plane import BRIDGE, api_server, etcd
from tests.e2e.conftest import OWN_CLUSTER, Namespace, gadget, kubectl, nodes, objects
from tests.e2e.test_hubble import ask, talk

pytestmark = pytest.mark.skipif(not OWN_CLUSTER, reason="needs the keys of our own cluster")
PORT, ETCD_PORT = 6444, 2479


class West:
    """An API server and its etcd, and a kubeconfig with it as the context west beside our cluster's, east."""

    def __init__(self, folder: Path) -> None:
        """Begin, and wait until it answers."""
        pki, found = Path(os.environ["KUBECONFIG"]).parent, shutil.which("kube-apiserver")
        assert found
        commands = (etcd(folder / "etcd", ETCD_PORT), api_server(Path(found).parent, pki, PORT, ETCD_PORT))
        log = (folder / "log").open("wb")
        self.processes = [subprocess.Popen(each, stdout=log, stderr=log) for each in commands]
        config = json.loads(Path(os.environ["KUBECONFIG"]).read_text())
        ours, user = config["clusters"][0]["cluster"], config["users"][0]["name"]
        servers = {"east": ours, "west": {**ours, "server": f"https://{BRIDGE}:{PORT}"}}
        config["clusters"] = [{"name": name, "cluster": each} for name, each in servers.items()]
        config["contexts"] = [{"name": name, "context": {"cluster": name, "user": user}} for name in servers]
        config["current-context"] = "east"
        self.config = folder / "config"
        self.config.write_text(json.dumps(config))
        wait_until(lambda: self.answers("get", "--raw", "/readyz"), "the second API server", 90)

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """What kubectl prints there."""
        return kubectl("--kubeconfig", str(self.config), "--context=west", *arguments, **options)

    def answers(self, *arguments: str) -> bool:
        """Whether kubectl succeeds there."""
        command = ["kubectl", "--kubeconfig", str(self.config), "--context=west", *arguments]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def add(self, item: dict[str, Any], **spec: Any) -> None:
        """Have it know a node or pod as it is in our own cluster."""
        metadata = {name: value for name, value in item["metadata"].items() if name in ("name", "namespace", "labels")}
        made = {**item, "metadata": metadata, "spec": spec}
        self.kubectl("create", "--filename=-", input=json.dumps(made))
        status = json.dumps({"status": item["status"]})
        where = f"--namespace={metadata.get('namespace', 'default')}"
        self.kubectl(
            "patch", item["kind"].lower(), metadata["name"], where, "--subresource=status", f"--patch={status}"
        )

    def die(self) -> None:
        """End, as a crash would."""
        for each in self.processes:
            each.kill()
            each.wait()


@pytest.fixture
def west(tmp_path: Path) -> Iterator[West]:
    """A second cluster, whose only node is our last one."""
    made = West(tmp_path)
    last = nodes()[-1]
    (node,) = (each for each in objects("nodes") if each["metadata"]["name"] == last)
    agents = objects("pods", "--namespace=gadget", "--selector=app.kubernetes.io/component=agent")
    (agent,) = (each for each in agents if each["spec"]["nodeName"] == last)
    made.add(node)
    made.kubectl("create", "namespace", "gadget")
    made.kubectl("create", "serviceaccount", "default", "--namespace=gadget")
    containers = [{"name": each["name"], "image": each["image"]} for each in agent["spec"]["containers"]]
    made.add(agent, nodeName=last, containers=containers)
    yield made
    made.die()


@pytest.mark.usefixtures("deployed")
def test_one_dies(
    west: West, make_namespace: Callable[[str], Namespace], start_cli: Callable[..., Cli], tmp_path: Path
) -> None:
    """With --context east,west I see the flows of both clusters as they come; one of them dies, the other goes on, and I am told."""
    shop, last = make_namespace("both"), nodes()[-1]
    address = talk(shop)
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("w") as to, err.open("w") as said:
        command = ("observe", "--context=east,west", f"--kubeconfig={west.config}", "-n", "both", "-f", "-o", "json")
        cli = start_cli(*command, stdout=to, stderr=said)

    def seen() -> list[str]:
        ask(shop, address)
        rows = map(json.loads, out.read_text().rpartition("\n")[0].splitlines())
        return [row["node"] for row in rows if row["pod"] == "cart-0"]

    wait_until(lambda: {*seen()} == {f"east/{last}", f"west/{last}"}, "flows by both", 60)
    done = gadget(*command[:5], "--in-cluster=west", "--all", "-o", "json")
    assert {json.loads(line)["node"] for line in done.stdout.splitlines()} == {f"west/{last}"}, done.stderr
    west.die()
    wait_until(lambda: f"west/{last}" in err.read_text(), "what is said of the one that died", 60)
    counts = list[int]()
    for _ in range(2):  # what it sent before may be on its way
        before = seen().count(f"east/{last}")
        wait_until(lambda: seen().count(f"east/{last}") > before + 3, "what comes after it", 30)  # noqa: B023
        counts.append(seen().count(f"west/{last}"))
    assert counts[0] == counts[1]
    cli.finish()
    (*_, summary) = (line for line in err.read_text().splitlines() if "not watched" in line)
    assert f"not watched: west/{last}" in summary and "east/" not in summary
