"""The watch of this node's pods against an API server that lists, watches, forgets and fails."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import main
from agent.containers.pod_settings import Settings
from agent.containers.pods import PodInfo, PodWatch, info_of, read_pod
from gadget.errors import GadgetError
from gadget.kube import credentials, kubeconfig
from tests.apiserver import CUT, SILENCE, ApiServer, api_server, full_pod, pod
from tests.conftest import wait_until
from tests.tunnels import make_certificate

BOOKMARK = {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": "110"}}}


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        yield running


def watch(server: ApiServer, **settings: Any) -> PodWatch:
    chosen = Settings(**{"first_wait_seconds": 0.05, "most_wait_seconds": 0.4, **settings})
    return PodWatch(server.client(), "node-a", lambda: None, chosen)


def added(name: str, version: int, **labels: str) -> dict[str, Any]:
    return {"type": "ADDED", "object": pod(name, version, **labels)}


def parse_pod(item: dict[str, Any]) -> PodInfo:
    return info_of(read_pod(json.dumps(item).encode()))


def test_lists_in_pages(server: ApiServer) -> None:
    """All pods of the node are known, whatever their number, and only this node's are asked for."""
    watched = watch(server)
    wait_until(lambda: watched.get("uid-c"), "the last page")
    assert watched.get("uid-a").labels == {"app": "a"}
    assert watched.get("uid-a").owner == "ReplicaSet/cart-6c9f"
    assert (watched.get("uid-a").ips, watched.get("uid-a").restarts) == (("10.244.0.9",), {"app": 3})
    assert all(query["fieldSelector"] == ["spec.nodeName=node-a"] for query in server.queries)
    watched.close()


def test_follows_changes(server: ApiServer) -> None:
    """New, changed and deleted pods are known as they happen, across watches that end."""
    server.events["100"] = [added("d", 101, app="d")]
    server.events["101"] = [
        {"type": "MODIFIED", "object": pod("d", 102, app="other")},
        {"type": "DELETED", "object": pod("a", 103)},
    ]
    server.events["103"] = [BOOKMARK]
    server.events["110"] = [added("e", 111)]
    watched = watch(server)
    wait_until(lambda: watched.get("uid-e"), "the change after the bookmark")
    assert watched.get("uid-d").labels == {"app": "other"}
    assert watched.get("uid-a") is None
    watched.close()


def test_lists_again_after_410(server: ApiServer) -> None:
    """When the API server has forgotten where we were, all is listed again and nothing stale stays."""
    gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
    server.events["100"] = [added("stale", 101), gone]
    watched = watch(server)
    wait_until(
        lambda: watched.get("uid-a") and not watched.get("uid-stale") and "100" not in server.events, "the second list"
    )
    wait_until(lambda: sum("watch" in query for query in server.queries) == 2, "the second watch")
    watched.close()


def test_lists_again_after_410_of_a_request(server: ApiServer) -> None:
    """The same where the API server says so before the watch begins, or between two pages of a list."""
    watched = watch(server)
    wait_until(lambda: server.watches() == ["100"], "the watch")
    server.statuses = [410]
    server.pods = [pod("new-1"), pod("new-2"), pod("new-3")]
    server.finish.set()
    wait_until(lambda: watched.get("uid-new-3") and not watched.get("uid-a"), "the second list")
    watched.close()


def test_api_server_away(server: ApiServer) -> None:
    """While the API server is away what was known stays known; when it is back so are we."""
    server.events["100"] = []
    watched = watch(server)
    wait_until(lambda: watched.get("uid-a"), "the list")
    server.down = True
    server.finish.set()
    asked = len(server.queries)
    wait_until(lambda: len(server.queries) > asked, "another attempt")
    assert watched.get("uid-a")
    server.pods.append(pod("late"))
    server.down = False
    wait_until(lambda: watched.get("uid-late"), "the list after the outage")
    watched.close()


