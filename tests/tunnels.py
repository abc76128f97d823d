"""An API server of port-forwards alone, over TLS, as a process of its own: in ours it would share our threads' lock."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from gadget.kube.api import ApiServer
from gadget.kube.kubeconfig import ClusterFlags, read_context
from gadget.kube.portforward import CHUNK, PROTOCOL

PORT = 7070
#: Session tickets in each handshake; 2 are usual. They come while the first request goes out.
TICKETS = 20


async def greet(way: ServerConnection) -> None:
    """Say which port it is on both channels, then speak first, as a gRPC server does."""
    for message in (b"\0" + PORT.to_bytes(2, "little"), b"\1" + PORT.to_bytes(2, "little"), b"\0hello"):
        await way.send(message)


async def echo(way: ServerConnection) -> None:
    """An agent that says what it hears."""
    await greet(way)
    async for message in way:
        await way.send(message)


async def flood(way: ServerConnection) -> None:
    """An agent that sends as much as it can, in messages of the tunnel's size."""
    await greet(way)
    message = b"\0" + bytes(CHUNK)
    while True:
        await way.send(message)
        await asyncio.sleep(0)  # lets the end of the connection be heard: send raises only after that


async def _serve(agent: str, folder: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "crt", folder / "key")
    tls.num_tickets = TICKETS

    async def handle(way: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await {"echo": echo, "flood": flood}[agent](way)

    protocols = [PROTOCOL]
    async with serve(handle, "127.0.0.1", 0, ssl=tls, subprotocols=protocols, compression=None) as server:  # type: ignore[arg-type]
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def make_certificate(folder: Path, name: str = "test", prefix: str = "", *, loopback: bool = False) -> None:
    """A certificate that nobody else vouches for, and its key: folder/crt and folder/key, each name after prefix.

    It is good for servers on loopback too if that is said.
    """
    make = f"req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} -days 2"
    names = ["-addext", "subjectAltName=IP:127.0.0.1,IP:::1"] if loopback else []
    paths = ["-keyout", f"{folder}/{prefix}key", "-out", f"{folder}/{prefix}crt"]
    subprocess.run(["openssl", *make.split(), *names, *paths], check=True, capture_output=True)


@contextmanager
def server(agent: str) -> Iterator[tuple[str, Path]]:
    """The server's URL and the folder of its certificate, with an agent called echo or flood at every port."""
    with tempfile.TemporaryDirectory() as folder:
        make_certificate(Path(folder))
        command = [sys.executable, "-m", "tests.tunnels", agent, folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin and process.stdout
            try:
                yield f"https://127.0.0.1:{process.stdout.readline().strip()}", Path(folder)
            finally:
                process.stdin.close()


@contextmanager
def api_server(agent: str) -> Iterator[ApiServer]:
    """A way to the server that does not ask for its name."""
    with server(agent) as (url, _):
        yield ApiServer(read_context(ClusterFlags(server=url, kubeconfig="/dev/null", insecure_skip_tls_verify=True)))


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], Path(sys.argv[2])))
