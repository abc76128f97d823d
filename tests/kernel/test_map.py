"""map on this kernel: what two containers do is on the page, as its browser is told it."""

from __future__ import annotations

import errno
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import Agent, Cli, run_cli, wait_until
from tests.kernel.flows import inside
from tests.kernel.observing import Place, began, talk
from tests.pods import Pod, link

RULE = """\
- rule: Truth is told
  desc: A test.
  condition: evt.type = execve and evt.rawres = 0 and container.id != host and proc.name = true
  output: somebody runs %proc.name
  priority: WARNING
"""
#: Of these tests alone: others may talk on this machine.
SHOP, WEB = "map-shop", "map-web"
OURS = ("-n", f"{SHOP},{WEB}")
ADDRESS = "10.78.13.2"
GOOD, BAD = 8801, 8802
#: What a page may be told before it knows enough.
MOST_LINES = 200


@pytest.fixture
def place(tmp_path: Path, start_agent: Callable[..., Agent]) -> Iterator[tuple[Place, Agent]]:
    with Pod(tmp_path, SHOP, "cart-0") as shop, Pod(tmp_path, WEB, "web-7d4b9c6f8d-x2x7l") as other:
        cart, web = shop.container("app", "/bin/sleep", "600"), other.container("nginx", "/bin/sleep", "600")
        link(cart, web)
        for at, container in enumerate((cart, web)):
            own = f"ip addr add {ADDRESS[:-1]}{at + 1}/24 dev gadget{at}"
            subprocess.run(["nsenter", f"--net=/proc/{container.pid}/ns/net", *own.split()], check=True)
        agent = start_agent("--observe")
        began(agent)
        yield Place(cart, web, tmp_path / "none", agent), agent


def ask(url: str, name: str) -> Any:
    """Connect as the page does, and give the answer to read from."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    connection = HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.request("GET", f"{parts.path}{name}")
    return connection.getresponse()


def known(lines: Iterator[bytes], is_enough: Callable[[dict[Any, Any]], bool]) -> dict[Any, Any]:
    """What a page knows of edges: by names of both ends, their words and sums; as soon as it is enough."""
    spots: dict[int, str] = {}
    edges: dict[int, tuple[Any, ...]] = {}
    sums: dict[int, dict[int, list[Any]]] = {}
    for line in islice(lines, MOST_LINES):  # one a second, when there is nothing
        if not line.startswith(b"data: "):
            continue
        message = json.loads(line[6:])
        spots |= {number: f"{group}/{name}" for number, group, name, _ in message.get("spots", [])}
        edges |= {number: tuple(rest) for number, *rest in message.get("edges", [])}
        for minute, number, *rest in message.get("sums", []):
            sums.setdefault(number, {})[minute] = rest
        found = {
            (spots[edge[0]], spots[edge[1]]): (edge[2:], [sum(each) for each in zip(*(m[:5] for m in sums[at].values()), strict=True)], at)
            for at, edge in edges.items()
            if at in sums
        }  # fmt: skip
        if is_enough(found):
            return found
    raise AssertionError(f"never enough: {spots} {edges} {sums}")


def test_map(place: tuple[Place, Agent], start_cli: Callable[..., Cli]) -> None:
    """What pods do before and after I open the map is on it: one edge between their workloads, with connections, failed ones, and bytes exact."""
    (cart, web, *_), agent = place
    talk(cart, web, ADDRESS, GOOD, 1009, 100_003)
    cli = start_cli("map", "--agent", agent.address, *OURS, "--no-open")
    assert cli.process.stdout
    url = cli.process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), cli.finish()
    pair = (f"{SHOP}/cart", f"{WEB}/web")
    with ask(url, "events") as answer:
        lines = iter(answer.readline, b"")
        found = known(lines, lambda edges: pair in edges and edges[pair][1][0] == 1 and edges[pair][1][3] > 0)
        assert [*found] == [pair]
        (_, sums, number) = found[pair]
        assert sums == [1, 0, 0, 1009, 100_003]
        talk(cart, web, ADDRESS, GOOD, 11, 13)
        with inside(cart), socket.socket() as client:
            assert client.connect_ex((ADDRESS, BAD)) == errno.ECONNREFUSED
    with ask(url, "events") as answer:
        found = known(iter(answer.readline, b""), lambda edges: pair in edges and edges[pair][1][:4] == [3, 1, 0, 1020])
    (ports, pods, peers, verdicts, *_), sums, _ = found[pair]
    assert sums == [3, 1, 0, 1020, 100_016]
    assert ({*ports}, pods, peers) == ({f"{GOOD}/TCP", f"{BAD}/TCP"}, ["cart-0"], ["web-7d4b9c6f8d-x2x7l"])
    assert {*verdicts} == {"forwarded", "refused"}
    with ask(url, f"flows?edge={number}") as answer:
        flows = json.load(answer)
    refused = [flow for flow in flows if flow["verdict"] == "refused"]
    assert [flow["to"] for flow in refused] == [f"{WEB}/web-7d4b9c6f8d-x2x7l:{BAD}"]
    assert all("[" in flow["from"] and flow["from"].startswith(f"{SHOP}/cart-0") for flow in refused)
    out, err = cli.finish()
    assert (cli.process.returncode, out) == (0, "")
    assert "nothing lost" in err
    wait_until(lambda: is_gone(url), "the page gone with the command")


def is_gone(url: str) -> bool:
    try:
        ask(url, "").close()
    except ConnectionRefusedError:
        return True
    return False


def test_alerts(place: tuple[Place, Agent], start_agent: Callable[..., Agent], start_cli: Callable[..., Cli], tmp_path: Path) -> None:  # fmt: skip
    """What an agent's rules say of a pod is on its box, with what it was; also what was said before I opened the map."""
    (cart, web, *_), first = place
    first.stop()
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/some.yaml").write_text(RULE)
    agent = start_agent("--observe", "--detect", str(tmp_path / "rules"))
    began(agent)
    wait_until(lambda: "1 rule; " in run_cli("status", "--agent", agent.address).stdout, "the rules")
    talk(cart, web, ADDRESS, GOOD, 1, 1)
    cart.exec("/bin/true")
    cli = start_cli("map", "--agent", agent.address, *OURS, "--no-open")
    assert cli.process.stdout
    url = cli.process.stdout.readline().strip()
    with ask(url, "events") as answer:
        spots, alerts = {}, {}
        for line in islice(iter(answer.readline, b""), MOST_LINES):
            message = json.loads(line[6:]) if line.startswith(b"data: ") else {}
            spots |= {number: f"{group}/{name}" for number, group, name, _ in message.get("spots", [])}
            alerts |= {number: rest for number, *rest in message.get("alerts", [])}
            if alerts:
                break
    assert {spots[number]: tuple(rest) for number, rest in alerts.items()} == {f"{SHOP}/cart": (1, "Warning")}
    (number,) = alerts
    with ask(url, f"alerts?spot={number}") as answer:
        (alert,) = json.load(answer)
    assert (alert["rule"], alert["pod"]) == ("Truth is told", "cart-0")
    assert alert["text"].startswith("somebody runs true container_id=")
    cli.finish()