@pytest.mark.parametrize("cut", [[b'{"type":"ADDED","object":{"meta', CUT], [b'{"type":"ADDED","object":{"meta']])
def test_cut_inside_a_line(server: ApiServer, cut: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    """When the connection breaks inside a change nothing is lost, and the API server need not list all once more."""
    server.events["100"] = [added("d", 101), *cut]
    server.events["101"] = [added("e", 102)]
    watched = watch(server)
    wait_until(lambda: watched.get("uid-e"), "the change that was cut")
    assert watched.get("uid-d") and server.watches()[:2] == ["100", "101"]
    assert sum("watch" not in query for query in server.queries) == 2  # the pages of one list
    assert "trying again" in caplog.text
    watched.close()


@pytest.fixture
def account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where Kubernetes puts a pod's service account."""
    monkeypatch.setattr(kubeconfig, "_SERVICE_ACCOUNT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_token_that_is_renewed(account: Path, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """In a pod the agent goes on with the service account's next token when the kubelet has renewed it, also if the API
    server refuses the old one sooner; and it trusts nobody but the cluster's authority.
    """
    monkeypatch.setattr(credentials, "FILE_SECONDS", 0.5)
    with api_server(host=host, tls=account) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
        (account / "crt").rename(account / "ca.crt")
        (account / "token").write_text("first\n")
        server.tokens = {"first"}
        watched = main._watch_pods("node-a", lambda: None, Settings())
        wait_until(lambda: server.watches(), "the watch")
        server.tokens = {"second"}
        server.pods = [pod("late")]
        server.finish.set()
        (account / "token").write_text("second\n")
        wait_until(lambda: watched.get("uid-c") and len(server.watches()) > 1, "a watch with the second token")
        server.tokens = {"third"}
        asked = len(server.queries)
        wait_until(lambda: len(server.queries) > asked + 1, "a refusal")
        (account / "token").write_text("third\n")
        wait_until(lambda: watched.get("uid-late"), "a list with the third token")
        watched.close()


def test_authority(account: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The token goes to nobody whose certificate is not by the cluster's authority."""
    with api_server(tls=account) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
        make_certificate(account, "another", "ca.", loopback=True)
        (account / "token").write_text("secret")
        watched = main._watch_pods("node-a", lambda: None, Settings())
        wait_until(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text or "verify failed" in caplog.text, "a refusal")
        assert server.queries == []
        watched.close()


def test_silent_server(server: ApiServer) -> None:
    """A connection that has died without a word is noticed: the agent asks again from where it was."""
    watched = watch(server, silent_seconds=0.3)
    wait_until(lambda: len(server.watches()) > 1, "another watch", 4)  # the server would end it after 5 s
    server.events["100"] = [added("d", 101)]
    wait_until(lambda: watched.get("uid-d"), "a change")
    assert sum("watch" not in query for query in server.queries) == 2
    watched.close()


def test_quiet_node(server: ApiServer) -> None:
    """An agent on a node where no pod changes for hours is as well as any other, and its log has nothing about it."""
    watched = watch(server, silent_seconds=0.2, watch_seconds=1)
    wait_until(lambda: len(server.watches()) > 15, "watches for longer than a thread may stand still")
    assert watched.worker.problem == ""
    watched.close()


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"<html>log in</html>\n", "JSON is malformed"),
        (b'{"type":"ADDED","object":{"metadata":{"name":"nameless"}}}\n', "missing required field `uid`"),
        (b'{"type":"ADDED","object":' + b"[" * 60_000 + b"\n", "recursion"),
        (b'{"type":"ERROR","object":{"code":500,"message":"etcd is away"}}\n', "etcd is away"),
        (b"x" * 70_000 + b"\n", "a line of its answer is longer than 65536 bytes"),
        (b"x" * 70_000, "a line of its answer is longer than 65536 bytes"),
    ],
)
def test_nonsense(server: ApiServer, caplog: pytest.LogCaptureFixture, sent: bytes, told: str) -> None:
    """Whatever the API server sends costs no more memory than a line may have, is told, and all is listed anew."""
    server.events["100"], server.watch_seconds = [sent, SILENCE], 60.0
    watched = watch(server, line_bytes=1 << 16)
    wait_until(lambda: told in caplog.text, "a log line")
    server.pods = [pod("after")]
    wait_until(lambda: watched.get("uid-after") and not watched.get("uid-a"), "another list")
    assert watched.worker.problem == ""
    watched.close()


@pytest.mark.parametrize(
    ("page", "told"),
    [(b"{}", "missing required field `metadata`"), (b" " * 70_000, "its answer is longer than 65536 bytes")],
)
def test_nonsense_in_a_list(server: ApiServer, caplog: pytest.LogCaptureFixture, page: bytes, told: str) -> None:
    """The same of a list; the agent goes on once there is one that makes sense."""
    server.page = page
    watched = watch(server, page_bytes=1 << 16)
    wait_until(lambda: told in caplog.text, "a log line")
    server.page = b""
    wait_until(lambda: watched.get("uid-a"), "a list")
    watched.close()


def test_no_server_at_the_start() -> None:
    """An agent that starts before its API server begins without it, and knows the pods once it is there."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    server = ApiServer(port)
    server.server_close()
    watched = watch(server)
    assert watched.get("uid-a") is None
    with api_server(port):
        wait_until(lambda: watched.get("uid-a"), "a list")
        assert watched.worker.problem == ""
        watched.close()


def test_ends_at_once(server: ApiServer) -> None:
    """An agent that is to end does not wait for an API server that says nothing."""
    watched = watch(server)
    wait_until(server.watches, "the watch")
    began = time.monotonic()
    watched.close()
    assert time.monotonic() - began < 0.5
    assert not watched.worker._thread.is_alive()


def test_server_that_ends_each_watch(server: ApiServer) -> None:
    """An API server, or a proxy, that ends each watch at once is asked ever more seldom, not all the time."""
    server.finish.set()
    watched = watch(server)
    wait_until(lambda: len(server.watches()) > 1, "another watch")
    time.sleep(1)  # the time in which it is counted
    assert len(server.watches()) < 20
    watched.close()


def test_only_what_is_needed_is_kept() -> None:
    """Of 8 KB of a pod an agent keeps some 100 bytes; of its annotations those that are meant for us."""
    item = full_pod("cart-0", "5a6b")
    item["metadata"]["annotations"] = {
        "kubectl-gadget/traceloop": "off",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
    }
    found = parse_pod(item)
    assert (found.uid, found.annotations) == ("5a6b", {"kubectl-gadget/traceloop": "off"})
    assert (found.owner, found.restarts, found.ports[0]) == ("ReplicaSet/cart-6c9f", {"app": 3}, ("http", "TCP", 8080))
    assert found.labels["app.kubernetes.io/instance"] == "cart-0"


@pytest.mark.usefixtures("account")
def test_no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An agent that is to ask an API server, and is told of none, says so and where it looked."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    kubeconfig.read_context.cache_clear()
    with pytest.raises(GadgetError) as raised:
        main._watch_pods("node-a", lambda: None, Settings())
    assert str(raised.value) == f"--kubernetes: no cluster to talk to: there is no kubeconfig at {tmp_path}/none"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    with pytest.raises(GadgetError, match="no service account's token"):
        main._watch_pods("node-a", lambda: None, Settings())


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
