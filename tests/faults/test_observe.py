"""The flow log: agents that are killed, and more connections than there is room for."""

from __future__ import annotations

import re
import secrets
import signal
import subprocess
import urllib.request
from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.bench.flows import ADDRESS, NETWORK
from tests.bench.machine import enter
from tests.conftest import run_cli, wait_until
from tests.kernel.observing import OURS, Asked, began, expect, place, port, python_in, tell
from tests.pods import BareContainer

__all__ = ["place", "port"]  # fixtures
KILLS = 20
_SERVER = f"""
import socket, threading
def serve(end):
    while end.recv(4096): pass
    end.close()
listener = socket.create_server(('10.77.0.2', PORT)); print('ready', flush=True)
for _ in range({KILLS}): threading.Thread(target=serve, args=listener.accept()[:1]).start()
"""
_CLIENT = """
import socket, sys
ends = []
for line in sys.stdin:
    what, _, size = line.partition(' ')
    if what == 'connect': ends.append(socket.create_connection(('10.77.0.2', PORT), 10))
    for end in ends[-1:] if what == 'connect' else ends: end.sendall(bytes(int(size)))
    print('done', flush=True)
"""


def test_killed(place, port, start_agent, tmp_path: Path) -> None:
    """An agent is killed 20 times, while connections go on and others are made: each ends with its process and all its bytes, and the time that nobody watched is told."""
    state = ("--observe", "--state", str(tmp_path / "kept"))
    server, client = python_in(place.web, _SERVER, port), python_in(place.cart, _CLIENT, port)
    with server, client:
        assert server.stdout and server.stdout.readline() == "ready\n"
        for number in range(KILLS):
            agent = start_agent(*state)
            began(agent)
            tell(client, f"connect {37 + number}")
            agent.stop(signal.SIGKILL)
            tell(client, "all 1")
        last = start_agent(*state)
        began(last)
        assert client.stdin
        client.stdin.close()
    bytes_sent = [37 + number + KILLS - number for number in range(KILLS)]
    ended = ("tcp", 4, "ended", "forwarded", "closed")
    wanted = Counter(("cart-0", "egress", *ended, size, 0) for size in bytes_sent)
    wanted += Counter(("web-0", "ingress", *ended, 0, size) for size in bytes_sent)
    rows = expect(Asked(last), port, wanted, type="ended")
    assert {(row["direction"], row["pid"]) for row in rows} == {("egress", client.pid), ("ingress", server.pid)}
    done = run_cli("observe", "--agent", last.address, "--all", "--strict", *OURS)
    gaps = re.findall(r": (?:not seen from|seen only from) ", done.stderr)  # only from: killed before it kept anything
    assert (done.returncode, len(gaps)) == (3, KILLS), done.stderr


def test_many(start_agent, workload, figure) -> None:
    """Of 10,000 connections a second, each begun and ended at both ends, what is kept and what is counted as lost are exactly those that were made."""
    namespace = f"faults-{secrets.token_hex(4)}"
    agent = start_agent("--observe", "--metrics", "127.0.0.1:0")
    began(agent)
    (where,) = re.findall(r"at (127.0.0.1:\d+/metrics)", run_cli("status", "--agent", agent.address).stdout)
    container = BareContainer(namespace, "cart-0")
    try:
        command = [*NETWORK, str(workload("paced")), "connects", "10000", "2", "1", ADDRESS]
        said = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=enter(container)).stdout
    finally:
        container.delete()
    made, seconds = int(said.split()[0]), float(said.split()[1])

    def books() -> tuple[float, float]:
        with urllib.request.urlopen(f"http://{where}", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [each for family in families for each in family.samples]
        rows = [s for s in samples if s.name == "gadget_flow_rows_total" and s.labels["namespace"] == namespace]
        seen = sum(each.value for each in rows if each.labels["type"] != "waiting")  # for room in the listener's queue
        lost = sum(s.value for s in samples if s.name == "gadget_lost_total" and s.labels["service"] == "observe")
        return seen, lost

    try:
        wait_until(lambda: sum(books()) == 4 * made, "all rows", 10)
    finally:
        figure("rows", f"{made} connections in {seconds:.1f} s, (seen, lost) {books()}")
