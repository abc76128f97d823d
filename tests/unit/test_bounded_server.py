"""Clients of the HTTP servers that we have: what they hold is bounded, and strangers keep nobody out."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from gadget import bounded_server
from gadget.bounded_server import BoundedHandler, BoundedServer
from gadget.rules.webhook import Webhook, WebhookCounts
from tests.conftest import wait_until

TOKEN = "of the API server"
HEAD = "POST /k8s-audit HTTP/1.1\r\nContent-Type: application/json\r\n"
Connect = Callable[..., socket.socket]


@pytest.fixture
def served() -> Iterator[Webhook]:
    """A webhook with few places."""
    made = Webhook(
        ("127.0.0.1", 0), "/k8s-audit", WebhookCounts(), lambda text: None, token=TOKEN, most=8, most_of_one=3
    )
    yield made
    made.close()


@pytest.fixture
def connect(served: Webhook) -> Iterator[Connect]:
    """Makes connections of an address, which are closed in the end."""
    made: list[socket.socket] = []

    def connection(host: str = "127.0.0.2") -> socket.socket:
        made.append(socket.create_connection(("127.0.0.1", served.port), 20, (host, 0)))
        return made[-1]

    yield connection
    for each in made:
        each.close()


def post(port: int, body: bytes = b"{}") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(
        "POST", "/k8s-audit", body, {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    )
    status = connection.getresponse().status
    connection.close()
    return status


def is_closed(each: socket.socket) -> bool:
    try:
        return each.recv(1) == b""
    except ConnectionResetError:
        return True


def test_strangers_keep_nobody_out(served: Webhook, connect: Connect) -> None:
    """Strangers at many addresses who hold all connections make way for whoever comes, one after the other."""
    mute = [connect(f"127.0.0.{2 + at % 7}") for at in range(40)]
    for each in mute:
        each.sendall(b"POST /k8s-au")
    assert [post(served.port) for _ in range(20)] == [200] * 20
    server = served._server
    assert sum(server.connections(f"127.0.0.{host}") for host in range(1, 9)) <= 8
    assert is_closed(mute[0]) and all(server.connections(f"127.0.0.{host}") <= 3 for host in range(1, 9))


def test_who_is_trusted_stays(served: Webhook, connect: Connect) -> None:
    """A batch that comes slowly from who has the token is taken, however many strangers come meanwhile."""
    slow = connect("127.0.0.1")
    slow.sendall(f"{HEAD}Authorization: Bearer {TOKEN}\r\nContent-Length: 2\r\n\r\n{{".encode())
    wait_until(lambda: any(each.trusted for each in served._server._clients.values()), "its head")
    for at in range(40):
        connect(f"127.0.0.{2 + at % 7}")
    slow.sendall(b"}")
    assert b" 200 " in slow.recv(100)


def test_drop_by_drop(served: Webhook, connect: Connect) -> None:
    """A stranger who sends a request byte by byte is sent away when its time is over."""
    served._server._seconds = 0.2
    slow = connect()

    def drips() -> bool:
        try:
            slow.sendall(b"P")
        except OSError:
            return True
        return not served._server.connections("127.0.0.2")

    wait_until(drips, "the end of it")
    assert is_closed(slow) and post(served.port) == 200


def test_endless_head(served: Webhook, connect: Connect) -> None:
    """Headers without end are refused once they are longer than any client's, and not kept."""
    client = connect()
    client.sendall(HEAD.encode())
    line = b"X: " + b"x" * 30_000 + b"\r\n"
    for _ in range(bounded_server.MOST_HEAD_BYTES // len(line) + 1):
        client.sendall(line)
    assert b" 431 " in client.recv(100)
    assert post(served.port) == 200


def test_bodies_that_do_not_come(served: Webhook, connect: Connect) -> None:
    """Bodies that are only promised take the room that they would, and give it back when their senders go away."""
    served.waiting_bytes = 6000
    slow = [connect("127.0.0.1") for _ in range(2)]
    for each in slow:
        each.sendall(f"{HEAD}Authorization: Bearer {TOKEN}\r\nContent-Length: 2000\r\n\r\n".encode())
    wait_until(lambda: sum(each.trusted for each in served._server._clients.values()) == 2, "both")
    assert post(served.port) == 503
    for each in slow:
        each.close()
    wait_until(lambda: not served._server.connections("127.0.0.1"), "their end")
    while served.get(0) is not None:
        pass
    assert post(served.port) == 200


def test_trusted_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all who are there are trusted nobody else is let in."""
    server = BoundedServer(("127.0.0.1", 0), BoundedHandler, most=2, most_of_one=2, seconds=9)
    with server, socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            server._clients[each] = bounded_server._Client("127.0.0.1", 0.0, trusted=True)
        assert not server._make_room("127.0.0.1") and not server._make_room("127.0.0.2")


def test_threads_that_wait() -> None:
    """However many strangers come while the answer takes long, there are few threads; afterwards all goes on."""
    go_on = threading.Event()

    class Slow(BoundedHandler):
        def do_GET(self) -> None:
            assert go_on.wait(60)
            self.send_error(404)

    before = threading.active_count()
    with BoundedServer(("127.0.0.1", 0), Slow, most=3, most_of_one=3, seconds=60) as server:

        def ask() -> socket.socket:
            client = socket.create_connection(server.server_address[:2], 20)
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            server.handle_request()
            return client

        clients = [ask() for _ in range(40)]
        assert 3 <= threading.active_count() - before <= 6
        go_on.set()
        wait_until(lambda: threading.active_count() == before, "their end")
        with ask() as last:
            assert b" 404 " in last.recv(100)
        for each in clients:
            each.close()


def test_end_at_once() -> None:
    """A server ends at once, whenever it would have looked next: who pressed Ctrl-C waits for that."""
    server = BoundedServer(("127.0.0.1", 0), BoundedHandler, most=1, most_of_one=1, seconds=60.0)
    serving = threading.Thread(target=server.serve_forever, args=(300.0,), daemon=True)
    serving.start()
    ending = threading.Thread(target=server.shutdown, daemon=True)
    ending.start()
    ending.join(20)
    assert not ending.is_alive()
    serving.join(20)
    server.server_close()
