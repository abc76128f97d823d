"""However a command ends, no node goes on working for it."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from tests.conftest import Cli, wait_until
from tests.cut import Cut
from tests.e2e.conftest import Namespace, Stream, gadget, kubectl, nodes, wait_for_nodes

pytestmark = pytest.mark.usefixtures("deployed")
#: A client that does not answer for 20 s is gone, and its tunnel is cut by nobody.
GONE_SECONDS = 45
#: Runs of the agent itself: the one of its flow log.
OWN = 1


def runs() -> dict[str, int]:
    """How many runs each node's agent has."""
    rows = map(json.loads, gadget("status", "-o", "json").stdout.splitlines())
    return {row["node"]: row["runs"] for row in rows}


def api_server() -> tuple[str, int]:
    """Where it listens."""
    url = urlsplit(kubectl("config", "view", "--minify", "--output=jsonpath={.clusters[0].cluster.server}"))
    return url.hostname or "", url.port or 443


@pytest.mark.parametrize("end", ["Ctrl-C", "killed", "cut off"])
def test_no_run_stays(make_namespace: Callable[[str], Namespace], start_cli: Callable[..., Cli], end: str) -> None:
    """I press Ctrl-C, my command is killed, or my laptop closes: every node's programs for it end by themselves."""
    wait_until(lambda: runs() == dict.fromkeys(nodes(), OWN), "nobody else's runs", GONE_SECONDS)
    shop = make_namespace(f"ends-{end[:3].lower()}")
    pods = {node: (shop, shop.pod(f"cart-{index}", node)) for index, node in enumerate(nodes())}
    near = socket.create_server(("127.0.0.1", 0))
    here = f"https://127.0.0.1:{near.getsockname()[1]}"
    with Cut(near, lambda: socket.create_connection(api_server()), here) as way:
        options = [f"--server={here}", f"--tls-server-name={api_server()[0]}"]
        cli = start_cli("execsnoop", "-n", shop.name, "--output=json", *options)
        stream = Stream(cli)
        wait_for_nodes(stream, pods)
        assert runs() == dict.fromkeys(nodes(), OWN + 1)
        if end == "cut off":
            way.cut.set()
        else:
            cli.process.send_signal(signal.SIGINT if end == "Ctrl-C" else signal.SIGKILL)
        wait_until(lambda: runs() == dict.fromkeys(nodes(), OWN), "the end of all runs", GONE_SECONDS)
