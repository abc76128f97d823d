"""Alerts as Events of Kubernetes, and what becomes of them where the API server does not take them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from gadget.kube.api import ApiServer
from gadget.kube.kubeconfig import ClusterFlags, read_context
from gadget.rules import events
from gadget.rules.alerts import Alert
from gadget.rules.channels import Channels, SendPatience, Tls, make
from gadget.rules.messages import SentRule
from tests.cluster_api import Cluster, serve_cluster

NOW = 1_764_360_000_123_456_789
SHELL = Alert(
    SentRule("Shell in a container", "Warning", "syscall", frozenset()), NOW, "a shell | user=root", {}, node="node-a",
    id="k7m2qp4", pod=("shop", "cart-0"),
)  # fmt: skip
PLACE = "/api/v1/namespaces/shop/events"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with serve_cluster() as running:
        running.objects["/api/v1/namespaces/shop/pods/cart-0"] = {"metadata": {"uid": "u-1"}}
        yield running


def send(cluster: Cluster, *alerts: Alert) -> tuple[int, int, str]:
    """How many alerts were sent and lost, and why the last one was."""
    api = ApiServer(read_context(ClusterFlags(server=cluster.url, kubeconfig="/dev/null")))
    patience = SendPatience(first_pause=0.01, last_pause=0.01, drain=1.0)
    channel = make("events", "here", Tls(), patience, lambda text: None, lambda: api)
    channels = Channels([channel], patience.drain)
    for each in alerts:
        channels.put(each)
    (sent,) = channels.end()
    return sent.sent, sent.lost, sent.why


def made(cluster: Cluster) -> list[Any]:
    return [each for path, each in cluster.objects.items() if path.startswith(PLACE)]


def test_event(cluster: Cluster) -> None:
    """An alert is an Event on its pod, with rule, priority, what it says, how often and on which node."""
    assert send(cluster, SHELL) == (1, 0, "")
    assert made(cluster) == [{
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"namespace": "shop", "name": f"cart-0.{NOW:x}k7m2qp4"},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "cart-0", "uid": "u-1"},
        "type": "Warning", "reason": "ShellInAContainer", "message": "a shell | user=root", "count": 1,
        "firstTimestamp": "2025-11-28T20:00:00Z", "lastTimestamp": "2025-11-28T20:00:00Z",
        "source": {"component": "kubectl-gadget", "host": "node-a"},
        "reportingComponent": "kubectl-gadget", "reportingInstance": "node-a",
    }]  # fmt: skip


def test_hostile(cluster: Cluster) -> None:
    """What a process says moves no terminal's cursor, and is no longer than a message of an Event may be."""
    send(
        cluster, replace(SHELL, text="\x1b[2J" + "x" * 5000, rule=replace(SHELL.rule, name="\x1b?", priority="Notice"))
    )
    (event,) = made(cluster)
    assert len(event["message"]) == 1024 and "\x1b" not in event["message"]
    assert (event["type"], event["reason"]) == ("Normal", "Detected")


def test_flood(cluster: Cluster) -> None:
    """A pod that floods alerts makes few Events, takes none from others, and the rest is counted."""
    flood = [replace(SHELL, time_ns=NOW + at) for at in range(200)]
    sent, lost, why = send(cluster, *flood, replace(SHELL, pod=("shop", "web-0")))
    assert (sent, lost, why) == (events.BURST + 1, 200 - events.BURST, "more than the API server is to keep")


def test_gone(cluster: Cluster) -> None:
    """Of a pod that is gone there is an Event without uid; an alert of no pod is counted as lost."""
    gone, none = replace(SHELL, pod=("shop", "old-0")), replace(SHELL, pod=("", ""))
    assert send(cluster, gone, none) == (1, 1, "of no pod")
    assert "uid" not in made(cluster)[0]["involvedObject"]


def test_refused(cluster: Cluster) -> None:
    """Where I may make no Events I am told so, and what was lost; a server that fails is asked again."""
    cluster.refused["POST", PLACE] = (403, "no")
    assert send(cluster, SHELL) == (0, 1, "you may not create events in namespace shop")
    cluster.refused["POST", PLACE] = (500, "later")
    asked: list[str] = []

    def heal(path: str) -> None:
        asked.append(path)
        if asked.count(PLACE) > 2:
            cluster.refused.clear()

    cluster.asked = heal
    assert send(cluster, SHELL)[:2] == (1, 0)
