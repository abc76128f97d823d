"""Names of the addresses that pods connect to, as the flow recorder keeps them."""

from __future__ import annotations

import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from tests.conftest import Agent, wait_until
from tests.dns import NOERROR, PORT, QUESTION, A, answer, encode
from tests.kernel.flows import ask, inside, plain
from tests.pods import Container

SERVER, NAME = "10.77.0.2", "api.example.com"


def look_up(cart: Container, web: Container) -> None:
    """A question of one and the answer of the other, by which the name has the other's address."""
    with inside(web), socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind((SERVER, PORT))
        server.settimeout(10)
        with inside(cart), socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.connect((SERVER, PORT))
            client.send(
                struct.pack("!HHHHHH", 7, QUESTION, 1, 0, 0, 0) + encode(NAME.upper()) + struct.pack("!HH", A, 1)
            )
            asked, peer = server.recvfrom(512)
            server.sendto(answer(asked, NOERROR, [SERVER]), peer)
            client.recv(512)


def named(agent: Agent) -> set[tuple[str, bool, int, tuple[str, ...]]]:
    """Flows of our pods with that address: whose, whether it came in, the port, and the names."""
    replies = ask(agent)
    pods = {pod.uid: pod.name for pod in replies[0].pods if pod.namespace in ("shop", "web")}
    return {
        (pods[flow.uid], flow.ingress, flow.port, tuple(flow.names))
        for reply in replies
        for flow in reply.flows
        if flow.uid in pods and "." in plain(flow.peer)
    }


def test_names(pair, bpffs: Path, start_agent: Callable[..., Agent], tmp_path: Path) -> None:
    """A flow tells for which name its pod got the address, and no other pod's does; a later agent knows it, too."""
    cart, web = pair

    def start(*options: str) -> Agent:
        state = str(tmp_path / "state")
        return start_agent("--traceloop", "off", "--bpffs", str(bpffs), "--state", state, *options)

    agent = start("--flows-names")
    wanted = {("cart-0", False, PORT, (NAME,)), ("web-0", True, PORT, ())}
    look_up(cart, web)  # learned if the run has begun, which nothing tells

    def learned() -> bool:
        if named(agent) == wanted:
            return True
        look_up(cart, web)
        return False

    wait_until(learned, "the name")
    agent.stop(signal.SIGTERM)
    assert named(start()) == wanted
