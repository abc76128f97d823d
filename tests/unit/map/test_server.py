"""map: who is answered, and how many."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from typing import Any

import pytest

from gadget.errors import UsageError
from kubectl_gadget.map import server as module
from kubectl_gadget.map.server import MapServer
from kubectl_gadget.page import document
from tests.conftest import wait_until
from tests.unit.map.flows import edges, row


@pytest.fixture
def server() -> Iterator[MapServer]:
    with MapServer(0, document("Flows", live=True)) as made:
        made.edges = edges()
        yield made


def ask(server: MapServer, path: str, **headers: str) -> tuple[int, Any, str]:
    """Status, headers and body of an answer."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    try:
        connection.putrequest("GET", path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def test_token(server: MapServer) -> None:
    """Without the token nothing is answered, not even that something is there; with it the page is."""
    for path in ("/", "/events", "/x/", f"/{server.token[:-1]}/", "/%00/", f"/x/{server.token}/"):
        with pytest.raises((HTTPException, ConnectionError)):
            ask(server, path)
    status, headers, text = ask(server, f"/{server.token}/")
    assert (status, text.startswith("<!doctype html>")) == (200, True)
    assert headers["Referrer-Policy"] == "no-referrer" and headers["X-Frame-Options"] == "DENY"
    assert "Server" not in headers
    assert ask(server, f"/{server.token}/nothing")[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost", "", "[::1]:{port}", "a@127.0.0.1:{port}"]
)
def test_host(server: MapServer, host: str) -> None:
    """A name that somebody lets lead to this machine (DNS rebinding) is refused, whoever has the token."""
    with pytest.raises((HTTPException, ConnectionError)):
        ask(server, f"/{server.token}/", Host=host.format(port=server.server_port))
    assert ask(server, f"/{server.token}/", Host=f"localhost:{server.server_port}")[0] == 200


def test_policy() -> None:
    """The page runs its own script alone, and a live one asks nobody but who served it."""
    live, kept = (document("Flows", live=live) for live in (True, False))
    for page in (live, kept):
        policy = page.partition('Policy" content="')[2].partition('"')[0]
        assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    assert "connect-src 'self'" in live and "connect-src" not in kept


def test_only_here(server: MapServer) -> None:
    """The page is on 127.0.0.1 alone; nothing but GET is answered; a port that is taken is an error in one line."""
    assert server.server_address[0] == "127.0.0.1"
    with socket.create_connection(("127.0.0.1", server.server_port), 60) as other:
        other.sendall(f"POST /{server.token}/ HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode())
        assert other.recv(1) == b""
    with pytest.raises(UsageError, match=f"--port {server.server_port}: Address already in use"):
        MapServer(server.server_port, "")


def pages(server: MapServer) -> socket.socket:
    """One that is told of changes."""
    made = socket.create_connection(("127.0.0.1", server.server_port), 60)
    made.sendall(f"GET /{server.token}/events HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n\r\n".encode())
    return made


def test_events(server: MapServer) -> None:
    """A page is told all that is known, then what comes."""
    assert server.edges
    server.edges.write([row()])
    with pages(server) as page, page.makefile("r") as lines:
        messages = (json.loads(line[6:]) for line in lines if line.startswith("data: "))
        assert next(messages) == {"reset": True}
        assert next(messages)["sums"][0][2] == 1
        server.edges.write([row()])
        assert next(messages)["sums"][0][2] == 2


def test_bounded(server: MapServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many connect, no more have threads than there is room for, and those who say nothing keep nobody out."""
    made = [pages(server) for _ in range(module.MOST_PAGES)]
    for each in made:
        assert each.recv(12).endswith(b"200")
    with pages(server) as more:
        assert more.recv(12).endswith(b"503")
    silent = [socket.create_connection(("127.0.0.1", server.server_port), 60) for _ in range(module.MOST_CONNECTIONS)]
    assert ask(server, f"/{server.token}/")[0] == 200
    assert server.connections(module.HERE) <= module.MOST_CONNECTIONS
    for each in (*made, *silent):
        each.close()


def test_slow_page(server: MapServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that takes nothing is given up; flows are counted meanwhile, and others are told of them."""
    monkeypatch.setattr(module._Handler, "timeout", 0.2)
    assert server.edges
    with pages(server) as slow:
        assert slow.recv(12).endswith(b"200")
        blob = {"blob": "x" * (8 << 20)}  # more than the kernel keeps for one who does not read
        server.edges.tell(blob)
        wait_until(lambda: server.pages._value == module.MOST_PAGES, "the slow page given up", 60)
        server.edges.tell({})
        server.edges.write([row()])
        with pages(server) as page, page.makefile("r") as lines:
            assert any('"sums":[[' in line for line in lines)
