from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import wait_until
from tests.e2e.conftest import IMAGE, OWN_CLUSTER, Namespace, gadget, kubectl, nodes, objects

pytestmark = pytest.mark.usefixtures("deployed")

WEB = """
import http.server
http.server.ThreadingHTTPServer(("", 8080), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
NAMES = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 5353))
while True:
    question, client = server.recvfrom(512)
    server.sendto(question, client)
"""
ASK = """
import socket, sys
for _ in range(int(sys.argv[2])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((sys.argv[1], 5353))
        client.send(b"who?")
        assert client.recv(512) == b"who?"
"""
EXPECTED = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: cart
  namespace: advice
  labels:
    app.kubernetes.io/managed-by: kubectl-gadget
spec:
  podSelector:
    matchLabels:
      app: cart
  policyTypes:
  - Egress
  egress:
  - to:
    - podSelector:
        matchLabels:
          app: names
    ports:
    - port: 5353
      protocol: UDP
  - to:
    - podSelector:
        matchLabels:
          app: web
    ports:
    - port: 8080
      protocol: TCP
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: names
  namespace: advice
  labels:
    app.kubernetes.io/managed-by: kubectl-gadget
spec:
  podSelector:
    matchLabels:
      app: names
  policyTypes:
  - Ingress
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: cart
    ports:
    - port: 5353
      protocol: UDP
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web
  namespace: advice
  labels:
    app.kubernetes.io/managed-by: kubectl-gadget
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes:
  - Ingress
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: cart
    ports:
    - port: 8080
      protocol: TCP
