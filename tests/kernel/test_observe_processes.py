"""The processes of the flow log on this kernel: whose a connection was, also of workers, of older ones and outside containers."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import Cli, events, run_cli, wait_until
from tests.kernel.flows import inside
from tests.kernel.observing import OURS, Asked, Place, began, expect, place, port, python_in, receive, tell
from tests.pods import Container

__all__ = ["place", "port"]  # fixtures


@contextmanager
def of_node(container: Container) -> Iterator[None]:
    """This process in a container's network, and not in the container."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as own, open(f"/proc/{container.pid}/ns/net") as network:
        assert libc.setns(network.fileno(), 0) == 0
        try:
            yield
        finally:
            libc.setns(own.fileno(), 0)


def test_host(place, port, tmp_path: Path) -> None:
    """--host shows what processes outside containers do, as it comes, and nothing of containers, which the log has."""
    cart, web, *_ = place
    out = tmp_path / "out"
    with out.open("w") as file:
        cli = Cli("observe", "--agent", place.agent.address, "--host", "--port", str(port), "-o", "json", stdout=file)

    def seen() -> list[dict[str, Any]]:
        return events(out.read_text().rpartition("\n")[0])

    with inside(web):
        listener = socket.create_server(("10.77.0.2", port))

    def connect() -> bool:
        with of_node(cart), socket.create_connection(("10.77.0.2", port), 10):
            listener.accept()[0].close()
        return len({row["type"] for row in seen()}) == 2

    with listener:
        wait_until(connect, "flows of a process of the node", 20)
    _, err = cli.finish()
    assert "nothing lost" in err, err
    assert {(row["containerId"], row["direction"], row["pid"]) for row in seen()} == {(None, "egress", os.getpid())}
    done = run_cli("observe", "--agent", place.agent.address, "--host", "--last", "3")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_worker(place, port) -> None:
    """Of a server with workers the end of a connection has the worker that served it, not the one that listens."""
    program = (
        "import os, socket\n"
        "listener = socket.create_server(('10.77.0.2', PORT))\n"
        "worker = os.fork()\n"
        "if worker:\n"
        "    print(worker, flush=True); os.wait()\n"
        "else:\n"
        "    end = listener.accept()[0]; end.sendall(end.recv(100)); end.recv(1); end.close()\n"
    )
    listens, worker = _serve_once(place, program, port)
    rows = expect(
        place,
        port,
        Counter(
            {
                ("web-0", "ingress", "tcp", 4, "begun", "forwarded", "none", 0, 0): 1,
                ("web-0", "ingress", "tcp", 4, "ended", "forwarded", "closed", 31, 31): 1,
            }
        ),
        direction="ingress",
    )
    assert {row["type"]: row["pid"] for row in rows} == {"begun": listens, "ended": worker}


def test_passed_on(place, port) -> None:
    """Of a connection that one process accepts and gives to another by SCM_RIGHTS the end has the one that used it."""
    program = (
        "import os, socket\n"
        "near, far = socket.socketpair()\n"
        "user = os.fork()\n"
        "if user:\n"
        "    far.close()\n"
        "    listener = socket.create_server(('10.77.0.2', PORT)); print(user, flush=True)\n"
        "    end = listener.accept()[0]; socket.send_fds(near, [b'x'], [end.fileno()]); end.close(); os.wait()\n"
        "else:\n"
        "    near.close()\n"
        "    end = socket.socket(fileno=socket.recv_fds(far, 1, 1)[1][0])\n"
        "    end.sendall(end.recv(100)); end.recv(1); end.close()\n"
    )
    _, user = _serve_once(place, program, port)
    rows = expect(
        place,
        port,
        Counter({("web-0", "ingress", "tcp", 4, "ended", "forwarded", "closed", 31, 31): 1}),
        direction="ingress",
        type="ended",
    )
    assert rows[0]["pid"] == user


def _serve_once(place: Place, program: str, port: int) -> tuple[int, int]:
    """Let cart send 31 bytes to a server in web, which sends them back. Its process, and that which it prints first."""
    with python_in(place.web, program, port) as server:
        assert server.stdout
        printed = int(server.stdout.readline())
        with inside(place.cart), socket.create_connection(("10.77.0.2", port), 10) as client:
            client.sendall(bytes(31))
            receive(client, 31)
        server.wait(10)
    return server.pid, printed


def test_older(place, port, start_agent, tmp_path: Path) -> None:
    """Connections that are older than the agent, or than the one that was killed, end with their process, direction and all their bytes; the time that nobody watched is told."""
    cart, web, *_ = place
    state = ("--observe", "--state", str(tmp_path / "kept"))
    server = python_in(
        web,
        "import socket, threading\n"
        "def serve(end):\n"
        "    while end.recv(4096): pass\n"
        "    end.close()\n"
        "listener = socket.create_server(('10.77.0.2', PORT)); print('ready', flush=True)\n"
        "for _ in range(2): threading.Thread(target=serve, args=listener.accept()[:1]).start()\n",
        port,
    )
    client = python_in(
        cart,
        "import socket, sys\n"
        "ends = []\n"
        "for line in sys.stdin:\n"
        "    what, _, size = line.partition(' ')\n"
        "    if what == 'connect': ends.append(socket.create_connection(('10.77.0.2', PORT), 10))\n"
        "    ends[-1].sendall(bytes(int(size)))\n"
        "    print('done', flush=True)\n",
        port,
    )
    with server, client:
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        tell(client, "connect 37")
        first = start_agent(*state)
        began(first)
        tell(client, "connect 41")
        begun = {("cart-0", "egress"), ("web-0", "ingress")}
        expect(
            Asked(first), port, Counter({(*each, "tcp", 4, "begun", "forwarded", "none", 0, 0): 1 for each in begun})
        )
        first.stop(signal.SIGKILL)
        tell(client, "send 43")
        second = start_agent(*state)
        began(second)
        assert client.stdin
        client.stdin.close()
    rows = expect(
        Asked(second),
        port,
        Counter(
            {
                ("cart-0", "egress", "tcp", 4, "ended", "forwarded", "closed", 37, 0): 1,
                ("web-0", "ingress", "tcp", 4, "ended", "forwarded", "closed", 0, 37): 1,
                ("cart-0", "egress", "tcp", 4, "ended", "forwarded", "closed", 84, 0): 1,
                ("web-0", "ingress", "tcp", 4, "ended", "forwarded", "closed", 0, 84): 1,
            }
        ),
        type="ended",
    )
    assert {(row["direction"], row["pid"], row["duration"]) for row in rows} == {
        ("egress", client.pid, None),
        ("ingress", server.pid, None),
    }
    done = run_cli("observe", "--agent", second.address, "--all", "--strict", *OURS)
    assert done.returncode == 3, done.stderr
    assert "not seen from" in done.stderr
