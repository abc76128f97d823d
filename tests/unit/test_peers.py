"""Names of addresses in a stream: how often they are looked up, and that nobody waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.endpoints import RAW, Owner
from gadget.errors import Unreachable
from gadget.kube import kubeconfig
from gadget.rows import Decoder
from kubectl_gadget.agents.targets import Agent, Targets
from kubectl_gadget.cluster import options
from kubectl_gadget.cluster.directory import find_directory
from kubectl_gadget.stream import peers
from kubectl_gadget.stream.peers import Directory, Peers, add_names
from tests.apiserver import api_server
from tests.conftest import wait_until
from tests.fakes import FakeAgent
from tests.unit.test_directory import CART, ips, item
from tests.unit.test_snapshots import EVENTS, batch

CONNECTS = catalog.find("tcpconnect")


def packed(text: str) -> bytes:
    return IPv6Address(text if ":" in text else f"::ffff:{text}").packed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets."""
    now = [1000.0]
    monkeypatch.setattr(peers, "monotonic", lambda: now[0])
    return now


def patient(look: Callable[[], Directory]) -> Peers:
    """Names whose look-ups take all the time that they need."""
    return Peers(look, first_wait=20.0, wait=20.0)


class Looks:
    """A directory that counts how often it is asked."""

    def __init__(self, **found: Owner) -> None:
        self.found: Directory = dict(found)
        self.count = 0

    def __call__(self) -> Directory:
        self.count += 1
        return dict(self.found)


def test_address_of_the_internet(clock: list[float]) -> None:
    """An address that nobody in the cluster has is looked for ever more seldom: 5 times in a minute, 11 in 20."""
    look = Looks()
    names = patient(look)
    at = []
    for second in range(20 * 60):
        clock[0] = 1000.0 + second
        before = look.count
        assert names.name(packed("93.184.216.34")) == RAW
        at += [second] * (look.count - before)
    assert at == [0, 2, 6, 14, 30, 62, 126, 254, 510, 810, 1110]


def test_many_addresses_of_the_internet(clock: list[float]) -> None:
    """A crawler, which connects to ever new addresses, does not have the cluster listed for each: 6 times in a minute."""
    look = Looks()
    names = patient(look)
    for second in range(61):
        clock[0] = 1000.0 + second
        for number in range(7):
            names.name(packed(f"93.184.{second}.{number}"))
    assert look.count == 6  # after 0, 2, 6, 14, 30 and 60 s


def test_new_pod_among_strangers(clock: list[float]) -> None:
    """A pod that is new has its name in its first row, also after addresses that nobody has."""
    look = Looks()
    names = patient(look)
    names.name(packed("93.184.216.34"))
    clock[0] += 7
    look.found["10.244.1.7"] = CART
    assert names.name(packed("10.244.1.7")) == CART
    assert look.count == 2


@pytest.mark.parametrize("later", [31, 45, 120, 3600])
def test_address_with_a_new_owner(clock: list[float], later: float) -> None:
    """An address that another pod has by now gets that one's name in the next row, however long there was none."""
    look = Looks(**{"10.244.1.7": CART})
    names = patient(look)
    assert names.name(packed("10.244.1.7")) == CART
    look.found["10.244.1.7"] = Owner("pod", "web", "web-0")
    clock[0] += later
    assert names.name(packed("10.244.1.7")) == Owner("pod", "web", "web-0")
    assert look.count == 2


def test_address_of_nobody_any_more(clock: list[float]) -> None:
    """An address that was a pod's, and that nobody has any more, is shown without the deleted pod's name."""
    look = Looks(**{"10.244.1.7": CART})
    names = patient(look)
    assert names.name(packed("10.244.1.7")) == CART
    look.found.clear()
    clock[0] += 45
    assert names.name(packed("10.244.1.7")) == RAW


def test_address_that_passes_on_at_once(clock: list[float]) -> None:
    """When a row of another pod has the address as its own end, it is that pod's from then on, for rows of that node."""
    web = Owner("pod", "web", "web-0")
    names = patient(Looks(**{"10.244.1.7": CART, "192.0.2.1": Owner("node", "", "node-a")}))
    assert names.name(packed("10.244.1.7")) == CART
    names.note(packed("10.244.1.7"), web)
    names.note(packed("192.0.2.1"), web)
    assert names.name(packed("10.244.1.7")) == web
    assert names.name(packed("192.0.2.1")) == Owner("node", "", "node-a"), "a pod in its node's network"
    names.note(packed("10.244.1.7"), CART)
    assert names.name(packed("10.244.1.7")) == CART