"""


def deployment(namespace: str, name: str, node: str, image: str, *command: str) -> dict[str, Any]:
    labels = {"app": name}
    container = {"name": "app", "image": image, "command": command}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    }


def service(namespace: str, name: str, port: int, target: int) -> dict[str, Any]:
    spec = {"selector": {"app": name}, "ports": [{"port": port, "targetPort": target}]}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def pod_of(shop: Namespace, app: str) -> dict[str, Any]:
    (found,) = objects("pods", f"--namespace={shop.name}", f"--selector=app={app}")
    return found


@pytest.fixture(params=["advice"])
def shop(make_namespace: Callable[[str], Namespace], request: pytest.FixtureRequest) -> Namespace:
    """A client, a web server behind a service, a server that speaks UDP, on two nodes; the client has talked."""
    shop = make_namespace(request.param)
    first, second = nodes()[0], nodes()[-1]
    assert first != second or not OWN_CLUSTER
    for item in (
        deployment(shop.name, "cart", first, IMAGE, "sleep", "3600"),
        deployment(shop.name, "web", second, IMAGE, "python3", "-c", WEB),
        deployment(shop.name, "names", second, IMAGE, "python3", "-c", NAMES),
        service(shop.name, "web", 80, 8080),
    ):
        kubectl("apply", "--filename=-", input=json.dumps(item))
    for name in ("cart", "web", "names"):
        kubectl("rollout", "status", f"--namespace={shop.name}", f"deployment/{name}", "--timeout=60s")
    cart = pod_of(shop, "cart")["metadata"]["name"]
    address = kubectl("get", "service", "web", f"--namespace={shop.name}", "--output=jsonpath={.spec.clusterIP}")
    fetch = f"import urllib.request; print(urllib.request.urlopen('http://{address}', timeout=5).status)"

    def answers() -> bool:
        done = ["kubectl", "exec", f"--namespace={shop.name}", cart, "--", "python3", "-c", fetch]
        return subprocess.run(done, capture_output=True, text=True, check=False).stdout == "200\n"

    wait_until(answers, "the service", 30)
    shop.run(cart, "python3", "-c", ASK, pod_of(shop, "names")["status"]["podIP"], "7")
    return shop


def policies(shown: str) -> list[dict[str, Any]]:
    """What stands in YAML, in its order."""
    return list(yaml.safe_load_all(shown))


def test_advice(shop: Namespace, tmp_path: Path) -> None:
    """Of a client, a web service and a UDP server over two nodes I get exactly the policies, ready to be applied."""
    done = gadget("advise", "network-policy", "--namespace", "advice")
    assert done.returncode == 0, done.stderr
    assert policies(done.stdout) == policies(EXPECTED), done.stdout + done.stderr
    applied = kubectl("apply", "--dry-run=server", "--filename=-", input=done.stdout)
    assert applied.count("created (server dry run)") == 3
    assert "not covered" not in done.stdout and "WILL BE DENIED" not in done.stdout
    # what has been advised allows what has been seen; a policy that is too narrow does not
    (tmp_path / "policies.yaml").write_text(done.stdout)
    check = ["advise", "network-policy", "check", "--namespace", "advice", "--policy"]
    allowed = gadget(*check, str(tmp_path / "policies.yaml"))
    assert allowed.returncode == 0, allowed.stdout + allowed.stderr
    (tmp_path / "narrow.yaml").write_text(done.stdout.replace("port: 8080", "port: 8081"))
    denied = gadget(*check, str(tmp_path / "narrow.yaml"))
    assert denied.returncode == 1 and "DENIED" in denied.stdout and "8080/TCP" in denied.stdout
    # the same from a file, on another machine
    file = tmp_path / "flows.jsonl"
    kept = gadget("advise", "network-policy", "monitor", "--duration", "1s", "--from-start", "--output", str(file))
    assert kept.returncode == 0, kept.stderr
    report = gadget("advise", "network-policy", "report", "--input", str(file), "-n", "advice")
    assert report.returncode == 0, report.stderr
    assert policies(report.stdout) == policies(EXPECTED)


@pytest.mark.parametrize("shop", ["advice-applied"], indirect=True)
def test_advice_applied(shop: Namespace, tmp_path: Path) -> None:
    """Once the advice is applied, it allows what was seen and there is nothing to change; parts of it I get by label."""
    advise, where = ("advise", "network-policy"), f"--namespace={shop.name}"
    done = gadget(*advise, where, "--since=1h", f"--output-dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    wanted = [f"{shop.name}.{name}.yaml" for name in ("cart", "names", "web")]
    assert sorted(path.name for path in tmp_path.iterdir()) == [*wanted, "kustomization.yaml"]
    assert "denied" in gadget(*advise, "check", where, "--policy", str(tmp_path)).stdout
    changes = gadget(*advise, "diff", where)
    assert all(name in changes.stdout for name in ("cart", "names", "web")), changes.stdout
    kubectl("apply", f"--kustomize={tmp_path}")
    check = gadget(*advise, "check", where, "--cluster")
    assert (check.returncode, check.stderr) == (0, ""), check.stdout
    assert check.stdout.endswith(" 0 denied, 0 rules unused.\n")
    same = gadget(*advise, "diff", where)
    assert same.returncode == 0, same.stdout
    (tmp_path / f"{shop.name}.web.yaml").unlink()
    web = gadget(*advise, where, "-l", "app=web")
    assert [policy["metadata"]["name"] for policy in policies(web.stdout)] == ["web"], web.stderr


@pytest.mark.parametrize("shop", ["advice-from-now-on"], indirect=True)
def test_duration(shop: Namespace) -> None:
    """With --duration the advice is about what happens from now on, and nothing before."""
    cart = pod_of(shop, "cart")["metadata"]["name"]
    command = ["advise", "network-policy", "--namespace", shop.name, "--duration", "8s"]
    with subprocess.Popen(
        ["kubectl", "exec", f"--namespace={shop.name}", cart, "--", "python3", "-c",
         f"import time; time.sleep(4)\n{ASK}", pod_of(shop, "names")["status"]["podIP"], "3"],
        stdout=subprocess.DEVNULL, env=os.environ,
    ) as asking:  # fmt: skip
        done = gadget(*command)
        assert asking.wait() == 0
    assert {policy["metadata"]["name"] for policy in policies(done.stdout)} == {"cart", "names"}, (
        done.stdout + done.stderr
    )


def test_nothing_seen() -> None:
    """A namespace without traffic gives no policy, and says that nothing was seen."""
    done = gadget("advise", "network-policy", "--namespace", "kube-node-lease")
    assert done.returncode == 0
    assert "kind: NetworkPolicy" not in done.stdout
