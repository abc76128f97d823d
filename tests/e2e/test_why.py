"""What ended pods, and what keeps them from running, on a real cluster: many that fail in as many ways, at once."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.e2e.conftest import BUSYBOX, Namespace, gadget, kubectl

pytestmark = pytest.mark.usefixtures("deployed")
#: An answer's, on a machine that has nothing else to do.
SECONDS = 1.0
#: An HTTP server of busybox, whose answer to everything else than its one file is 404.
SERVER = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/bin"]
FAST = {"periodSeconds": 1, "failureThreshold": 2}


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def probe(path: str, **how: int) -> dict[str, Any]:
    return {"httpGet": {"port": 8080, "path": path}, **FAST, **how}


def container(command: list[str], name: str = "app", **more: Any) -> dict[str, Any]:
    return {"name": name, "image": BUSYBOX, "imagePullPolicy": "IfNotPresent", "command": command, **more}


def pod(name: str, *containers: dict[str, Any], kind: str = "Pod", **spec: Any) -> dict[str, Any]:
    whole = {"terminationGracePeriodSeconds": 1, "containers": list(containers), **spec}
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "spec": whole}


SLEEP = ["/bin/sleep", "3600"]
#: Pods that fail, and of each what the first line has to say.
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "image": (
        pod("image", container(SLEEP, image="localhost:1/none:1")),
        r"its image localhost:1/none:1 cannot be had: .*connection refused \((ErrImagePull|ImagePullBackOff)\)",
    ),
    "never": (
        pod("never", container(SLEEP, image="localhost/absent:1", imagePullPolicy="Never")),
        r"its image localhost/absent:1 cannot be had: .*\(ErrImageNeverPull\)",
    ),
    "config": (
        pod("config", container(SLEEP, envFrom=[{"configMapRef": {"name": "prices"}}])),
        r'it could not be created: configmap "prices" not found \(CreateContainerConfigError\)',
    ),
    "volume": (
        pod("volume", container(SLEEP, volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            volumes=[{"name": "v", "secret": {"secretName": "keys"}}]),
        r'its volume v cannot be mounted: secret "keys" not found',
    ),
    "large": (
        pod("large", container(SLEEP, resources={"requests": {"cpu": "900"}})),
        r"no node takes it: 0/2 nodes are available: 2 Insufficient cpu",
    ),
    "alive": (
        pod("alive", container(SERVER, livenessProbe=probe("/health"))),
        r"the kubelet killed it, as its liveness probe \(GET :8080/health\) failed: HTTP status 404",
    ),
    "slow": (
        pod("slow", container(shell("sleep 3600; exec httpd -f -p 8080"), startupProbe=probe("/"))),
        r"the kubelet killed it, as its startup probe \(GET :8080/\) failed: connection refused",
    ),
    "unready": (
        pod("unready", container(SERVER, readinessProbe=probe("/ready"))),
        r"it is not ready: its readiness probe \(GET :8080/ready\) failed: HTTP status 404",
    ),
    "memory": (
        pod("memory", container(shell("x=a; while :; do x=$x$x; done"), resources={"limits": {"memory": "24Mi"}})),
        r"the kernel killed .* for want of memory in the container, whose limit is 24 MiB",
    ),
    "program": (
        pod("program", container(["/bin/serve"])),
        r"its program could not be started: .*/bin/serve.*no such file or directory",
    ),
    "missing": (
        pod("missing", container(shell("cat /etc/cart/prices.yaml || exit 3"),
                                 volumeMounts=[{"name": "c", "mountPath": "/etc/cart"}]),
            volumes=[{"name": "c", "configMap": {"name": "cart-config"}}]),
        r"could not open /etc/cart/prices.yaml: no such file \(ENOENT\)",
    ),
    "init": (
        pod("init", container(SLEEP), initContainers=[container(shell("echo no schema >&2; exit 4"), "migrate")]),
        r'its last words were "no schema"',
    ),
    "refused": (
        pod("refused", container(shell("exec nc $REDIS_SERVICE_HOST 6379"))),
        r"could not connect to svc/why/redis:6379: connection refused",
    ),
    "deadline": (
        pod("deadline", container(SLEEP), activeDeadlineSeconds=2),
        r"its pod ran longer than its activeDeadlineSeconds allow",
    ),
    "disk": (
        pod("disk", container(shell("dd if=/dev/zero of=/cache/x bs=16M count=2; sleep 3600"),
                              volumeMounts=[{"name": "cache", "mountPath": "/cache"}]),
            volumes=[{"name": "cache", "emptyDir": {"sizeLimit": "1Mi"}}]),
        r'it was evicted: Usage of EmptyDir volume "cache" exceeds the limit "1Mi"',
    ),
}  # fmt: skip
#: What has nothing wrong with it, or was asked to end.
GOOD = [
    pod("fine", container(SLEEP)),
    pod("ignores", container(shell("trap '' TERM; while :; do sleep 1; done"))),
    pod("done", container(["/bin/true"]), restartPolicy="Never"),
    {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"},
     "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container(shell("sleep 1"))]}}}},
    {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
     "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
              "template": {"metadata": {"labels": {"app": "web"}},
                           "spec": {"terminationGracePeriodSeconds": 1, "containers": [container(SLEEP)]}}}},
]  # fmt: skip
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cart-config"}, "data": {"prices.yml": "1"}}
REDIS = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "redis"},
         "spec": {"selector": {"app": "redis"}, "ports": [{"port": 6379}]}}  # fmt: skip


@pytest.fixture(scope="module")
def why() -> Iterator[Namespace]:
    """A namespace where everything fails that can."""
    space = Namespace("why")
    try:
        made = [CONFIG, REDIS, *GOOD, *(each for each, _ in BAD.values())]
        time.sleep(1)  # so that kube-proxy has the service
        items = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
        kubectl("apply", f"--namespace={space.name}", "--filename=-", input=items)
        kubectl("wait", "--for=condition=Available", f"--namespace={space.name}", "deploy/web", "--timeout=60s")
        kubectl("wait", "--for=condition=Ready", f"--namespace={space.name}", "pod/ignores", "--timeout=60s")
        kubectl("delete", f"--namespace={space.name}", "pod/ignores", "--wait=false")
        kubectl("set", "env", f"--namespace={space.name}", "deploy/web", "VERSION=2")
        yield space
    finally:
        kubectl("delete", "namespace", space.name, "--ignore-not-found", "--wait=false")


def first(name: str) -> tuple[str, float]:
    """The first finding about a pod, or all that was said if there is none, and how long that took."""
    began = time.monotonic()
    done = gadget("why", name, "-n", "why", "-o", "json")
    took = time.monotonic() - began
    return (json.loads(done.stdout)["findings"][0]["sentence"] if done.stdout else str(done)), took


@pytest.mark.parametrize("name", BAD)
def test_why(why: Namespace, name: str) -> None:
    """Whatever keeps my pod from running, the first line tells it, with the names that I know, and within a second."""
    _, expected = BAD[name]
    said = []

    def told() -> bool:
        said.append(first(name))
        return bool(re.search(expected, said[-1][0]))

    try:
        wait_until(told, expected, 60)
        busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
        wait_until(lambda: told() and said[-1][1] < SECONDS * busy, f"an answer within {SECONDS * busy:.1f} s", 30)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{said}\n{gadget('why', name, '-n', 'why')}") from None


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("refused", "no pod of it is ready"),
        ("missing", "the pod mounts ConfigMap cart-config at /etc/cart"),
        ("slow", "it had not listened on any port by then: it starts more slowly than the probe allows"),
        ("image", "there is no recording: it has not started"),
        ("large", "there is no recording: its pod is on no node yet"),
    ],
)
def test_details(why: Namespace, name: str, line: str) -> None:
    """What the cluster knows beyond that is in a line of its own."""
    done = wait_until(lambda: (found := gadget("why", name, "-n", "why")).stdout and found, name)
    assert line in re.sub(r"\s+", " ", done.stdout), done


def test_benign(why: Namespace) -> None:
    """Of pods that were deleted, replaced or are done I am told that, and of a workload's pods the one that runs."""
    told = "was asked to end by SIGTERM and did not"
    try:
        wait_until(lambda: told in first("ignores")[0], told, 60)  # it has 30 s to end
    except AssertionError as error:
        raise AssertionError(f"{error}\n{gadget('why', 'ignores', '-n', 'why', '-o', 'json')}") from None
    assert first("job")[0] == "it ended by itself with 0"
    done = gadget("why", "deploy/web", "-n", "why")
    assert re.match(r"why/web-\S+, container app, runs for ", done.stdout), done


def test_all(why: Namespace) -> None:
    """`why -A` lists the bad ones, each with its reason in a line, and nothing that is deleted, replaced, done or fine."""
    listed: list[dict[str, str]] = []

    def all_there() -> bool:
        done = gadget("why", "-A", "-o", "json")
        rows = map(json.loads, done.stdout.splitlines())
        listed[:] = [row for row in rows if row["namespace"] == why.name]
        return {row["pod"] for row in listed} == set(BAD)

    try:
        wait_until(all_there, "all that is bad", 90)  # a pod that is not ready is news after a minute
    except AssertionError as error:
        wrong = {row["pod"] for row in listed} ^ set(BAD)
        raise AssertionError(f"{error}: {wrong}\n{gadget('why', '-A')}\n{kubectl('get', 'pods', '-A')}") from None
    assert len(listed) == len(BAD)
    wrong = {row["pod"]: row["why"] for row in listed if not re.search(BAD[row["pod"]][1], row["why"])}
    assert not wrong, listed
