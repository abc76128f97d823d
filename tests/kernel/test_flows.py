"""The flow recorder on this kernel: who talked to whom, whatever happened to agents and pods."""

from __future__ import annotations

import ctypes
import errno
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kubernetes import client as kubernetes

from agent.bpffs import mount_bpffs
from agent.flows.recorder import FlowRecorder
from agent.flows.service import FlowsService
from agent.objects import read_object
from agent.pods import PodWatch
from agent.tracker import Tracker
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget.streams import connect
from tests import apiserver
from tests.conftest import Agent, bpf_programs, pinned_programs, wait_until
from tests.pods import UNIFIED, Container, link

ICMP, TCP, UDP, ICMPV6, SCTP = 1, 6, 17, 58, 132
#: So that a talk is over after a silence that a test can wait for; the recorder writes once a second.
SILENCE = {"unanswered_ns": 10**9}
SILENT_SECONDS = 1.3
OBJECT = read_object("flows")


class Seen(NamedTuple):
    """A flow without its times."""

    pod: str
    ingress: bool
    protocol: int
    peer: str
    port: int
    count: int
    failed: int


@pytest.fixture
def record(bpffs: Path, start_agent: Callable[..., Agent], tmp_path: Path) -> Callable[..., Agent]:
    """Starts agents that record flows in a bpffs of their own."""
    return lambda *args: start_agent(
        "--traceloop", "off", "--bpffs", str(bpffs), "--state", str(tmp_path / "state"), *args
    )


@pytest.fixture
def recorder(bpffs: Path, tmp_path: Path) -> Iterator[Callable[..., FlowRecorder]]:
    """Makes recorders in this process, each of which goes on with what the one before began and ends it."""
    mount_bpffs(bpffs)
    folder = bpffs / "gadget"
    folder.mkdir()
    with ExitStack() as stack:

        def make(entries: int = 4096, pods: Any = None, **settings: int) -> FlowRecorder:
            stack.pop_all().close()
            tracker = stack.enter_context(closing(Tracker(pinned=folder / "containers")))
            tracker.pods = pods and pods(tracker.changed)
            made = FlowRecorder(tracker, folder / "flows", tmp_path / "state", entries, settings)
            return stack.enter_context(closing(made))

        yield make


def ask(agent: Agent) -> list[pb.FlowsReply]:
    with connect(agent.address) as channel:
        return list(AgentStub(channel).Flows(pb.FlowsRequest()))


def plain(address: bytes) -> str:
    parsed = IPv6Address(address)
    return str(parsed.ipv4_mapped or parsed)


def read(agent: Agent) -> set[Seen]:
    """Flows of the pods of this test."""
    replies = ask(agent)
    names = {pod.uid: pod.name for pod in replies[0].pods if pod.namespace in ("shop", "web")}
    return {
        Seen(names[flow.uid], flow.ingress, flow.protocol, plain(flow.peer), flow.port, flow.count, flow.failed)
        for reply in replies
        for flow in reply.flows
        if flow.uid in names and not plain(flow.peer).startswith(("fe80:", "ff02:"))
    }


def seen_by(recorder: FlowRecorder) -> set[Seen]:
    """As read, of a recorder in this process."""
    names = {pod.uid: pod.name for pod in recorder.pods() if pod.namespace in ("shop", "web")}
    ingress = catalog.constants("flows", "direction")["DIRECTION_INGRESS"]
    return {
        Seen(names[uid], direction == ingress, protocol, plain(peer.ljust(16, b"\0")), port, count, failed)
        for uid, direction, protocol, peer, port, count, failed in zip(*columns(recorder), strict=True)
        if uid in names and not plain(peer.ljust(16, b"\0")).startswith(("fe80:", "ff02:"))
    }


def columns(recorder: FlowRecorder) -> list[list[Any]]:
    keys, flows, uids = recorder.read()
    found = [keys[name].tolist() for name in ("direction", "protocol")]
    peers = keys["peer"].astype("S16").tolist()
    return [uids, *found, peers, *(each.tolist() for each in (keys["port"], flows["count"], flows["failed"]))]


@contextmanager
def inside(container: Container) -> Iterator[None]:
    """This process in a container's network and cgroup: sockets that it makes now are that container's."""
    libc = ctypes.CDLL(None, use_errno=True)
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    (group,) = (line.removeprefix("0::") for line in groups if line.startswith("0::"))
    with open("/proc/self/ns/net") as own, open(f"/proc/{container.pid}/ns/net") as network:
        (UNIFIED / container.cgroup.lstrip("/") / "cgroup.procs").write_text("0")
        try:
            assert libc.setns(network.fileno(), 0) == 0
            yield
        finally:
            libc.setns(own.fileno(), 0)
            (UNIFIED / group.lstrip("/") / "cgroup.procs").write_text("0")


