"""An API server that keeps what deploy makes, and tells of its pods what a test says."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.http_server import HttpServer

Object = dict[str, Any]
DAEMON_SET = "/apis/apps/v1/namespaces/gadget/daemonsets/gadget"
NAMESPACE = "/api/v1/namespaces/gadget"
PODS, EVENTS = f"{NAMESPACE}/pods", f"{NAMESPACE}/events"
RESOURCES = {
    "/api/v1": ("pods", "configmaps", "secrets", "serviceaccounts", "events"),
    "/apis/apps/v1": ("daemonsets", "deployments"),
    "/apis/example.org/v1": ("widgets",),
}


def agent_pod(node: str, *, ready: bool = False, reason: str = "", message: str = "", **state: Any) -> Object:
    """An agent's pod: one that serves, waits for reason, or is in a container state of its own."""
    state = state or ({"running": {}} if ready else {"waiting": {"reason": reason, "message": message}})
    last = {"lastState": {"terminated": {"exitCode": 1}}} if reason == "CrashLoopBackOff" else {}
    return {
        "metadata": {"name": f"gadget-{node}", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": node},
        "status": {
            "phase": "Running" if ready else "Pending",
            "conditions": [{"type": "Ready", "status": "True"}] if ready else [],
            "containerStatuses": [{"state": state, **last}],
        },
    }


def failed_create(
    message: str, *, of: str = "uid-daemonset", at: str = "2026-01-01T00:00:00Z", name: str = "e"
) -> Object:
    """An event that says why a DaemonSet has no pods."""
    metadata = {"name": name, "uid": name, "resourceVersion": f"{name}-{at}"}
    involved = {"kind": "DaemonSet", "name": "gadget", "uid": of}
    return {"metadata": metadata, "involvedObject": involved, "reason": "FailedCreate", "message": message,
            "lastTimestamp": at}  # fmt: skip


class Cluster(HttpServer):
    """Objects by path. A test may refuse requests, count them, and change what is there as they come."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, Object] = {}
        self.lists: dict[str, list[Object]] = {PODS: [], EVENTS: []}
        self.logs: dict[str, str] = {}
        self.queries: list[tuple[str, dict[str, str]]] = []
        self.wanted = 0
        #: of a method and path: status code and message
        self.refused: dict[tuple[str, str], tuple[int, str]] = {}
        #: called with each list of pods, before it is answered
        self.looked: Callable[[], None] = lambda: None
        #: called with the path of each request, before it is answered
        self.asked: Callable[[str], None] = lambda path: None
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, method: str, path: str, query: dict[str, str], body: Object | None) -> Any:
        """What a request is answered with; KeyError if there is nothing there."""
        if method == "PATCH":
            assert body
            return self._apply(path, body)
        if method == "POST":
            assert body
            self.objects[f"{path}/{body['metadata']['name']}"] = body
            return body
        if method == "DELETE":
            return self.objects.pop(path)
        if path == "/apis":
            groups = [{"preferredVersion": {"groupVersion": each.removeprefix("/apis/")}} for each in RESOURCES]
            return {"groups": groups[1:]}
        if path in RESOURCES:
            verbs = ["list", "delete", "get"]
            return {"resources": [{"name": each, "kind": each.title(), "namespaced": True, "verbs": verbs}
                                  for each in RESOURCES[path]]}  # fmt: skip
        self.queries.append((path, query))
        if path == PODS:
            self.looked()
        if path in self.lists or path.rpartition("/")[2] in sum(RESOURCES.values(), ()):
            items = [item for item in self.lists.get(path, []) if _matches(item, query.get("fieldSelector", ""))]
            items = [item for item in items if _is_chosen(item, query.get("labelSelector", ""))]
            return {"metadata": {}, "items": items}
        return self.objects[path]

    def _apply(self, path: str, body: Object) -> Object:
        before = self.objects.get(path, {"metadata": {"generation": 0}})
        changed = {**before, "metadata": 0, "status": 0} != {**body, "metadata": 0, "status": 0}
        generation = before["metadata"]["generation"] + changed
        metadata = {**body["metadata"], "generation": generation, "uid": f"uid-{path.split('/')[-2].rstrip('s')}"}
        status = {"observedGeneration": generation, "desiredNumberScheduled": self.wanted,
                  "updatedNumberScheduled": self.wanted, "updatedReplicas": 1}  # fmt: skip
        self.objects[path] = {**body, "metadata": metadata, "status": status}
        return self.objects[path]


def _is_chosen(item: Object, selector: str) -> bool:
    """Whether a selector by sets of values takes an object. Pods of agents need no labels here."""
    labels = item.get("metadata", {}).get("labels", {})
    wanted = re.findall(r"([^\s,]+) in \(([^)]*)\)", selector)
    return all(labels.get(name, values.split(",")[0]) in values.split(",") for name, values in wanted)


def _matches(item: Object, selector: str) -> bool:
    for part in filter(None, selector.split(",")):
        path, _, value = part.partition("=")
        found: Any = item
        for name in path.split("."):
            found = found[name]
        if found != value:
            return False
    return True


class _Handler(BaseHTTPRequestHandler):
    server: Cluster

    def _serve(self) -> None:
        address = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.asked(address.path)
        code, message = self.server.refused.get((self.command, address.path), (200, ""))
        answer: bytes
        if message:
            answer = json.dumps({"message": message}).encode()
        elif address.path.endswith("/log"):
            answer = self.server.logs.get(address.path.split("/")[-2], "").encode()
        else:
            try:
                answer = json.dumps(self.server.answer(self.command, address.path, query, body)).encode()
            except KeyError:
                code, answer = 404, b'{"message": "not found"}'
        self.send_response(code)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve_cluster() -> Iterator[Cluster]:
    """A cluster that answers in threads of ours."""
    with Cluster() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield running
        finally:
            running.shutdown()
            thread.join()
