"""map: who is answered, and how many."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote

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


def test_bounded(server: MapServer) -> None:
    """However many pages are open, no more are told of changes than there is room for; when they go, others are again."""
    made = [pages(server) for _ in range(module.MOST_PAGES)]
    for each in made:
        assert each.recv(12).endswith(b"200")
    with pages(server) as more:
        assert more.recv(12).endswith(b"503")
    for each in made:
        each.close()
    wait_until(lambda: server.pages._value == module.MOST_PAGES, "the pages gone", 60)


@pytest.mark.parametrize("said", [b"", b"GET /", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_strangers(server: MapServer, said: bytes) -> None:
    """Other users of the machine, who know the port and not the token, lock nobody out: of their connections the oldest are ended."""
    silent = []
    for _ in range(3 * module.MOST_CONNECTIONS):
        silent.append(stranger(server))
        with suppress(ConnectionError):
            silent[-1].sendall(said)
    wait_until(lambda: ask(server, f"/{server.token}/")[0] == 200, "an answer", 60)
    assert server.connections(module.HERE) <= module.MOST_CONNECTIONS
    for each in silent:
        each.close()
    wait_until(lambda: server.connections(module.HERE) == 0, "all given up", 60)


def stranger(server: MapServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), 60)


def test_slow_stranger(server: MapServer) -> None:
    """Who sends a request a letter at a time is given up when the time for all of it is over."""
    server._seconds = 0.3
    with stranger(server) as slow:

        def is_over() -> bool:
            slow.settimeout(0.01)
            try:
                slow.send(b"x")
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(is_over, "the end of the connection", 60)


def test_long_requests(server: MapServer) -> None:
    """A request with more headers than a browser has is not read to its end, with the token or without."""
    for token in ("x", server.token):
        with stranger(server) as other, suppress(ConnectionError):
            other.sendall(f"GET /{token}/ HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n".encode())
            other.sendall(b"".join(b"X-%d: %s\r\n" % (at, b"y" * 1000) for at in range(100)) + b"\r\n")
            assert other.recv(1) == b""
    assert ask(server, f"/{server.token}/")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/{token}x/",
        "/x{token}/",
        "/?/{token}/",
        "/x/../{token}/",
        "/{token}%00/",
        "/{token}\xff/",
        "http://[",
        "/\x00\xff/",
    ],
)
def test_odd_paths(server: MapServer, path: str) -> None:
    """What is not quite the token is not answered, however it is written."""
    with stranger(server) as other:
        host = f"Host: 127.0.0.1:{server.server_port}"
        other.sendall(f"GET {path.format(token=server.token)} HTTP/1.1\r\n{host}\r\n\r\n".encode("latin-1"))
        assert other.recv(1) == b""
    assert ask(server, f"/{server.token}/")[0] == 200


@pytest.mark.parametrize(
    "query", ["edge=-1", "edge=99999999999", "edge=²", "edge=", "", "spot=7", "edge=0&edge=1", "edge=%00"]
)
def test_odd_questions(server: MapServer, query: str) -> None:
    """What is no number of an edge or a box has no flows and no alerts."""
    assert server.edges
    for name in ("flows", "alerts"):
        status, _, text = ask(server, f"/{server.token}/{name}?{quote(query, safe='=&%')}")
        assert (status, text) == (200, "[]")


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
