"""What pods did before they ended, and who they talked to, on a real cluster."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest

from tests.conftest import wait_until
from tests.e2e.conftest import BUSYBOX, Namespace, Stream, gadget, kubectl, nodes, wait_for_nodes

pytestmark = pytest.mark.usefixtures("deployed")


def test_crash_loop(make_namespace: Callable[[str], Namespace]) -> None:
    """Of a pod in CrashLoopBackOff I see the last crash, and each one before as a line of its own."""
    shop = make_namespace("crashing")
    script = "n=$(cat /kept/n 2>/dev/null || echo 0); n=$((n+1)); echo $n > /kept/n; cat /missing-$n; exit $((n+10))"
    container = {
        "name": "app", "image": BUSYBOX, "command": ["/bin/sh", "-c", script],
        "volumeMounts": [{"name": "kept", "mountPath": "/kept"}],
    }  # fmt: skip
    spec = {"nodeName": nodes()[0], "containers": [container], "volumes": [{"name": "kept", "emptyDir": {}}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart", "namespace": shop.name}, "spec": spec}
    kubectl("apply", "--filename=-", input=json.dumps(pod))

    def states() -> set[str]:
        listed = gadget("traceloop", "list", "-n", shop.name, "-o", "json").stdout.splitlines()
        return {json.loads(line)["state"] for line in listed}

    wait_until(lambda: "exited 13" in states(), "the third crash", 90)
    assert {"exited 11", "exited 12"} <= states()
    shown = gadget("traceloop", "show", "cart", "-n", shop.name)
    assert shown.returncode == 0, shown.stderr
    assert '"/missing-3", O_RDONLY) = -1 ENOENT' in shown.stdout
    assert shown.stdout.splitlines()[-1].endswith("+++ exited with 13 +++")


def test_connections_by_name(make_namespace: Callable[[str], Namespace], start_stream: Callable[..., Stream]) -> None:
    """Connections show the service, pod or node at their other end by its name, with exact counts."""
    shop = make_namespace("talking")
    first, second = nodes()[0], nodes()[-1]
    shop.pod("client", first)
    shop.pod("server", second, "/bin/busybox", "httpd", "-f", "-p", "8080")
    kubectl("label", "pod", "server", f"--namespace={shop.name}", "app=server")
    kubectl("create", "service", "clusterip", "server", f"--namespace={shop.name}", "--tcp=80:8080")
    service = kubectl("get", "service", "server", f"--namespace={shop.name}", "--output=jsonpath={.spec.clusterIP}")
    get = "busybox wget -q -O /dev/null http://{}/bin/busybox 2>/dev/null"
    up = f"{get.format(service)} && echo up; true"
    wait_until(lambda: shop.run("client", "sh", "-c", up), "the service", 60)
    stream = start_stream("tcpconnect", "-n", shop.name)
    address = shop.address("server")
    wait_for_nodes(stream, {first: (shop, "client")}, f"{get.format(f'{address}:82')}; true")
    for host, times in ((service, 7), (f"{address}:8080", 11), (f"{address}:81", 5)):
        shop.run("client", "sh", "-c", f"i=0; while [ $i -lt {times} ]; do {get.format(host)}; i=$((i+1)); done; true")
    events, said = stream.finish()
    assert "nothing lost" in said
    ends = [(e["dst"]["kind"], e["dst"]["name"], e["dst"]["port"], e["result"]) for e in events]
    seen = Counter(end for end in ends if end != ("pod", "server", 82, "refused"))
    assert seen == {
        ("svc", "server", 80, "ok"): 7,
        ("pod", "server", 8080, "ok"): 11,
        ("pod", "server", 81, "refused"): 5,
    }, said
    assert {e["dst"]["namespace"] for e in events} == {shop.name}


def test_opens(make_namespace: Callable[[str], Namespace], start_stream: Callable[..., Stream]) -> None:
    """Opensnoop shows exactly the opens of my pods, by label too."""
    shop = make_namespace("opening")
    node = nodes()[0]
    for name in ("cart", "noise"):
        shop.pod(name, node)
        kubectl("label", "pod", name, f"--namespace={shop.name}", f"app={name}")
    stream = start_stream("opensnoop", "-n", shop.name, "-l", "app=cart", "--prefix", "/etc/nothing")
    wait_for_nodes(stream, {node: (shop, "cart")}, "cat /etc/nothing-yet 2>/dev/null; true")
    for name in ("cart", "noise"):
        shop.run(name, "sh", "-c", "i=0; while [ $i -lt 13 ]; do cat /etc/nothing; i=$((i+1)); done 2>/dev/null; true")
    events, said = stream.finish()
    opens = Counter((e["pod"], e["path"], e["error"]) for e in events if e["path"] != "/etc/nothing-yet")
    assert opens == {("cart", "/etc/nothing", "ENOENT"): 13}, said
