"""Advice that a network plugin enforces: kube-router, on the nodes of our own cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import orjson
import pytest

from tests.conftest import wait_until
from tests.e2e.cluster.__main__ import FOLDER
from tests.e2e.cluster.binaries import policy_enforcer
from tests.e2e.conftest import IMAGE, OWN_CLUSTER, Namespace, gadget, kubectl, nodes, objects
from tests.e2e.test_advise import ASK, NAMES, WEB, deployment, pod_of, service

pytestmark = [
    pytest.mark.usefixtures("deployed"),
    pytest.mark.skipif(not OWN_CLUSTER, reason="it has a plugin of its own"),
]

SPACE = "enforced"
API_SERVER = ("192.168.77.1", 6443)
TCP = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) as server:
    server.send(b"GET / HTTP/1.0\\r\\n\\r\\n")
    assert server.recv(1)
"""


@pytest.fixture
def enforcing(tmp_path: Path) -> Iterator[None]:
    """kube-router does on each node what policies say."""
    only = ("--run-router=false", "--run-service-proxy=false", "--run-firewall=true", "--enable-cni=false")
    with ExitStack() as stack:
        for node in nodes():
            inside = ("nsenter", f"--target={(FOLDER / f'{node}.pid').read_text().strip()}", "--mount", "--net")
            where = (f"--kubeconfig={FOLDER}/admin.kubeconfig", f"--hostname-override={node}", "--health-port=0")
            command = (*inside, str(policy_enforcer()), *only, *where, "--service-cluster-ip-range=10.96.0.0/16")
            log = stack.enter_context((tmp_path / f"{node}.log").open("wb"))
            process = subprocess.Popen(command, stdout=log, stderr=log)
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
        yield
        kubectl("delete", "networkpolicies", "--all", f"--namespace={SPACE}")


def reaches(shop: Namespace, app: str, address: str, port: int, code: str = TCP) -> bool:
    """Whether the pod of an app gets an answer from there."""
    pod = pod_of(shop, app)["metadata"]["name"]
    command = ["kubectl", "exec", f"--namespace={shop.name}", pod, "--", "python3", "-c", code, address, str(port)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_applied_advice_is_enforced(enforcing: None, make_namespace: Callable[[str], Namespace]) -> None:
    """Once applied, advice lets workloads do what they were seen to do, also after a rollout, and nothing else."""
    shop, first, second = make_namespace(SPACE), nodes()[0], nodes()[-1]
    apps = {"cart": ("sleep", "3600"), "other": ("sleep", "3600")}
    servers = {"web": ("python3", "-c", WEB), "names": ("python3", "-c", NAMES)}
    made = [deployment(SPACE, name, first, IMAGE, *command) for name, command in apps.items()]
    made += [deployment(SPACE, name, second, IMAGE, *command) for name, command in servers.items()]
    for item in (*made, service(SPACE, "web", 80, 8080)):
        kubectl("apply", "--filename=-", input=orjson.dumps(item).decode())

    def rolled_out() -> None:
        for name in (*apps, *servers):
            kubectl("rollout", "status", f"--namespace={SPACE}", f"deployment/{name}", "--timeout=60s")
        wait_until(lambda: len(objects("pods", f"--namespace={SPACE}")) == len(apps | servers), "old pods are gone", 60)

    def goes_on() -> bool:
        names = pod_of(shop, "names")["status"]["podIP"]
        return reaches(shop, "cart", web, 80) and reaches(shop, "cart", names, 1, ASK)

    def is_blocked() -> bool:
        pods = {name: pod_of(shop, name)["status"]["podIP"] for name in servers}
        others = reaches(shop, "other", pods["web"], 8080) or reaches(shop, "other", pods["names"], 1, ASK)
        return not (others or reaches(shop, "cart", *API_SERVER))

    rolled_out()
    web = kubectl("get", "service", "web", f"--namespace={SPACE}", "--output=jsonpath={.spec.clusterIP}")
    wait_until(goes_on, "the service", 60)
    advice = gadget("advise", "network-policy", f"--namespace={SPACE}")
    assert advice.returncode == 0 and advice.stdout.count("kind: NetworkPolicy") == 3, advice.stdout + advice.stderr
    assert reaches(shop, "other", web, 80) and reaches(shop, "cart", *API_SERVER)  # nothing is closed yet
    kubectl("apply", "--filename=-", input=advice.stdout)
    wait_until(is_blocked, "what was never seen is blocked", 60)
    assert goes_on() and reaches(shop, "other", *API_SERVER)  # of which nothing was advised
    kubectl("rollout", "restart", f"--namespace={SPACE}", "deployment/cart", "deployment/web")
    rolled_out()
    wait_until(goes_on, "the service after a rollout", 60)
    wait_until(is_blocked, "what was never seen is blocked after a rollout", 60)
