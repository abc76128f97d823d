from __future__ import annotations

import random
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from http import HTTPStatus
from pathlib import Path

import pytest
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from gadget.errors import Unreachable
from gadget.kube.api import WEBSOCKET_ATTEMPTS, ApiError, ApiServer, not_allowed
from gadget.kube.kubeconfig import ClusterFlags, read_context
from gadget.kube.portforward import PROTOCOL, Tunnel
from tests import tunnels

PORT = (7070).to_bytes(2, "little")


@contextmanager
def api_server(handler: Callable[[ServerConnection], None], **options: object) -> Iterator[ApiServer]:
    """An API server of port-forwards alone."""
    server: Server = serve(handler, "127.0.0.1", 0, subprotocols=[PROTOCOL], **options)  # type: ignore[arg-type]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.socket.getsockname()[1]
    try:
        yield ApiServer(read_context(ClusterFlags(server=f"http://127.0.0.1:{port}", kubeconfig="/dev/null")))
    finally:
        server.shutdown()


def echo(way: ServerConnection) -> None:
    """An agent that speaks first, then says what it hears."""
    assert way.request and way.request.path == "/api/v1/namespaces/gadget/pods/gadget-x/portforward?ports=7070"
    way.send(b"\0" + PORT)
    way.send(b"\1" + PORT)
    way.send(b"\0hello")
    for message in way:
        assert isinstance(message, bytes)
        way.send(message)


def test_both_ways(tmp_path: Path) -> None:
    """What goes into a tunnel reaches the agent's port and comes back, on more than one connection."""
    with api_server(echo) as api, Tunnel(api, "gadget", "gadget-x", 7070, tmp_path / "s") as tunnel:
        assert tunnel.address == f"unix://{tmp_path}/s"
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "s"))
                client.settimeout(10)
                client.sendall(b" and goodbye")
                said = b""
                while len(said) < len(b"hello and goodbye"):
                    said += client.recv(100)
                assert said == b"hello and goodbye"


def test_many_at_once(tmp_path: Path) -> None:
    """Every tunnel opens, and loses nothing, however many are opened at once: none breaks for what TLS says beside."""
    said = random.Random(4711).randbytes(300_000)

    def talk(number: int) -> bool:
        path = tmp_path / str(number)
        with Tunnel(api, "gadget", "gadget-x", tunnels.PORT, path), socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.settimeout(10)
            sender = threading.Thread(target=client.sendall, args=(said,))
            sender.start()
            heard = b""
            while len(heard) < len(b"hello") + len(said):
                heard += client.recv(1 << 16)
            sender.join()
            return heard == b"hello" + said

    with tunnels.api_server("echo") as api, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(talk, range(400)))


@pytest.mark.parametrize(("times", "reached"), [(1, True), (99, False)])
def test_hung_up(tmp_path: Path, times: int, reached: bool) -> None:
    """If the API server hangs up once, I do not notice; if it goes on so, I am told."""
    calls = []

    def hang_up(way: ServerConnection, request: Request) -> None:
        calls.append(request)
        if len(calls) <= times:
            way.socket.shutdown(socket.SHUT_RDWR)

    outcome = nullcontext() if reached else pytest.raises(Unreachable, match="does not answer")
    with api_server(echo, process_request=hang_up) as api, outcome:
        Tunnel(api, "gadget", "gadget-x", 7070, tmp_path / "s").close()
    assert len(calls) == (2 if reached else WEBSOCKET_ATTEMPTS)


def test_nothing_at_the_port(tmp_path: Path) -> None:
    """If nothing listens at the agent's port I am told what the kubelet says."""

    def refuse(way: ServerConnection) -> None:
        for message in (b"\0" + PORT, b"\1" + PORT, b"\1connection refused"):
            way.send(message)

    with api_server(refuse) as api, pytest.raises(Unreachable, match="connection refused"):
        Tunnel(api, "gadget", "gadget-x", 7070, tmp_path / "s")


