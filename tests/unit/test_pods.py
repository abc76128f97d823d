"""The watch of this node's pods against an API server that lists, watches, forgets and fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kubernetes import client

from agent.pods import PodWatch, parse_pod
from tests.apiserver import ApiServer, api_server, pod
from tests.conftest import wait_until


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        yield running


def watch(server: ApiServer) -> PodWatch:
    configuration = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
    configuration.retries = False
    return PodWatch(client.CoreV1Api(client.ApiClient(configuration)), "node-a", lambda: None)


def test_lists_in_pages(server: ApiServer) -> None:
    """All pods of the node are known, whatever their number, and only this node's are asked for."""
    pods = watch(server)
    wait_until(lambda: pods.get("uid-c"), "the last page")
    assert pods.get("uid-a").labels == {"app": "a"}
    assert pods.get("uid-a").owner == "ReplicaSet/cart-6c9f"
    assert (pods.get("uid-a").ips, pods.get("uid-a").restarts) == (("10.244.0.9",), {"app": 3})
    assert all(query["fieldSelector"] == ["spec.nodeName=node-a"] for query in server.queries)
    pods.close()


def test_follows_changes(server: ApiServer) -> None:
    """New, changed and deleted pods are known as they happen, across watches that end."""
    server.events["100"] = [{"type": "ADDED", "object": pod("d", 101, app="d")}]
    server.events["101"] = [
        {"type": "MODIFIED", "object": pod("d", 102, app="other")},
        {"type": "DELETED", "object": pod("a", 103)},
    ]
    server.events["103"] = [{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "110"}}}]
    server.events["110"] = [{"type": "ADDED", "object": pod("e", 111)}]
    pods = watch(server)
    wait_until(lambda: pods.get("uid-e"), "the change after the bookmark")
    assert pods.get("uid-d").labels == {"app": "other"}
    assert pods.get("uid-a") is None
    pods.close()


def test_lists_again_after_410(server: ApiServer) -> None:
    """When the API server has forgotten where we were, all is listed again and nothing stale stays."""
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
    server.events["100"] = [{"type": "ADDED", "object": pod("stale", 101)}, gone]
    pods = watch(server)
    wait_until(
        lambda: pods.get("uid-a") and not pods.get("uid-stale") and "100" not in server.events, "the second list"
    )
    wait_until(lambda: sum("watch" in query for query in server.queries) == 2, "the second watch")
    pods.close()


def test_api_server_away(server: ApiServer) -> None:
    """While the API server is away what was known stays known; when it is back so are we."""
    server.events["100"] = []
    pods = watch(server)
    wait_until(lambda: pods.get("uid-a"), "the list")
    server.down = True
    server.finish.set()
    asked = len(server.queries)
    wait_until(lambda: len(server.queries) > asked, "another attempt")
    assert pods.get("uid-a")
    server.pods.append(pod("late"))
    server.down = False
    wait_until(lambda: pods.get("uid-late"), "the list after the outage")
    pods.close()


def test_static_pod() -> None:
    """A static pod is found by the UID in its cgroup path, which is not its mirror pod's."""
    item = pod("static")
    item["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "5a6b"}
    assert parse_pod(item).uid == "5a6b"
    assert parse_pod(item).object_uid == "uid-static"


def test_sidecar() -> None:
    """The named ports of a sidecar are the pod's, though it stands among the init containers; of those that end none."""
    item = pod("a")
    item["spec"] = {
        "containers": [{"ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}]}],
        "initContainers": [
            {"restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": 9090}]},
            {"ports": [{"name": "once", "containerPort": 7000}]},
        ],
    }
    assert parse_pod(item).ports == (("http", "TCP", 80), ("metrics", "TCP", 9090))
