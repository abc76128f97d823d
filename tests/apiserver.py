"""An API server of pods, nodes and services: lists in pages, watches, forgets, refuses and fails on demand."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

from gadget.kube.api import ApiServer as Client
from gadget.kube.kubeconfig import ClusterFlags, read_context
from tests.http_server import HttpServer
from tests.tunnels import make_certificate

#: In place of an event: the connection breaks, or nothing more comes.
CUT, SILENCE = object(), object()


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


def full_pod(name: str, uid: str, namespace: str = "shop") -> dict[str, Any]:
    """A pod as a Deployment with Helm makes it, of 8 KB: most of it says nothing about labels, owner and restarts."""
    labels = {"app.kubernetes.io/name": "cart", "app.kubernetes.io/instance": name, "pod-template-hash": "6c9f7d5b8"}
    fields = {f"f:{key}": {".": {}, "f:name": {}, "f:value": {}} for key in ("env", "image", "ports", "resources")}
    managed = {"f:metadata": {"f:labels": {f"f:{key}": {} for key in labels}},
               "f:spec": {f'k:{{"name":"c-{at}"}}': fields for at in range(4)}}  # fmt: skip
    made = pod(name, 100, **labels)
    made["metadata"] |= {
        "uid": uid, "namespace": namespace, "annotations": {"checksum/config": "5" * 64},
        "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": managed},
                          {"manager": "kubelet", "operation": "Update", "subresource": "status", "fieldsV1": managed}],
    }  # fmt: skip
    probe = {
        "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
        "periodSeconds": 10,
        "timeoutSeconds": 1,
    }
    made["spec"] = {
        "nodeName": "node-a", "serviceAccountName": "cart", "restartPolicy": "Always",
        "volumes": [{"name": f"v-{at}", "configMap": {"name": f"config-{at}", "defaultMode": 420}} for at in range(4)],
        "containers": [
            {"name": f"c-{at}", "image": f"registry.example.com/shop/cart-{at}@sha256:{'7' * 64}",
             "env": [{"name": f"SETTING_{number}", "value": "x" * 20} for number in range(12)],
             "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
             "resources": {"limits": {"memory": "128Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
             "livenessProbe": probe, "readinessProbe": probe,
             "volumeMounts": [{"name": f"v-{number}", "mountPath": f"/etc/v-{number}"} for number in range(4)]}
            for at in range(3)
        ],
    }  # fmt: skip
    made["status"]["conditions"] = [
        {"type": kind, "status": "True", "lastTransitionTime": "2026-11-29T10:00:00Z", "lastProbeTime": None}
        for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    return made


class ApiServer(HttpServer):
    """Pages of two pods; watches that send what events holds for their version; 503 while down."""

    def __init__(self, port: int = 0, host: str = "127.0.0.1") -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), Handler)
        self.url = f"http://[{host}]:{self.server_port}" if ":" in host else f"http://{host}:{self.server_port}"
        #: Pods in a page, and the tokens that it knows, if it asks for one
        self.limit = 2
        self.tokens: set[str] = set()
        self.pods = [pod("a", app="a"), pod("b", app="b"), pod("c", app="c")]
        self.nodes: list[dict[str, Any]] = []
        self.services: list[dict[str, Any]] = []
        #: paths that may not be listed, those that were asked for, and what is sent instead of JSON
        self.refused: set[str] = set()
        self.paths: list[str] = []
        self.page = b""
        #: What a watch from a version on sends: objects, bytes as they are, CUT or SILENCE
        self.events: dict[str, list[Any]] = {}
        #: What the next requests are answered, before the usual
        self.statuses: list[int] = []
        self.down = False
        self.queries: list[dict[str, list[str]]] = []
        self.finish = threading.Event()
        self.watch_seconds = 5.0  # of one that has nothing to send
        self.authority = ""

    def use_tls(self, folder: Path) -> None:
        """Be one that tokens are sent to; the folder has its certificate then, crt."""
        make_certificate(folder, loopback=True)
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(folder / "crt", folder / "key")
        self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = self.url.replace("http", "https")
        self.authority = str(folder / "crt")

    def client(self) -> Client:
        """A way to it."""
        return Client(read_context(ClusterFlags(server=self.url, kubeconfig="/dev/null")))

    def watches(self) -> list[str]:
        """The versions that watches began from."""
        return [query["resourceVersion"][0] for query in self.queries if "watch" in query]


class Handler(BaseHTTPRequestHandler):
    server: ApiServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        asked = urlparse(self.path)
        query = parse_qs(asked.query)
        self.server.queries.append(query)
        self.server.paths.append(asked.path)
        token = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        if self.server.down:
            self.send_error(503)
        elif self.server.tokens and token not in self.server.tokens:
            self.send_error(401)
        elif self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
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
        end = start + self.server.limit
        more = str(end) if end < len(items) else None
        page = {"metadata": {"resourceVersion": "100", "continue": more}, "items": items[start:end]}
        self.reply()
        self.wfile.write(json.dumps(page).encode())

    def watch(self, version: str) -> None:
        self.reply(("Transfer-Encoding", "chunked"))
        events = self.server.events.pop(version, None)
        for event in [SILENCE] if events is None else events:
            if event is CUT:
                return
            if event is SILENCE:
                self.server.finish.wait(self.server.watch_seconds)
                continue
            data = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def reply(self, *headers: tuple[str, str]) -> None:
        self.send_response(200)
        for header in (("Content-Type", "application/json"), ("Connection", "close"), *headers):
            self.send_header(*header)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def api_server(port: int = 0, host: str = "127.0.0.1", tls: Path | None = None) -> Iterator[ApiServer]:
    """A server that runs in a thread, with a certificate in the folder tls if there is one."""
    with ApiServer(port, host) as running:
        if tls:
            running.use_tls(tls)
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield running
        finally:
            running.finish.set()
            running.shutdown()
            thread.join()


def write_kubeconfig(server: ApiServer, folder: Path) -> Path:
    """A kubeconfig for it in a folder."""
    config = {
        "clusters": [{"name": "c", "cluster": {"server": server.url, "certificate-authority": server.authority}}],
        "users": [{"name": "u", "user": {"token": next(iter(server.tokens), "")}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    file = folder / "kubeconfig"
    file.write_text(json.dumps(config))
    return file
