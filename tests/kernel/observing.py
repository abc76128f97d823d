"""What tests of the flow log share: two pods that are joined, traffic between them, and the rows that are promised."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import Agent, Cli, events, run_cli, wait_until
from tests.dns import encode
from tests.dns_mix import A
from tests.kernel.flows import inside
from tests.pods import Container, Pod, link

#: Of attempts that nobody answers.
PATIENCE_SECONDS = 0.3
#: Of the pods of these tests: others may talk on this machine.
OURS = ("-n", "shop,web")
_PORTS = count(8001)


class Place(NamedTuple):
    """Two pods whose networks are joined, and what an agent tells of their flows as they come."""

    cart: Container
    web: Container
    told: Path
    agent: Agent

    def rows(self, port: int) -> list[dict[str, Any]]:
        """Those of a port."""
        rows = events(self.told.read_text().rpartition("\n")[0])
        return [row for row in rows if port in (row["src"]["port"], row["dst"]["port"])]

    def lines(self, port: int, *options: str) -> list[str]:
        """Those that a user is shown of a port, without their times."""
        done = run_cli("observe", "--agent", self.agent.address, "--all", "--port", str(port), *OURS, *options)
        assert done.returncode == 0, done.stderr
        return [line.partition(" ")[2] for line in done.stdout.splitlines()]


class Asked(NamedTuple):
    """An agent that is asked for all that it has kept."""

    agent: Agent

    def rows(self, port: int) -> list[dict[str, Any]]:
        """Those of a port."""
        command = ("observe", "--agent", self.agent.address, "--all", "-o", "json", "--port", str(port), *OURS)
        done = run_cli(*command)
        assert done.returncode == 0, done.stderr
        return events(done.stdout)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests: each has a port of its own."""
    folder = tmp_path_factory.mktemp("place")
    with Pod(folder, "shop", "cart-0") as shop, Pod(folder, "web", "web-0") as other:
        cart = shop.container("app", "/bin/sleep", "600")
        web = other.container("nginx", "/bin/sleep", "600")
        link(cart, web)
        agent = Agent(folder, "--observe", "--metrics", "127.0.0.1:0")
        told = folder / "told"
        try:
            began(agent)
            with told.open("w") as out:
                cli = Cli("observe", "--agent", agent.address, "--all", "-f", "-o", "json", *OURS, stdout=out)
            yield Place(cart, web, told, agent)
            _, err = cli.finish()
            assert "nothing lost" in err, err
        finally:
            agent.stop(signal.SIGKILL)


@pytest.fixture
def port() -> int:
    """One that no other test here has."""
    return next(_PORTS)


def began(agent: Agent) -> None:
    wait_until(lambda: "observe: observe began" in agent.log.read_text(), "the flow log's beginning")


def told(row: dict[str, Any]) -> tuple[Any, ...]:
    """What is promised of a row, but for its ports and times."""
    who = (row["pod"], row["direction"], row["protocol"], row["version"])
    return (*who, row["type"], row["verdict"], row["reason"], row["sent"], row["received"])


def expect(source: Place | Asked, port: int, rows: Counter[tuple[Any, ...]], **wanted: str) -> list[dict[str, Any]]:
    """Wait until of a port just these rows are there whose fields are as wanted. Each has its process."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [row for row in source.rows(port) if wanted.items() <= row.items()]
        return Counter(map(told, found)) == rows

    try:
        wait_until(is_there, "the rows", 10)
    except AssertionError:
        assert Counter(map(told, found)) == rows
    assert all(row["pid"] and row["comm"] for row in found), "a row without its process"
    return found


@contextmanager
def connected(
    place: Place, port: int, asked: tuple[str, int] | None = None
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection of cart to web, or to what it asks for instead: its two ends. This process is in web meanwhile."""
    with inside(place.web), socket.create_server(("10.77.0.2", port)) as listener:
        with inside(place.cart):
            client = socket.create_connection(asked or ("10.77.0.2", port), 10)
        server = listener.accept()[0]
        yield client, server
        client.close()
        server.close()


def command(container: Container, text: str) -> None:
    """Run a command in a container's network."""
    subprocess.run(["nsenter", f"--net=/proc/{container.pid}/ns/net", *text.split()], check=True)


def rule(container: Container, text: str) -> None:
    """A rule of iptables in a container's network."""
    command(container, f"iptables {text}")


def talk(cart: Container, web: Container, address: str, port: int, sent: int, received: int) -> None:
    """A connection in which each end sends so many bytes, which the client closes first."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(web), socket.create_server((address, port), family=family) as listener:
        with inside(cart):
            client = socket.create_connection((address, port), 10)
        server = listener.accept()[0]
        client.sendall(bytes(sent))
        server.sendall(bytes(received))
        receive(server, sent)
        receive(client, received)
        client.close()
        assert server.recv(1) == b""
        server.close()


def receive(end: socket.socket, size: int) -> None:
    while size:
        size -= len(end.recv(size))


def question(name: str) -> bytes:
    """For the address of a name."""
    return struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + encode(name) + struct.pack("!HH", A, 1)


def answer(asked: bytes, *answers: tuple[int, int, bytes], rcode: int = 0) -> bytes:
    """To a question of DNS: records of type, seconds and data, all of the name that is asked for."""
    records = b"".join(
        b"\xc0\x0c" + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data for kind, ttl, data in answers
    )
    return asked[:2] + struct.pack("!HHHHH", 0x8180 | rcode, 1, len(answers), 0, 0) + asked[12:] + records


def resolve(asker: Container, web: Container, name: str, *answers: tuple[int, int, bytes], rcode: int = 0) -> None:
    """A container asks for a name, and gets an answer."""
    asked = question(name)
    with inside(web), socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("10.77.0.2", 53))
        with inside(asker), socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(asked, ("10.77.0.2", 53))
            server.sendto(answer(asked, *answers, rcode=rcode), server.recvfrom(512)[1])
            client.recv(512)


def attempt(cart: Container, port: int) -> None:
    """A connection that comes to nothing, and that is not waited for."""
    with inside(cart), socket.socket() as client:
        client.settimeout(PATIENCE_SECONDS)
        with pytest.raises(OSError):
            client.connect(("10.77.0.2", port))


def python_in(container: Container, program: str, port: int) -> subprocess.Popen[str]:
    with inside(container):
        return subprocess.Popen(
            [sys.executable, "-c", program.replace("PORT", str(port))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def tell(process: subprocess.Popen[str], line: str) -> None:
    """Have a program do something, and wait until it is done."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"
