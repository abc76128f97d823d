"""Hubble's own command line on a cluster: in front of `hubble serve`, and of what deploy --hubble makes."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, wait_until
from tests.e2e.conftest import IMAGE, Namespace, gadget, kubectl, nodes, objects
from tests.hubble.conftest import Hubble, binaries, hubble, rows

__all__ = ["binaries", "hubble"]  # fixtures
OWN_PLACE = "gadget-of-hubble"
_ANSWER = "while true; do echo -e 'HTTP/1.0 200 OK\\r\\n\\r\\nhello' | nc -l -p 8080; done"


def talk(shop: Namespace) -> str:
    """Have a pod ask another, through its Service and at its address, and nobody; gives the other's address."""
    first, *_, last = nodes()
    shop.pod("web-0", first, "sh", "-c", _ANSWER)
    kubectl("label", "pod", "web-0", "app=web", f"--namespace={shop.name}")
    kubectl("expose", "pod", "web-0", "--port=80", "--target-port=8080", f"--namespace={shop.name}")
    shop.pod("cart-0", last)
    return shop.address("web-0")


def ask(shop: Namespace, address: str) -> None:
    """One connection that is made, and one that is refused."""
    shop.run("cart-0", "sh", "-c", f"wget -q -O- http://{address}:8080/ >/dev/null; nc -w 1 {address} 81; true")


@contextmanager
def forwarded(service: str, namespace: str) -> Iterator[str]:
    """The address on this machine of a Service's port 443."""
    command = ["kubectl", "port-forward", f"--namespace={namespace}", f"service/{service}", ":443"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            found = re.search(r"127\.0\.0\.1:\d+", process.stdout.readline())
            assert found
            yield found[0]
        finally:
            process.terminate()


def seen(text: str) -> list[dict[str, Any]]:
    """Flows of rows."""
    return [row["flow"] for row in rows(text) if "flow" in row]


@pytest.mark.usefixtures("deployed")
def test_serve(make_namespace: Callable[[str], Namespace], start_cli: Callable[..., Cli], hubble: Hubble) -> None:
    """`hubble observe` needs no option on my cluster: flows of all nodes, with pods and processes, as `observe -o jsonpb` has them."""
    shop = make_namespace("hubbled")
    address = talk(shop)
    cli = start_cli("hubble", "serve", "--listen", "127.0.0.1:0")
    assert cli.process.stderr
    line = cli.process.stderr.readline()
    server = line.split()[3].rstrip(",")

    def flows(*options: str) -> list[dict[str, Any]]:
        return seen(hubble("observe", "-o", "jsonpb", "--last", "1000", "--server", server, *options))

    def verdicts() -> set[str]:
        ask(shop, address)
        return {flow["verdict"] for flow in flows("--from-pod", "hubbled/cart-0")}

    wait_until(lambda: verdicts() >= {"FORWARDED", "ERROR"}, "flows", 60)
    ours = ("--namespace", "hubbled")
    made = flows(*ours, "--to-port", "8080", "--verdict", "FORWARDED", "--traffic-direction", "egress")
    assert {(flow["source"]["pod_name"], flow["destination"]["pod_name"]) for flow in made} == {("cart-0", "web-0")}
    assert all("wget[" in flow["Summary"] for flow in made)
    ends = {flow["node_name"] for flow in flows("--pod", "hubbled/")}
    assert ends == set(nodes()) or len(nodes()) < 2
    refused = flows(*ours, "--to-port", "81")
    assert {flow["verdict"] for flow in refused} == {"ERROR"} and all("refused" in flow["Summary"] for flow in refused)
    kept = gadget("observe", "-n", "hubbled", "--all", "-o", "jsonpb")
    known = {json.dumps(flow, sort_keys=True) for flow in seen(kept.stdout)}
    missing = [flow for flow in flows(*ours) if json.dumps(flow, sort_keys=True) not in known]
    assert len(known) > 3 and not missing
    status = hubble("status", "--server", server)
    assert f"Connected Nodes: {len(nodes())}/{len(nodes())}" in status
    found = json.loads(hubble("list", "nodes", "-o", "json", "--server", server))
    assert {each["name"] for each in found} == set(nodes())
    assert "hubbled" in hubble("list", "namespaces", "--server", server).split()


@pytest.fixture
def without_agents(deployed: None) -> Iterator[None]:
    """No agents, as another's keep the flow log of each node for themselves; the cluster has its own again afterwards."""
    assert gadget("undeploy").returncode == 0
    yield
    done = gadget("deploy", "--image", IMAGE, "--privileged")
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("without_agents")
def test_deploy(make_namespace: Callable[[str], Namespace], hubble: Hubble, tmp_path: Path) -> None:
    """Deploy --hubble makes a Service that Hubble's clients read with the keys of a Secret; status shows it; undeploy removes it all."""
    place = f"--gadget-namespace={OWN_PLACE}"
    done = gadget("deploy", "--image", IMAGE, "--privileged", "--hubble", place)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "  hubble" in done.stdout and f"hubble-relay.{OWN_PLACE}.svc:443" in done.stdout
        command = ("get", "secret", "hubble-relay-client-certs", f"--namespace={OWN_PLACE}", "--output=json")
        for name, data in json.loads(kubectl(*command))["data"].items():
            (tmp_path / name).write_bytes(base64.b64decode(data))
        keys = ["--tls", "--tls-ca-cert-files", f"{tmp_path}/ca.crt", "--tls-client-cert-file", f"{tmp_path}/tls.crt",
                "--tls-client-key-file", f"{tmp_path}/tls.key", "--tls-server-name", f"hubble-relay.{OWN_PLACE}.svc"]  # fmt: skip
        shop = make_namespace("shared")
        address = talk(shop)
        with forwarded("hubble-relay", OWN_PLACE) as server:
            asked = ("observe", "-o", "jsonpb", "--namespace", "shared", "--server", server)

            def verdicts() -> set[str]:
                ask(shop, address)
                return {flow["verdict"] for flow in seen(hubble(*asked, *keys))}

            wait_until(lambda: verdicts() >= {"FORWARDED", "ERROR"}, "flows", 60)
            assert hubble(*asked, "--timeout", "3s", fails=True)
            pairs = {
                (f["source"].get("pod_name"), f["destination"].get("pod_name")) for f in seen(hubble(*asked, *keys))
            }
            assert ("cart-0", "web-0") in pairs
        table = gadget("status", place, "-o", "json").stdout
        (row,) = [row for row in map(json.loads, table.splitlines()) if row["node"] == "hubble"]
        assert row["state"] == "ready" and "flows" in row["hubble"]
        (pod,) = objects("pods", f"--namespace={OWN_PLACE}", "--selector=app.kubernetes.io/component=hubble")
        inside = kubectl("exec", f"--namespace={OWN_PLACE}", pod["metadata"]["name"], "--", "id", "-u")
        assert inside.strip() == "65532"
    finally:
        undone = gadget("undeploy", place)
    assert undone.returncode == 0, undone.stderr
    for kind in ("clusterroles", "clusterrolebindings"):
        assert not [each for each in objects(kind) if OWN_PLACE in each["metadata"]["name"]]
    assert OWN_PLACE not in {each["metadata"]["name"] for each in objects("namespaces")}