def datagrams(container: Container, address: str, port: int = 0) -> socket.socket:
    """A UDP socket in a container."""
    with inside(container):
        made = socket.socket(type=socket.SOCK_DGRAM)
        made.bind((address, port))
        made.settimeout(10)
    return made


def send(source: socket.socket, target: socket.socket) -> None:
    """One datagram, and its arrival."""
    source.sendto(b"text", target.getsockname())
    assert target.recvfrom(100)[1] == source.getsockname()


def be_silent(seconds: float = SILENT_SECONDS) -> None:
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + seconds, "the end of a silence")


@pytest.fixture
def pair(make_pod, workload) -> tuple[Container, Container]:
    """A client and a server whose networks are joined: 10.77.0.1 and .2, fd77::1 and ::2."""
    files = {"/talks": workload("talks")}
    cart = make_pod("shop", "cart-0").container("app", "/bin/sleep", "600", files=files)
    web = make_pod("web", "web-0").container("nginx", "/bin/sleep", "600", files=files)
    link(cart, web)
    return cart, web


def serve(container: Container, protocol: str, port: int) -> subprocess.Popen[bytes]:
    command = ["runc", "exec", container.id, "/talks", "serve", protocol, str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout and process.stdout.readline() == b"ready\n"
    return process


def talk(container: Container, how: str, protocol: str, address: str, port: int, times: int) -> None:
    container.exec("/talks", how, protocol, address, str(port), str(times))


def test_exact(record, pair) -> None:
    """Every connection and every talk over UDP is there, of both sides, with its direction and the server's port."""
    agent = record()
    cart, web = pair
    servers = [serve(web, "tcp", 8080), serve(web, "udp", 5353), serve(web, "udp", 514)]
    talk(cart, "ask", "tcp", "10.77.0.2", 8080, 7)
    talk(cart, "ask", "tcp", "fd77::2", 8080, 11)
    talk(cart, "ask", "tcp", "10.77.0.2", 8081, 3)
    talk(cart, "ask", "udp", "10.77.0.2", 5353, 5)
    talk(cart, "ask", "udp", "fd77::2", 5353, 13)
    talk(cart, "tell", "udp", "10.77.0.2", 514, 17)
    talk(web, "ask", "tcp", "127.0.0.1", 8080, 2)
    assert read(agent) == {
        Seen("cart-0", False, TCP, "10.77.0.2", 8080, 7, 0),
        Seen("cart-0", False, TCP, "fd77::2", 8080, 11, 0),
        Seen("cart-0", False, TCP, "10.77.0.2", 8081, 3, 3),
        Seen("cart-0", False, UDP, "10.77.0.2", 5353, 5, 0),
        Seen("cart-0", False, UDP, "fd77::2", 5353, 13, 0),
        Seen("cart-0", False, UDP, "10.77.0.2", 514, 17, 0),
        Seen("web-0", True, TCP, "10.77.0.1", 8080, 7, 0),
        Seen("web-0", True, TCP, "fd77::1", 8080, 11, 0),
        Seen("web-0", True, UDP, "10.77.0.1", 5353, 5, 0),
        Seen("web-0", True, UDP, "fd77::1", 5353, 13, 0),
        Seen("web-0", True, UDP, "10.77.0.1", 514, 17, 0),
    }
    for server in servers:
        server.kill()
        server.wait()


def test_agent_killed(record, pair, make_pod, workload) -> None:
    """While the agent is dead recording goes on, and the next knows the flows, and the names of pods that are gone."""
    agent = record()
    cart, _ = pair
    talk(cart, "ask", "tcp", "10.77.0.2", 8080, 3)
    wait_until(lambda: len(ask(agent)[0].pods) >= 2, "the pods")
    began = ask(agent)[0].head.began_ns
    time.sleep(1.2)  # names are saved once a second
    for _ in range(3):
        agent.stop(signal.SIGKILL)
        talk(cart, "ask", "tcp", "10.77.0.2", 8080, 5)
        agent = record()
    cart.delete()
    agent.stop(signal.SIGKILL)
    agent = record()
    assert read(agent) == {Seen("cart-0", False, TCP, "10.77.0.2", 8080, 18, 18)}
    replies = ask(agent)
    assert replies[0].head.began_ns == began
    (pod,) = (pod for pod in replies[0].pods if pod.name == "cart-0")
    assert pod.last_ns > pod.first_ns > 0
    assert list(pod.addresses) == ["10.77.0.1", "fd77::1"]


def test_older_connections(record, pair) -> None:
    """Connections that there were before the agent are found, with their direction, and marked."""
    cart, web = pair
    server = serve(web, "tcp", 8080)
    command = ["runc", "exec", cart.id, "/bin/sh", "-c", "(echo ready >&2; sleep 60) | busybox nc 10.77.0.2 8080"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) as client:
        try:
            assert client.stderr and client.stderr.readline() == b"ready\n"
            established = Path(f"/proc/{cart.pid}/net/tcp")
            wait_until(lambda: " 01 " in established.read_text(), "the connection")
            agent = record()
            assert read(agent) == {
                Seen("cart-0", False, TCP, "10.77.0.2", 8080, 1, 0),
                Seen("web-0", True, TCP, "10.77.0.1", 8080, 1, 0),
            }
            assert all(flow.older == 1 for reply in ask(agent) for flow in reply.flows if flow.port == 8080)
        finally:
            cart.delete()
            server.kill()
            server.wait()


def test_full_table(record, pair) -> None:
    """A table that is full loses nothing silently: what is in it and what is told as lost is all that happened."""
    agent = record("--flows-limit", "64")
    cart, _ = pair
    script = "p=9000; while [ $p -lt 9100 ]; do /talks tell tcp 10.77.0.2 $p 1; p=$((p+1)); done"
    cart.exec("/bin/sh", "-c", script)

    def told() -> int:
        replies = ask(agent)
        flows: list[Any] = [flow for reply in replies for flow in reply.flows if 9000 <= flow.port < 9100]
        others = sum(not 9000 <= flow.port < 9100 for reply in replies for flow in reply.flows)
        return len(flows) + sum(loss.count for loss in replies[0].head.losses) + others

    assert told() >= 100
    assert told() - 100 < 20  # neighbour discovery and the like of the machine's other pods


def test_removed(record, pair, tmp_path: Path) -> None:
    """When agents are removed from a cluster nothing of the flow recorder stays: no program, no map, no file."""
    before = bpf_programs()
    agent = record()
    programs = bpf_programs() - before
    with connect(agent.address) as channel:
        AgentStub(channel).End(pb.EndRequest())
    assert not (tmp_path / "bpf/gadget").exists()
    assert not (tmp_path / "state/flows").exists()
    agent.stop()
    wait_until(lambda: not programs & bpf_programs(), "the end of the programs")


def test_off(record, start_agent, bpffs: Path) -> None:
    """After a restart with --no-flows nobody's connections are recorded any more, and nothing is pinned."""
    record().stop()
    recording = pinned_programs(bpffs)
    assert len(recording) == 3
    start_agent("--bpffs", str(bpffs), "--traceloop", "off", "--no-flows").stop()
    assert not (bpffs / "gadget").exists()
    wait_until(lambda: not recording & bpf_programs(), "the end of the programs")


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


def test_push_after_silence(recorder, pair) -> None:
    """A server that speaks again after a silence has not become a client, if it had answered."""
    cart, web = pair
    made = recorder(**SILENCE)
    client, server = datagrams(cart, "10.77.0.1"), datagrams(web, "10.77.0.2", 5353)
    send(client, server)
    send(server, client)
    be_silent()
    send(server, client)
    be_silent()
    send(server, client)
    assert seen_by(made) == {
        Seen("cart-0", False, UDP, "10.77.0.2", 5353, 1, 0),
        Seen("web-0", True, UDP, "10.77.0.1", 5353, 1, 0),
    }


def test_unanswered_talk_ends(recorder, pair) -> None:
    """Who was asked, never answered and speaks much later begins a talk of its own, as for the network's firewalls."""
    cart, web = pair
    made = recorder(**SILENCE)
    client, server = datagrams(cart, "10.77.0.1", 6001), datagrams(web, "10.77.0.2", 5353)
    send(client, server)
    be_silent()
    send(server, client)
    assert seen_by(made) == {
        Seen("cart-0", False, UDP, "10.77.0.2", 5353, 1, 0),
        Seen("cart-0", True, UDP, "10.77.0.2", 6001, 1, 0),
        Seen("web-0", True, UDP, "10.77.0.1", 5353, 1, 0),
        Seen("web-0", False, UDP, "10.77.0.1", 6001, 1, 0),
    }


def test_answer_comes_first(recorder, pair) -> None:
    """A question that was under way when the agent came is a question, though its answer is all that was seen."""
    cart, web = pair
    client, server = datagrams(cart, "10.77.0.1"), datagrams(web, "10.77.0.2", 5353)
    send(client, server)
    made = recorder()
    send(server, client)
    send(client, server)
    assert seen_by(made) == {
        Seen("cart-0", False, UDP, "10.77.0.2", 5353, 1, 0),
        Seen("web-0", True, UDP, "10.77.0.1", 5353, 1, 0),
    }


def test_both_are_servers(recorder, pair) -> None:
    """Two pods that ask each other at the same port are both clients and both servers."""
    cart, web = pair
    made = recorder()
    asking, server = datagrams(cart, "10.77.0.1"), datagrams(web, "10.77.0.2", 5000)
    send(asking, server)
    other = datagrams(cart, "10.77.0.1", 5000)
    send(server, other)
    assert seen_by(made) == {
        Seen("cart-0", False, UDP, "10.77.0.2", 5000, 1, 0),
        Seen("cart-0", True, UDP, "10.77.0.2", 5000, 1, 0),
        Seen("web-0", True, UDP, "10.77.0.1", 5000, 1, 0),
        Seen("web-0", False, UDP, "10.77.0.1", 5000, 1, 0),
    }


def attempt(container: Container, ports: range) -> None:
    """Connect to each port of the other, where nobody listens."""
    with inside(container):
        for port in ports:
            with socket.socket() as client:
                assert client.connect_ex(("10.77.0.2", port)) == errno.ECONNREFUSED


def without_ipv6(*containers: Container) -> None:
    """No neighbours and multicast groups: nothing is seen but what a test does."""
    for each in containers:
        network = ["nsenter", f"--net=/proc/{each.pid}/ns/net"]
        subprocess.run([*network, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"], check=True)


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


def test_lost_once(recorder, pair) -> None:
    """A talk that finds no room is one flow lost, however long it goes on."""
    cart, web = pair
    without_ipv6(cart, web)
    made = recorder(64)
    made._stop.set()  # nobody makes room
    made._thread.join()
    client, server = datagrams(cart, "10.77.0.1"), datagrams(web, "10.77.0.2", 5353)
    attempt(cart, range(9000, 9064))
    for _ in range(3):
        send(client, server)
        be_silent()
    send(client, server)
    assert len(seen_by(made)) == 64
    assert made.losses()["table full"] == 2  # the client's and the server's


def test_ping(recorder, pair) -> None:
    """Who pings whom is counted, over IPv4 and IPv6, though no policy is about it."""
    cart, _ = pair
    made = recorder()
    for family, protocol, kind, address in (
        (socket.AF_INET, ICMP, 8, "10.77.0.2"),
        (socket.AF_INET6, ICMPV6, 128, "fd77::2"),
    ):
        question = struct.pack("!BBHHH", kind, 0, 0xFFFF - (kind << 8) - 1, 0, 1)
        answers = {0, 129}
        for _ in range(3):
            with inside(cart), socket.socket(family, socket.SOCK_RAW, protocol) as raw:
                raw.settimeout(10)
                raw.sendto(question, (address, 0))
                while raw.recv(100)[20 if protocol == ICMP else 0] not in answers:
                    pass  # neighbours that look for each other
    assert seen_by(made) == {
        Seen("cart-0", False, ICMP, "10.77.0.2", 0, 3, 0),
        Seen("cart-0", False, ICMPV6, "fd77::2", 0, 3, 0),
    }


def test_no_answer(recorder, pair) -> None:
    """A connection that nobody answers is an attempt that failed."""
    cart, _ = pair
    neighbour = "ip neigh add 10.77.0.9 lladdr 02:00:00:00:00:09 dev gadget0"
    subprocess.run(["nsenter", f"--net=/proc/{cart.pid}/ns/net", *neighbour.split()], check=True)
    made = recorder()
    for _ in range(3):
        with inside(cart), socket.socket() as client:
            client.setblocking(False)
            assert client.connect_ex(("10.77.0.9", 80)) == errno.EINPROGRESS
    assert seen_by(made) == {Seen("cart-0", False, TCP, "10.77.0.9", 80, 3, 3)}


def test_host_is_left_out(recorder, pair, workload) -> None:
    """What the machine's own processes do is nobody's flow, though a pod that they talk to has it."""
    cart, web = pair
    made = recorder()
    server = serve(web, "tcp", 8080)
    host = ["nsenter", f"--net=/proc/{cart.pid}/ns/net", str(workload("talks"))]
    subprocess.run([*host, "ask", "tcp", "10.77.0.2", "8080", "3"], check=True)
    subprocess.run([*host, "tell", "udp", "10.77.0.2", "514", "5"], check=True)
    keys, _, _ = made.read()
    assert seen_by(made) == {Seen("web-0", True, TCP, "10.77.0.1", 8080, 3, 0)}
    assert not {8080, 514} & {int(key["port"]) for key in keys if key["direction"] == 0}
    server.kill()
    server.wait()


def connection(cart: Container, web: Container, port: int) -> tuple[socket.socket, socket.socket]:
    """Of a client and a server that has closed its listener."""
    with inside(web), socket.create_server(("10.77.0.2", port)) as listener:
        listener.settimeout(10)
        with inside(cart):
            client = socket.create_connection(("10.77.0.2", port), 10)
        return client, listener.accept()[0]


def test_listener_is_gone(recorder, pair) -> None:
    """Of a connection from before the agent the server is known, also if it listens no more."""
    cart, web = pair
    ends = connection(cart, web, 5000)
    made = recorder()
    assert seen_by(made) == {
        Seen("cart-0", False, TCP, "10.77.0.2", 5000, 1, 0),
        Seen("web-0", True, TCP, "10.77.0.1", 5000, 1, 0),
    }
    for end in ends:
        end.close()


def test_connection_in_use(recorder, pair) -> None:
    """A connection is seen as long as it lasts, and no longer, however long ago it was made."""
    cart, web = pair
    made = recorder()
    client, server = connection(cart, web, 5000)

    def last() -> set[int]:
        keys, flows, _ = made.read()
        return set(flows["last"][keys["port"] == 5000].tolist())

    def now() -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    then = now()
    assert min(last()) > then
    then = now()
    client.close()
    server.close()
    gone = now()
    assert all(then < each < gone for each in last())
    assert len(last()) == 2


def object_of(pod: Any, uid: str, address: str = "", mirror: str = "") -> dict[str, Any]:
    """A pod as the API server has it."""
    item = apiserver.pod(pod.name, 101, app="cart")
    item["metadata"] |= {"uid": uid, "annotations": {"kubernetes.io/config.mirror": mirror} if mirror else {}}
    item["status"] = {"podIPs": [{"ip": address}] if address else []}
    return item


def watch_of(server: apiserver.ApiServer) -> Callable[[Callable[[], None]], PodWatch]:
    configuration = kubernetes.Configuration(host=f"http://127.0.0.1:{server.server_port}")
    api = kubernetes.CoreV1Api(kubernetes.ApiClient(configuration))
    return lambda changed: PodWatch(api, "node-a", changed)


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
        wait_until(lambda: [each for each in made.pods() if each.addresses], "the address")
        (known,) = (each for each in made.pods() if each.uid == pod.uid)
        assert (known.labels, known.owner, known.addresses) == (
            {"app": "cart"}, "ReplicaSet/cart-6c9f", ["10.244.0.9"],
        )  # fmt: skip
        recorder()


def test_static_pod(recorder, pair) -> None:
    """A static pod has one UID, its object's, for whoever asks about flows."""
    cart, _ = pair
    with apiserver.api_server() as server:
        server.pods = [object_of(cart.pod, "mirror", "10.77.0.1", cart.pod.uid)]
        made = recorder(pods=watch_of(server))
        attempt(cart, range(9000, 9003))
        wait_until(lambda: any(each.object_uid for each in made.pods()), "the object")
        replies = list(FlowsService("node-a", made._tracker, made).read())
        (known,) = (each for each in replies[0].pods if each.name == "cart-0")
        assert (known.uid, list(known.addresses)) == ("mirror", ["10.77.0.1"])
        assert {flow.uid for reply in replies for flow in reply.flows if flow.protocol == TCP} == {"mirror"}
        recorder()


def test_sctp(recorder, pair) -> None:
    """An SCTP association is of who made it, however long it does nothing but tell that it is there."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP).close()
    except OSError:
        pytest.skip("this kernel has no SCTP; tests/vm has")
    cart, web = pair
    made = recorder(**SILENCE)
    server = serve(web, "sctp", 36412)
    talk(cart, "ask", "sctp", "10.77.0.2", 36412, 3)
    assert seen_by(made) == {
        Seen("cart-0", False, SCTP, "10.77.0.2", 36412, 3, 0),
        Seen("web-0", True, SCTP, "10.77.0.1", 36412, 3, 0),
    }
    server.kill()
    server.wait()
