from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.e2e.conftest import IMAGE, Namespace, gadget, kubectl, nodes, objects

pytestmark = pytest.mark.usefixtures("deployed")
LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp
PROBE = (
    "python3",
    "-c",
    """
import socket, sys
with socket.socket() as client:
    client.settimeout(3)
    print("closed" if client.connect_ex((sys.argv[1], 7070)) else "open")
""",
)


def proc_address(text: str) -> IPv4Address | IPv6Address:
    """An address as /proc/net/tcp has it: words of four bytes, each little-endian."""
    packed = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    address = ip_address(packed)
    return getattr(address, "ipv4_mapped", None) or address


@pytest.fixture
def allow() -> Iterator[Callable[..., None]]:
    """Gives user alice rights in namespace gadget."""
    made: list[str] = []

    def grant(resource: str, *verbs: str) -> None:
        name = f"alice-{resource.replace('/', '-')}"
        made.append(name)
        kubectl("create", "role", name, "--namespace=gadget", f"--resource={resource}", f"--verb={','.join(verbs)}")
        kubectl("create", "rolebinding", name, "--namespace=gadget", f"--role={name}", "--user=alice")

    yield grant
    for name in made:
        kubectl("delete", "role,rolebinding", name, "--namespace=gadget")


def test_refusals_name_the_missing_right(allow: Callable[..., None]) -> None:
    """Without rights I am told in one line which right to ask for; with it, it works."""
    seen = []
    for resource, verbs in (("pods", ["list"]), ("pods/portforward", ["get", "create"])):
        seen.append(gadget("containers", "-A", "--as=alice").stderr)
        allow(resource, *verbs)
    assert seen[0] == "error: you may not list pods in namespace gadget: ask for list on pods there\n"
    assert seen[1].startswith("error: you may not port-forward in namespace gadget: ask for ")
    assert seen[1].endswith(" on pods/portforward there\n") and seen[1].count("\n") == 1
    assert gadget("containers", "-A", "--as=alice").returncode == 0


def test_nothing_listens_on_the_pod_network(make_namespace: Callable[[str], Namespace]) -> None:
    """No pod of the cluster can reach an agent: it listens on its pod's loopback alone."""
    agent = objects("pods", "--namespace=gadget")[0]
    table = kubectl(
        "exec", "--namespace=gadget", agent["metadata"]["name"], "--", "cat", "/proc/net/tcp", "/proc/net/tcp6"
    )
    sockets = [line.split() for line in table.splitlines() if "local_address" not in line]
    addresses = {proc_address(fields[1].partition(":")[0]) for fields in sockets if fields[3] == LISTENING}
    assert addresses and all(address.is_loopback for address in addresses)
    space = make_namespace("neighbours")
    space.pod("web", nodes()[0], "python3", "-m", "http.server", "7070", image=IMAGE)
    space.pod("client", nodes()[-1], "sleep", "3600", image=IMAGE)
    wait_until(lambda: space.run("client", *PROBE, space.address("web")) == "open\n", "a pod that does listen")
    assert space.run("client", *PROBE, agent["status"]["podIP"]) == "closed\n"


def test_ways_to_log_in(tmp_path: Path) -> None:
    """A token, a token file and a log-in plugin let me in as my certificate does."""
    token = kubectl("create", "token", "gadget", "--namespace=gadget").strip()
    kubectl(
        "create", "clusterrolebinding", "e2e-login", "--clusterrole=cluster-admin", "--serviceaccount=gadget:gadget"
    )
    try:
        answer = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": token}}
        plugin = tmp_path / "login"
        plugin.write_text(f"#!/bin/sh\n[ \"$WHO\" = me ] && echo '{json.dumps(answer)}'\n")
        plugin.chmod(plugin.stat().st_mode | stat.S_IXUSR)
        (tmp_path / "token").write_text(token)
        config = json.loads(kubectl("config", "view", "--raw", "--output=json"))
        login = {"apiVersion": answer["apiVersion"], "command": "./login", "env": [{"name": "WHO", "value": "me"}]}
        for user in ({"token": token}, {"tokenFile": "token"}, {"exec": login}):
            config["users"][0]["user"] = user
            (tmp_path / "config").write_text(json.dumps(config))
            done = gadget("containers", "-A", "--kubeconfig", str(tmp_path / "config"))
            assert (done.returncode, done.stderr) == (0, ""), user
        config["users"][0]["user"] = {"token": "wrong"}
        (tmp_path / "config").write_text(json.dumps(config))
        done = gadget("containers", "-A", "--kubeconfig", str(tmp_path / "config"))
        assert done.returncode == 1 and "log in again" in done.stderr and done.stderr.count("\n") == 1
    finally:
        kubectl("delete", "clusterrolebinding", "e2e-login")


def test_no_api_server() -> None:
    """If the API server does not answer I am told which one, in one line."""
    done = gadget("containers", "-A", "--server=https://127.0.0.1:1")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "https://127.0.0.1:1 does not answer" in done.stderr
    assert os.environ["KUBECONFIG"]
