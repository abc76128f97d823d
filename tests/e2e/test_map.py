"""map on a cluster, in a real browser: workloads, what became of connections, and what the cluster's policies say."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Page, browser
from tests.conftest import Cli, wait_until
from tests.e2e.conftest import IMAGE, Namespace, Stream, kubectl, nodes
from tests.e2e.test_advise import WEB, deployment, pod_of, service

pytestmark = pytest.mark.usefixtures("deployed")

#: So long that Kubernetes cuts it in the names of its pods: only their owner knows it.
LONG = "cart-of-which-the-name-is-longer-than-names-of-pods-may-ever"
POLICY: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "web", "namespace": "on-map"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": LONG}}}], "ports": [{"port": 9090}]},
            {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
        ],
    },
}
ROWS = """[...document.querySelectorAll("#table tbody tr:not(.space)")].map((row) => [...row.cells].slice(0, 5)
  .map((cell) => cell.textContent))"""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path) as made:
        made.look(1440, 900)
        yield made


@pytest.fixture
def shop(make_namespace: Callable[[str], Namespace]) -> Namespace:
    """A client that asks a web server, behind a service on another node; at a further port nobody listens."""
    shop = make_namespace("on-map")
    for item in (
        deployment(shop.name, LONG, nodes()[0], IMAGE, "sleep", "3600"),
        deployment(shop.name, "web", nodes()[-1], IMAGE, "python3", "-c", WEB),
        service(shop.name, "web", 80, 8080),
        POLICY,
    ):
        kubectl("apply", "--filename=-", input=json.dumps(item))
    for name in (LONG, "web"):
        kubectl("rollout", "status", f"--namespace={shop.name}", f"deployment/{name}", "--timeout=60s")
    return shop


def test_map(shop: Namespace, start_cli: Callable[..., Cli], start_stream: Callable[..., Stream], page: Page) -> None:
    """The map of a namespace has its deployments, a failed line where nobody listens, and what the cluster's policies say; it, and `observe -f`, go by policies that I apply meanwhile."""
    client = pod_of(shop, LONG)["metadata"]["name"]
    assert LONG not in client
    web = pod_of(shop, "web")["status"]["podIP"]
    service_ip = kubectl("get", "service", "web", f"--namespace={shop.name}", "--output=jsonpath={.spec.clusterIP}")

    def ask(address: str) -> str:
        script = f"import urllib.request; print(urllib.request.urlopen('http://{address}', timeout=5).status)"
        done = ["kubectl", "exec", f"--namespace={shop.name}", client, "--", "python3", "-c", script]
        found = subprocess.run(done, capture_output=True, text=True, check=False)
        return found.stdout or found.stderr

    wait_until(lambda: ask(service_ip) == "200\n", "the service", 30)
    assert "refused" in ask(f"{web}:9090")
    cli = start_cli("map", f"--namespace={shop.name}", "--no-open")
    assert cli.process.stdout
    url = cli.process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), cli.finish()
    page.go(url)
    ours = f"{ROWS}.filter((row) => row[0] === {json.dumps(f'{shop.name}/{LONG}')} && row[1] === '{shop.name}/web')"
    try:
        page.wait(f"{ours}.some((row) => row[2].includes('9090') && row[2].includes('8080'))")
    except AssertionError as error:
        raise AssertionError(f"{error}: {cli.finish()}") from None
    ((_, _, ports, connections, failed),) = page.run(ours)
    assert {"8080/TCP", "9090/TCP"} <= {*ports.split(", ")}
    assert int(connections) >= 2 and failed == "1"
    boxes = page.run("[...document.querySelectorAll('svg .spot')].map((e) => e.getAttribute('aria-label'))")
    assert f"{shop.name}/{LONG}; some failed" in boxes and f"{shop.name}/web; some failed" in boxes
    told = [
        "getComputedStyle(document.querySelector('svg .line.failed .stroke')).stroke",
        "getComputedStyle(document.querySelector('.key.failed'), '::before').borderTopColor",
    ]
    assert page.run(told[0]) == page.run(told[1])
    page.click("#tab-policies")
    page.wait("document.querySelector('#policies button') !== null")
    text = page.run("document.querySelector('#policies').textContent")
    assert (
        "policies: 1, rules that nothing used: 2." in text
        and "no ingress rule of web allows this peer on port 8080/TCP" in text
    )
    assert "192.0.2.0/24" in text and f"{shop.name}/{LONG}" in text
    page.click("#tab-flows")
    page.type("#filter", "policy=denied")
    assert [row[:2] for row in page.run(ROWS)] == [[f"{shop.name}/{LONG}", f"{shop.name}/web"]]
    page.type("#filter", f"label=app=web from:label=app={LONG}")
    assert [row[:2] for row in page.run(ROWS)] == [[f"{shop.name}/{LONG}", f"{shop.name}/web"]]
    stream = start_stream("observe", "--follow", f"--namespace={shop.name}", "policy=web")
    wait_until(lambda: ask(service_ip) and "denied" in {row["policy"] for row in stream.events()}, "an opinion", 60)
    kubectl("apply", "--filename=-", input=json.dumps({**POLICY, "spec": {**POLICY["spec"], "ingress": [{}]}}))
    wait_until(lambda: ask(service_ip) and "allowed" in {row["policy"] for row in stream.events()}, "the new one", 60)
    _, told = stream.finish()
    assert "The policies have changed: 1 from here on." in told
    page.wait("document.querySelector('#policies').textContent.includes(', 0 denied')")
    assert page.errors == []
    _, err = cli.finish()
    assert cli.process.returncode == 0, err
