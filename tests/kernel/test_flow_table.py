"""What becomes of the table of flows and of the pods in it: upgrades, room, pods that live for a moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.containers.pods import PodWatch
from agent.flows.service import FlowsService
from agent.flows.settings import Settings
from agent.threads import Worker
from tests import apiserver
from tests.conftest import wait_until
from tests.kernel.flows import (
    OBJECT,
    TCP,
    UDP,
    Seen,
    attempt,
    be_silent,
    datagrams,
    seen_by,
    send,
    talk,
    without_ipv6,
)

#: Of a few connections.
PORTS = range(9000, 9003)


def test_upgrade(recorder, pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent with newer programs goes on with the flows of the one before, and what that one removed stays told."""
    cart, _ = pair
    made = recorder(64)
    cart.exec("/bin/sh", "-c", "p=9000; while [ $p -lt 9053 ]; do /talks tell tcp 10.77.0.2 $p 1; p=$((p+1)); done")
    made.make_room()

    def connected() -> int:
        return int((made.read()[0]["protocol"] == TCP).sum())

    kept, removed, began = connected(), made.losses()["removed to make room"], made.began_ns
    assert removed >= 53 - 32
    monkeypatch.setattr("agent.flows.table.read_object", lambda name: OBJECT + b"another build")
    made = recorder(64)
    assert (connected(), made.losses()["removed to make room"]) == (kept, removed)
    assert made.began_ns == began
    talk(cart, "tell", "tcp", "10.77.0.2", 9999, 1)
    assert connected() == kept + 1


def test_room_is_made(recorder, pair) -> None:
    """Flows that are kept, were removed to make room or found none are all that there were, to the last."""
    cart, web = pair
    without_ipv6(cart, web)
    made = recorder(64)
    for first in (9000, 9067, 9134):
        attempt(cart, range(first, first + 67))
        made.make_room()
    kept, losses = seen_by(made), made.losses()
    assert losses["table full"] >= 3 and losses["removed to make room"] >= 32
    assert len(kept) + losses["table full"] + losses["removed to make room"] == 201


def test_room_is_made_in_time(recorder, pair) -> None:
    """A table that fills up is made emptier at once, before anybody's flows are lost."""
    cart, web = pair
    without_ipv6(cart, web)
    made = recorder(256)
    wait_until(lambda: made._kept < 64, "the first look at the table")
    attempt(cart, range(9000, 9197))
    wait_until(lambda: made.losses()["removed to make room"] >= 69, "room", seconds=5)
    assert made.losses()["table full"] == 0


def test_removed_while_it_lasts(recorder, pair) -> None:
    """A talk whose flow had to go, or found no room, is there again as soon as there is room and it goes on."""
    cart, web = pair
    without_ipv6(cart, web)
    made = recorder(64)
    client, server = datagrams(cart, "10.77.0.1"), datagrams(web, "10.77.0.2", 5353)
    send(client, server)
    send(server, client)
    own = Seen("cart-0", False, UDP, "10.77.0.2", 5353, 1, 0)
    assert own in seen_by(made)
    attempt(cart, range(9000, 9061))
    made.make_room()
    assert own not in seen_by(made)
    be_silent()
    send(client, server)
    assert own in seen_by(made)


def test_flows_of_one_bucket(recorder, pair) -> None:
    """All flows are read, also where more of them lie together in the kernel's table than are asked for at a time."""
    cart, web = pair
    without_ipv6(cart, web)
    made = recorder()
    made._table.batch = 1
    attempt(cart, range(9000, 9307))
    assert {flow.port for flow in seen_by(made)} == set(range(9000, 9307))


def test_many_networks(recorder, pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that looks through the sockets of many networks to make room is not taken for one that hangs."""
    looked = []

    def slow(process: Path) -> list[Any]:
        looked.append(process)
        time.sleep(0.7)  # the slowness that is tested
        return []

    monkeypatch.setattr("agent.flows.recorder.Worker", partial(Worker, stalls_after=1.0))
    monkeypatch.setattr("agent.flows.recorder.established_in", slow)
    cart, _ = pair
    made = recorder(settings=Settings(limit=4096, care_seconds=0.0, full=0.0))
    attempt(cart, range(9000, 9003))
    problems = set()
    wait_until(lambda: problems.add(made.worker.problem) or len(looked) >= 6, "six networks", 60)
    assert problems == {""} and len(set(looked)) >= 2


def test_lost_once(recorder, pair) -> None:
    """A talk that finds no room is one flow lost, however long it goes on."""
    cart, web = pair
    without_ipv6(cart, web)
    made = recorder(64)
    made.worker.stop()  # nobody makes room
    client, server = datagrams(cart, "10.77.0.1"), datagrams(web, "10.77.0.2", 5353)
    attempt(cart, range(9000, 9064))
    for _ in range(3):
        send(client, server)
        be_silent()
    send(client, server)
    assert len(seen_by(made)) == 64
    assert made.losses()["table full"] == 2  # the client's and the server's


def object_of(pod: Any, uid: str, address: str = "", mirror: str = "") -> dict[str, Any]:
    """A pod as the API server has it."""
    item = apiserver.pod(pod.name, 101, app="cart")
    item["metadata"] |= {"uid": uid, "annotations": {"kubernetes.io/config.mirror": mirror} if mirror else {}}
    item["status"] = {"podIPs": [{"ip": address}] if address else []}
    return item


def watch_of(server: apiserver.ApiServer) -> Callable[[Callable[[], None]], PodWatch]:
    return lambda changed: PodWatch(server.client(), "node-a", changed)


def test_short_pod(recorder, make_pod) -> None:
    """A pod that ended before anybody could be asked about it has labels, owner and address all the same."""
    with apiserver.api_server() as server:
        server.pods = []
        made = recorder(pods=watch_of(server))
        pod = make_pod("shop", "cart-0")
        container = pod.container("app", "/bin/true")
        container.wait()
        container.delete()
        wait_until(lambda: any(each.last for each in made.pods()), "the pod's end")
        server.events["100"] = [
            {"type": "ADDED", "object": object_of(pod, pod.uid)},
            {"type": "DELETED", "object": object_of(pod, pod.uid, "10.244.0.9")},
        ]
        server.finish.set()
        wait_until(lambda: [each for each in made.pods() if "10.244.0.9" in each.addresses], "the address")
        (known,) = (each for each in made.pods() if each.uid == pod.uid)
        assert (known.labels, known.owner) == ({"app": "cart"}, "ReplicaSet/cart-6c9f")
        recorder()


def test_static_pod(recorder, pair) -> None:
    """A static pod has one UID, its object's, for whoever asks about flows."""
    cart, _ = pair
    with apiserver.api_server() as server:
        server.pods = [object_of(cart.pod, "mirror", "10.77.0.1", cart.pod.uid)]
        made = recorder(pods=watch_of(server))
        attempt(cart, PORTS)
        wait_until(lambda: any(each.object_uid for each in made.pods()), "the object")
        replies = list(FlowsService("node-a", made._tracker, made).read())
        (known,) = (each for each in replies[0].pods if each.uid in ("mirror", cart.pod.uid))
        assert (known.name, known.uid, list(known.addresses)) == ("cart-0", "mirror", ["10.77.0.1"])
        flows = [flow for reply in replies for flow in reply.flows if flow.protocol == TCP and flow.port in PORTS]
        assert {flow.uid for flow in flows} == {"mirror"}
        recorder()