def test_cut_off(tmp_path: Path) -> None:
    """If the way is cut before an agent speaks, that is said."""
    with api_server(lambda way: None) as api, pytest.raises(Unreachable, match="before the agent answered"):
        Tunnel(api, "gadget", "gadget-x", 7070, tmp_path / "s")


def test_refused(tmp_path: Path) -> None:
    """A refusal names the right that is missing."""
    why = r"pods \"gadget-x\" is forbidden: User \"alice\" cannot get resource \"pods/portforward\" in API group \"\""

    def forbid(way: ServerConnection, request: Request) -> Response:
        return way.respond(HTTPStatus.FORBIDDEN, f'{{"message": "{why}"}}')

    with api_server(echo, process_request=forbid) as api, pytest.raises(ApiError) as raised:
        Tunnel(api, "gadget", "gadget-x", 7070, tmp_path / "s")
    said = str(not_allowed(raised.value, "port-forward", "gadget"))
    assert said == "you may not port-forward in namespace gadget: ask for get on pods/portforward there"


@contextmanager
def answers(raw: bytes) -> Iterator[ApiServer]:
    """Something that gives every request the same bytes, and hangs up."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            self.wfile.write(raw)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield ApiServer(
                read_context(
                    ClusterFlags(server=f"http://127.0.0.1:{running.server_address[1]}", kubeconfig="/dev/null")
                )
            )
        finally:
            running.shutdown()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "it answered with HTTP status 200"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "it answered with HTTP status 200"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "unsupported protocol; expected HTTP/1.1: HTTP/1.0 200 OK"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "invalid Upgrade header: h2c"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "invalid HTTP status line: SSH-2.0-OpenSSH_9.2"),
    ],
)  # fmt: skip
def test_no_websockets(tmp_path: Path, raw: bytes, why: str) -> None:
    """What answers and speaks no WebSockets is named as that, and what it may be."""
    with answers(raw) as api, pytest.raises(Unreachable) as raised:
        Tunnel(api, "gadget", "gadget-x", 7070, tmp_path / "s")
    said = str(raised.value)
    assert f"does not speak WebSockets, by which agents are reached ({why}" in said and "\n" not in said


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: https://sso/\r\nContent-Length: 0\r\n\r\n", "HTTP status 302: it points to https://sso/"),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 22\r\n\r\n<title>no\nway</title>\n", "HTTP status 502 no way"),
    ],
)  # fmt: skip
def test_refused_by_something_else(tmp_path: Path, raw: bytes, said: str) -> None:
    """A refusal of something on the way is told in one line."""
    with answers(raw) as api, pytest.raises(ApiError) as raised:
        Tunnel(api, "gadget", "gadget-x", 7070, tmp_path / "s")
    assert str(raised.value).startswith(f"the API server: {said}")


def test_busy(tmp_path: Path) -> None:
    """A port-forward that the API server puts off is asked for again, when it said."""
    calls = []

    def busy(way: ServerConnection, request: Request) -> Response | None:
        calls.append(request)
        if len(calls) > 5:
            return None
        answer = way.respond(HTTPStatus.TOO_MANY_REQUESTS, "busy")
        answer.headers["Retry-After"] = "0"
        return answer

    with api_server(echo, process_request=busy) as api:
        Tunnel(api, "gadget", "gadget-x", 7070, tmp_path / "s").close()
    assert len(calls) == 6


def test_empty_messages(tmp_path: Path) -> None:
    """An empty message is no word of an agent, and breaks nothing."""

    def silent(way: ServerConnection) -> None:
        for message in (b"", b"\0" + PORT, b"\1" + PORT, b"", b"\0hello"):
            way.send(message)
        way.recv()

    with api_server(silent) as api:
        Tunnel(api, "gadget", "gadget-x", 7070, tmp_path / "s").close()
