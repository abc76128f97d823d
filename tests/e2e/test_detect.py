"""Rules on a cluster: what pods do on any node is an alert with the pod's names, at once and afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.e2e.conftest import (
    BUSYBOX,
    IMAGE,
    OWN_CLUSTER,
    Namespace,
    Stream,
    gadget,
    nodes,
    objects,
    tell_cluster,
)

OWN_PLACE = "gadget-of-rules"
WRITE = "File below /etc is written by hand"
RULE = """\
- rule: Nobody sleeps
  desc: A test.
  condition: evt.type = execve and evt.rawres = 0 and container.id != host and proc.args = "0.123"
  output: Somebody sleeps | command=%proc.cmdline pod=%k8s.pod.name image=%container.image.repository
  priority: WARNING
- rule: Somebody goes in
  desc: A test.
  condition: ka.target.subresource = exec and ka.target.namespace = audited
  output: Somebody goes in | user=%ka.user.name pod=%ka.target.name
  priority: WARNING
  source: k8s_audit
"""
#: Where our own cluster's API server looks for its files when it starts.
AUDIT = Path(os.environ.get("KUBECONFIG", "/nowhere")).parent / "audit"


@pytest.fixture(scope="module")
def always(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Agents on all nodes that judge by rules, whoever looks, and a receiver of audit events."""
    rules = tmp_path_factory.mktemp("rules")
    (rules / "some.yaml").write_text(RULE)
    place = f"--gadget-namespace={OWN_PLACE}"
    # beside the recorders of the other tests' agents
    options = ["--privileged", "--traceloop=off", "--no-flows", "--no-syscalls", "--detect", str(rules)]
    options += ["--k8s-audit", str(AUDIT)] if OWN_CLUSTER else []
    done = gadget("deploy", "--image", IMAGE, *options, place)
    assert done.returncode == 0, done.stdout + done.stderr
    yield
    gadget("undeploy", place)
    shutil.rmtree(AUDIT, ignore_errors=True)


def fields(alert: dict[str, Any], *names: str) -> tuple[Any, ...]:
    """Values of an alert."""
    return tuple(alert["output_fields"][name] for name in names)


@pytest.mark.usefixtures("deployed")
def test_live(make_namespace: Callable[[str], Namespace], start_stream: Callable[..., Stream]) -> None:
    """A file that is written by hand in a pod is an alert from its node, with pod, image and command, and an Event of it."""
    shop, other = make_namespace("judged"), make_namespace("not-judged")
    pods = {node: shop.pod(f"cart-{index}", node) for index, node in enumerate(nodes())}
    stranger = other.pod("cart-0", next(iter(pods)))
    stream = start_stream("detect", "-n", "judged", "--rule", WRITE, "--to", "events")

    def all_seen() -> bool:
        other.run(stranger, "sh", "-c", "echo a > /etc/theirs")
        for pod in pods.values():
            shop.run(pod, "sh", "-c", "echo a > /etc/ours")
        return {each["hostname"] for each in stream.events()} >= set(pods)

    wait_until(all_seen, "an alert of each node", 60)
    alerts, said = stream.finish()
    assert {each["rule"] for each in alerts} == {WRITE}
    names = ("k8s.ns.name", "k8s.pod.name", "fd.name", "container.image.repository", "user.name")
    image = BUSYBOX.partition(":")[0]
    wanted = {(node, "judged", pod, "/etc/ours", image, "root") for node, pod in pods.items()}
    assert {(each["hostname"], *fields(each, *names)) for each in alerts} == wanted
    assert f" from {len(pods)} nodes" in said and "nothing lost" in said
    told = objects("events", "--namespace=judged", "--field-selector=reason=FileBelowEtcIsWrittenByHand")
    assert {each["involvedObject"]["name"] for each in told} == set(pods.values())
    assert all(each["type"] in ("Warning", "Normal") and "/etc/ours" in each["message"] for each in told)


@pytest.mark.usefixtures("always")
def test_always(make_namespace: Callable[[str], Namespace]) -> None:
    """Agents that have rules keep their alerts: I read afterwards what happened while nobody looked."""
    shop = make_namespace("watched")
    pods = {node: shop.pod(f"cart-{index}", node) for index, node in enumerate(nodes())}
    for pod in pods.values():
        shop.run(pod, "sleep", "0.123")

    def kept() -> dict[str, dict[str, Any]]:
        done = gadget("alerts", "-n", "watched", "-o", "json", f"--gadget-namespace={OWN_PLACE}")
        return {each["hostname"]: each for each in map(json.loads, done.stdout.splitlines())}

    wait_until(lambda: set(kept()) == set(pods), "an alert of each node", 60)
    for node, alert in kept().items():
        assert alert["rule"] == "Nobody sleeps"
        assert fields(alert, "k8s.pod.name", "proc.cmdline") == (pods[node], "sleep 0.123")
    table = gadget("alerts", "--by", "rule,pod", f"--gadget-namespace={OWN_PLACE}").stdout
    assert "Nobody sleeps" in table and all(pod in table for pod in pods.values())
    assert "1 rule;" in gadget("status", f"--gadget-namespace={OWN_PLACE}").stdout


@pytest.mark.skipif(not OWN_CLUSTER, reason="only our own cluster's API server may be started with other flags")
@pytest.mark.usefixtures("always")
def test_audit(make_namespace: Callable[[str], Namespace]) -> None:
    """With what deploy --k8s-audit wrote the API server tells of what is done by it: an exec into a pod is an alert."""
    shop = make_namespace("audited")
    shop.pod("cart-0", nodes()[0])
    tell_cluster(b"-", b"+")  # started with those files

    def alerts() -> list[dict[str, Any]]:
        go_in = ["kubectl", "exec", "--namespace=audited", "cart-0", "--", "/bin/true"]
        subprocess.run(go_in, capture_output=True, check=False)  # it may be away
        done = gadget("alerts", "-n", "audited", "-o", "json", f"--gadget-namespace={OWN_PLACE}")
        found = map(json.loads, done.stdout.splitlines())
        return [each for each in found if each["rule"] == "Somebody goes in"]

    alert, *_ = wait_until(alerts, "an alert of the API server", 120)
    assert alert["hostname"] == "k8s-audit" and fields(alert, "ka.user.name", "ka.target.name") == ("admin", "cart-0")
    assert "k8s-audit" in gadget("status", f"--gadget-namespace={OWN_PLACE}").stdout