def test_name_by_another_node(clock: list[float]) -> None:
    """A node that says of an address that it is another pod's by now has it looked up for the others' rows: it cannot give
    it a name there, nor have the cluster listed all the time.
    """
    web, address = Owner("pod", "web", "web-0"), packed("10.244.1.7")
    look = Looks(**{"10.244.1.7": CART})
    names = patient(look)
    assert names.name(address, "node-a") == CART
    clock[0] += 3
    look.found["10.244.1.7"] = web
    names.note(address, web, "node-b")
    assert (names.name(address, "node-a"), look.count) == (web, 2)
    for second in range(600):
        clock[0] += 1
        names.note(address, Owner("pod", "kube-system", f"etcd-{second}"), "node-b")
        assert names.name(address, "node-a") == web
    assert look.count < 30


def test_stale_names_do_not_hold_up_rows(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """When the API server hangs later on, rows wait for it once for each time that it is asked, and then go on."""
    answer = threading.Event()
    answer.set()

    def look() -> Directory:
        assert answer.wait(20)
        return {"10.244.1.7": CART}

    names = patient(look)
    assert names.name(packed("10.244.1.7")) == CART
    answer.clear()
    names._first_wait = 0.05
    clock[0] += 45
    began = time.monotonic()
    assert {names.name(packed("10.244.1.7")) for _ in range(1009)} == {CART}
    clock[0] += 16
    assert {names.name(packed("10.244.1.7")) for _ in range(1009)} == {RAW}, "it may be another's by now"
    assert time.monotonic() - began < 5
    answer.set()
    wait_until(lambda: names.name(packed("10.244.1.7")) == CART, "the name")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::", "0.0.0.0", "169.254.1.1", "fe80::1"])
def test_addresses_that_are_everybodys(clock: list[float], address: str) -> None:
    """Loopback and the like are nobody's in the cluster, and nobody is asked."""
    look = Looks()
    assert patient(look).name(packed(address)) == RAW
    assert look.count == 0


def test_slow_api_server() -> None:
    """When the API server hangs, the stream goes on after a moment, without names; they come when it answers."""
    answer = threading.Event()

    def look() -> Directory:
        assert answer.wait(20)
        return {"10.244.1.7": CART}

    names = Peers(look, first_wait=0.05)
    began = time.monotonic()
    for number in range(1009):
        assert names.name(packed(f"10.244.{number // 250}.{number % 250}")) == RAW
    assert time.monotonic() - began < 5
    answer.set()
    wait_until(lambda: names.name(packed("10.244.1.7")) == CART, "the name")


def test_names_survive_a_failure(clock: list[float]) -> None:
    """While nobody can be asked the names that were known are still shown, for a minute in all."""
    found: Directory = {"10.244.1.7": CART}

    def look() -> Directory:
        if not found:
            raise Unreachable("away")
        return dict(found)

    names = Peers(look)
    assert names.name(packed("10.244.1.7")) == CART
    found.clear()
    clock[0] += 59
    assert names.name(packed("93.184.216.34")) == RAW
    assert names.name(packed("10.244.1.7")) == CART
    clock[0] += 2
    assert names.name(packed("10.244.1.7")) == RAW


def test_strange_addresses(clock: list[float]) -> None:
    """A node whose address is a host's name does not take the names of others away; IPv4 is found in IPv6 as well."""
    names = Peers(Looks(**{"node-a.example.com": CART, "10.244.1.9": CART, "fd00::7": CART}))
    for address in ("10.244.1.9", "::ffff:10.244.1.9", "fd00::7"):
        assert names.name(packed(address)) == CART


def test_told_with_the_row(clock: list[float]) -> None:
    """A row's own batch brings the name of its end, and later ones bring it again only if it is another."""
    look = Looks(**{"10.244.1.9": CART})
    schema = pb.Started(schema=orjson.dumps(CONNECTS.schema.to_json()).decode())
    row = [{"pid": 1, "comm": b"app", "dst": (packed("10.244.1.9"), 80)}]
    messages = [pb.RunReply(started=schema)]
    for _ in range(3):
        sent = batch(CONNECTS, row)
        del sent.peers[:]
        messages.append(pb.RunReply(batch=sent))
    named = [message for _, message in add_names([("node-a", each) for each in messages], lambda context: look())]
    told = [[(peer.kind, peer.namespace, peer.name) for peer in each.batch.peers] for each in named[1:]]
    assert told == [[tuple(CART)], [], []]


def test_own_end(clock: list[float]) -> None:
    """The end of the row's own pod has that pod's name, whatever its address was called before, and nobody is asked."""
    look = Looks(**{"10.244.1.7": Owner("pod", "shop", "deleted"), "10.244.1.9": CART})
    schema = pb.Started(schema=orjson.dumps(CONNECTS.schema.to_json()).decode())
    own = pb.Container(cgroup_id=7, namespace="web", pod="web-0", container="nginx", id="b" * 64)
    ends = {"src": (packed("10.244.1.7"), 40_000), "dst": (packed("10.244.1.9"), 80)}
    rows = [{"pid": 1, "comm": b"app", "cgroup_id": cgroup, **ends} for cgroup in (7, 8)]
    rows.append({**rows[0], "src": (packed("127.0.0.1"), 1), "dst": (packed("127.0.0.1"), 2)})
    asked = batch(CONNECTS, [{"pid": 1, "comm": b"app", "dst": ends["dst"]}])
    sent = batch(CONNECTS, rows)
    del sent.peers[:], sent.containers[:]
    sent.containers.append(own)
    messages = [("node-a", pb.RunReply(started=schema))]
    messages += [("node-a", pb.RunReply(batch=each)) for each in (asked, sent)]
    named = [message for _, message in add_names(messages, lambda context: look())]
    decoder = Decoder("node-a", CONNECTS.schema)
    _, told = (decoder.rows(each.batch, ["src", "dst"], lambda table: None) for each in named[1:])
    shown = [tuple(map(str, row)) for _, row, _ in told]
    assert sorted(shown) == [
        ("127.0.0.1:1", "127.0.0.1:2"),
        ("pod/web/web-0:40000", "pod/shop/cart-0:80"),
        ("pod/web/web-0:40000", "pod/shop/cart-0:80"),  # of a process outside containers, at an address of web-0
    ]


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> Targets:
    """Two agents that know their node and containers, and one that does not answer."""

    def state(pod: str, address: str, ended: int = 0) -> pb.ContainerState:
        who = pb.Container(namespace="shop" * bool(pod), pod=pod, container="" if pod else "plain", id="a" * 64)
        return pb.ContainerState(container=who, addresses=[address], ended_ns=ended)

    known = {
        "node-a": [state("cart-0", "10.244.1.7"), state("", "172.17.0.2")],
        "node-b": [state("now", "10.244.2.7"), state("before", "10.244.2.7", 5)],
    }

    def ask(agent: Agent, *_: object) -> Iterator[pb.ContainersReply]:
        target = agent.target
        if target not in known:
            raise Unreachable("gone")
        yield pb.ContainersReply(node=target, containers=known[target], addresses=[f"192.0.2.{target[-1] == 'b'}"])

    monkeypatch.setattr(peers, "list_containers", ask)
    return Targets({name: lambda: "" for name in ("node-a", "node-gone", "node-b")})


OF_AGENTS = {
    "10.244.1.7": CART,
    "172.17.0.2": Owner("container", "", "plain"),
    "10.244.2.7": Owner("pod", "shop", "now"),
}


def test_without_a_cluster(agents: Targets) -> None:
    """Without a cluster names are those that the agents know: nodes, pods, containers; who runs before who is gone."""
    found = find_directory(agents, (), cluster=False)("")
    assert {address: found[address] for address in OF_AGENTS} == OF_AGENTS
    assert {name.name for name in found.values() if name.kind == "node"} == {"node-a", "node-b"}


def test_few_rights(agents: Targets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may list nodes but no pods sees the names of pods that the agents know, and the cluster's names for the rest."""
    with api_server() as server:
        flags = kubeconfig.ClusterFlags(server=f"http://127.0.0.1:{server.server_port}", kubeconfig="/dev/null")
        monkeypatch.setattr(options, "chosen_clusters", lambda: [options.ClusterOptions(flags, "gadget", ())])
        server.refused = {"/api/v1/pods"}
        server.pods = [item("web-0", "web", podIPs=ips("10.244.3.7"), phase="Running")]
        server.nodes = [item("node-c", addresses=[{"type": "InternalIP", "address": "192.0.2.3"}])]
        found = find_directory(agents, ("web,!other",), cluster=True)("")
    assert found["192.0.2.3"] == Owner("node", "", "node-c")
    assert found["10.244.3.7"] == Owner("pod", "web", "web-0")
    assert {address: found[address] for address in OF_AGENTS} == OF_AGENTS
    assert "/api/v1/namespaces/web/pods" in server.paths and not any("other" in path for path in server.paths)


def test_ctrl_c_while_names_are_looked_up(tmp_path: Path, start_cli) -> None:
    """Rows come and Ctrl-C ends the command, with all that it has to say, though who is asked for names hangs."""
    asked, finish = threading.Event(), threading.Event()

    class Hangs(FakeAgent):
        def Containers(self, request: pb.ContainersRequest, context: grpc.ServicerContext) -> Iterator[Any]:
            asked.set()
            finish.wait(60)
            yield pb.ContainersReply()

    agent = Hangs(tmp_path, "node-a", schema=CONNECTS.schema)
    cli = start_cli("tcpconnect", "--agent", agent.address, "-o", "json", "--fields", "dst.addr")
    assert agent.started.wait(20)
    for _ in range(5):
        agent.send(batch(CONNECTS, EVENTS["tcpconnect"]))
    for _ in range(15):
        assert cli.process.stdout.readline().startswith('{"dst.addr":"')
    assert asked.is_set()
    began = time.monotonic()
    _, err = cli.finish(seconds=20)
    assert time.monotonic() - began < 10
    assert (cli.process.returncode, err.startswith("15 events from 1 node")) == (0, True)
    finish.set()
    agent.die()
