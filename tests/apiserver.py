"""An API server of pods, nodes and services: lists in pages, watches, forgets, refuses and fails on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

from tests.http_server import HttpServer


def pod(name: str, version: int = 1, **labels: str) -> dict[str, Any]:
    owner = {"kind": "ReplicaSet", "name": "cart-6c9f", "controller": True}
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "labels": labels,
            "resourceVersion": str(version),
            "ownerReferences": [owner],
        },
        "status": {"podIPs": [{"ip": "10.244.0.9"}], "containerStatuses": [{"name": "app", "restartCount": 3}]},
    }


class ApiServer(HttpServer):
    """Pages of two pods; watches that send what events holds for their version; 503 while down."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pods = [pod("a", app="a"), pod("b", app="b"), pod("c", app="c")]
        self.nodes: list[dict[str, Any]] = []
        self.services: list[dict[str, Any]] = []
        #: paths that may not be listed, those that were asked for, and what is sent instead of JSON
        self.refused: set[str] = set()
        self.paths: list[str] = []
        self.page = b""
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.down = False
        self.queries: list[dict[str, list[str]]] = []
        self.finish = threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: ApiServer

    def do_GET(self) -> None:
        asked = urlparse(self.path)
        query = parse_qs(asked.query)
        self.server.queries.append(query)
        self.server.paths.append(asked.path)
        if self.server.down:
            self.send_error(503)
        elif asked.path in self.server.refused:
            self.send_error(403)
        elif self.server.page:
            self.reply()
            self.wfile.write(self.server.page)
        elif "watch" in query:
            self.watch(query["resourceVersion"][0])
        else:
            self.list(asked.path, int(query.get("continue", ["0"])[0]))

    def list(self, path: str, start: int) -> None:
        *where, kind = path.removeprefix("/api/v1/").split("/")
        every = {"nodes": self.server.nodes, "services": self.server.services}.get(kind, self.server.pods)
        items = [item for item in every if not where or item["metadata"].get("namespace") == where[1]]
        more = str(start + 2) if start + 2 < len(items) else None
        page = {"metadata": {"resourceVersion": "100", "continue": more}, "items": items[start : start + 2]}
        self.reply()
        self.wfile.write(json.dumps(page).encode())

    def watch(self, version: str) -> None:
        self.reply()
        events = self.server.events.pop(version, None)
        for event in events or []:
            self.wfile.write(json.dumps(event).encode() + b"\n")
            self.wfile.flush()
        if events is None:
            self.server.finish.wait(5)

    def reply(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def api_server() -> Iterator[ApiServer]:
    """A server that runs in a thread."""
    with ApiServer() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.finish.set()
        running.shutdown()
        thread.join()


def write_kubeconfig(server: ApiServer, folder: Path) -> Path:
    """A kubeconfig for it in a folder."""
    config = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = folder / "kubeconfig"
    file.write_text(json.dumps(config))
    return file
