"""What is in bpffs was damaged while no agent ran: each time one pin, of those that an agent has left."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.attacks.beside import calls_of, describe, is_well, recordings
from tests.conftest import Agent, wait_until
from tests.faults.production import Producer
from tests.kernel.flows import ask, plain, send
from tests.kernel.flows import datagrams as udp_socket

#: What must be there for the test to mean anything: links and their programs, maps, the ring of the pod.
LEAST_PINS = 15


def pins_of(folder: Path) -> list[Path]:
    """All that is pinned below a folder."""
    return sorted(Path(at) / name for at, _, names in os.walk(folder) for name in names)


def remove(path: Path) -> None:
    """It is missing."""
    path.unlink()


def replace(path: Path) -> None:
    """Something else is in its place: a map of another kind and layout."""
    path.unlink()
    kind = ["type", "array", "key", "4", "value", "12", "entries", "3", "name", "garbage"]
    subprocess.run(["bpftool", "map", "create", path, *kind], check=True)


def obstruct(path: Path) -> None:
    """A folder is in its place, which is not empty."""
    path.unlink()
    (path / "garbage/garbage").mkdir(parents=True)


def redirect(path: Path) -> None:
    """A link to elsewhere is in its place."""
    path.unlink()
    path.symlink_to("/etc/passwd")


class Node:
    """A pod that opens files, and two that talk, beside the agents of one node."""

    def __init__(self, record: Callable[[], Agent], producer: Producer, pair) -> None:
        self._record, self._producer = record, producer
        self._cart, self._web = pair
        self._port = 20000

    def check(self, what: str) -> None:
        """An agent that starts now records all that follows, and says what it found if it could not go on with it."""
        agent = self._record()
        log = lambda: f"{what}:\n{agent.log.read_text()}"  # noqa: E731
        try:
            assert is_well(agent), log()
            told = describe(agent)
            assert not told.traceloop.startswith("off") and not told.flows.startswith("off"), (told, log())
            self.records(agent, log)
        finally:
            assert agent.stop() == 0, log()
        assert "Traceback" not in log()

    def records(self, agent: Agent, log: Callable[[], str]) -> None:
        producer = self._producer
        wait_until(lambda: recordings(agent, producer.namespace), f"a recording: {log()}", 10)
        wait_until(producer.waits, "the end of its last system call")
        before = calls_of(agent, producer.namespace)
        producer.make(53)
        wait_until(producer.waits, "the end of its last system call")
        assert calls_of(agent, producer.namespace) - before == 53 + 2, log()
        self._port += 1
        server = udp_socket(self._web, "10.77.0.2", self._port)
        client = udp_socket(self._cart, "10.77.0.1")
        with server, client:
            send(client, server)
        seen = [
            flow.ingress
            for reply in ask(agent)
            for flow in reply.flows
            if flow.port == self._port and plain(flow.peer).startswith("10.77.0.")
        ]
        assert sorted(seen) == [False, True], (seen, log())


@pytest.fixture
def node(record, pair, workload) -> Iterator[Node]:
    with Producer(workload("produce"), "victim-0") as producer:
        yield Node(record, producer, pair)


DAMAGES = {"missing": remove, "another map": replace, "a folder": obstruct, "a link": redirect}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_pins(damage: str, node: Node, bpffs: Path, figure) -> None:
    """Whatever has become of one of an agent's pins, the next agent records everything again."""
    node.check("the first")
    names = [path.relative_to(bpffs) for path in pins_of(bpffs / "gadget")]
    assert len(names) >= LEAST_PINS, names
    wrong = []
    for name in chosen(names, damage):
        path = bpffs / name
        if not path.exists():
            continue
        DAMAGES[damage](path)
        try:
            node.check(f"{name} is {damage}")
        except Exception as error:
            wrong.append((str(name), f"{type(error).__name__}: {error}"[:1000]))
            break_all(bpffs)
            node.check("anew")
    figure(damage, f"{len(names)} pins")
    assert not wrong, wrong


def chosen(names: list[Path], damage: str) -> list[Path]:
    """One of each kind is tried missing; of the other damages each has its share of the kinds, to save time.

    The programs of an object are one kind, and their links are another: they are looked at in one loop.
    """
    kinds = {re.sub(r"(?<=programs-)\w+/\w+|[0-9a-f]{12}|\d+", "", str(name)): name for name in names}
    if damage == "missing":
        return list(kinds.values())
    others = list(DAMAGES)[1:]
    return list(kinds.values())[others.index(damage) :: len(others)]


def break_all(bpffs: Path) -> None:
    """Nothing is left of it."""
    subprocess.run(["rm", "-rf", bpffs / "gadget"], check=True)
