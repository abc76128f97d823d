"""The flow log on this kernel: what became of each connection between two containers, as users are shown it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import tls
from tests.conftest import Agent, Cli, events, run_cli, wait_until
from tests.dns import NXDOMAIN, encode
from tests.dns_mix import AAAA, CNAME, NO_QUESTIONS, A
from tests.kernel.flows import inside
from tests.pods import Container, Pod, link
from tests.prometheus import check, scraping
from tests.tun import IFF_NO_PI, IFF_TUN, TUNSETIFF

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


def test_closed(place, port) -> None:
    """Each connection has a row when it is made and one when it is over, at both ends, with bytes each way, process, duration and round-trip time."""
    cart, web, *_ = place
    for _ in range(3):
        talk(cart, web, "10.77.0.2", port, 1009, 100_003)
    begun = ("tcp", 4, "begun", "forwarded", "none", 0, 0)
    rows = expect(
        place,
        port,
        Counter(
            {
                ("cart-0", "egress", *begun): 3,
                ("web-0", "ingress", *begun): 3,
                ("cart-0", "egress", "tcp", 4, "ended", "forwarded", "closed", 1009, 100_003): 3,
                ("web-0", "ingress", "tcp", 4, "ended", "forwarded", "closed", 100_003, 1009): 3,
            }
        ),
    )
    assert {row["pid"] for row in rows} == {os.getpid()}
    assert {(row["src"]["name"], row["dst"]["name"]) for row in rows} == {("cart-0", "web-0"), ("web-0", "cart-0")}
    ended = [row for row in rows if row["type"] == "ended"]
    assert all(0 < row["rtt"] < row["duration"] < 10**10 for row in ended)
    assert {row["bytes"] for row in ended} == {1009 + 100_003}


def test_closed_ipv6(place, port) -> None:
    """IPv6 is no different."""
    cart, web, *_ = place
    talk(cart, web, "fd77::2", port, 11, 13)
    rows = expect(
        place,
        port,
        Counter(
            {
                ("cart-0", "egress", "tcp", 6, "begun", "forwarded", "none", 0, 0): 1,
                ("web-0", "ingress", "tcp", 6, "begun", "forwarded", "none", 0, 0): 1,
                ("cart-0", "egress", "tcp", 6, "ended", "forwarded", "closed", 11, 13): 1,
                ("web-0", "ingress", "tcp", 6, "ended", "forwarded", "closed", 13, 11): 1,
            }
        ),
        verdict="forwarded",  # the first SYN may wait for a neighbour that is looked for
    )
    assert {row["dst"]["addr"] for row in rows if row["direction"] == "egress"} == {"fd77::2"}


@pytest.mark.parametrize(
    ("filtered", "verdict", "drop"),
    [
        ("", "refused", ""),
        ("-j REJECT --reject-with icmp-port-unreachable", "rejected", "NETFILTER_DROP"),
        ("-j REJECT --reject-with icmp-admin-prohibited", "rejected", "NETFILTER_DROP"),
        ("-j REJECT --reject-with tcp-reset", "rejected", "NETFILTER_DROP"),
        ("-j DROP", "dropped", "NETFILTER_DROP"),
    ],
)
def test_verdicts(place, port, filtered: str, verdict: str, drop: str) -> None:
    """A connection that comes to nothing has the verdict of why: nobody listens, a filter says no, or says nothing."""
    cart, web, *_ = place
    if filtered:
        rule(web, f"-A INPUT -p tcp --dport {port} {filtered}")
    for _ in range(2):
        attempt(cart, port)
    rows = expect(place, port, Counter({("cart-0", "egress", "tcp", 4, "failed", verdict, "none", 0, 0): 2}))
    assert {(row["dst"]["name"], row["dst"]["port"], row["pid"]) for row in rows} == {("web-0", port, os.getpid())}
    assert {row["drop"] for row in rows} == {drop}


def test_full_queue(place, port) -> None:
    """A connection for which a server's queue has no room is not answered: it waits, and then has failed."""
    cart, web, *_ = place
    with inside(web), socket.create_server(("10.77.0.2", port), backlog=0) as listener, inside(cart):
        first = socket.create_connection(("10.77.0.2", port), 10)
        with socket.socket() as second:
            second.setblocking(False)
            assert second.connect_ex(("10.77.0.2", port)) == errno.EINPROGRESS
            own = second.getsockname()[1]
            row = ("cart-0", "egress", "tcp", 4, "waiting", "no answer", "none", 0, 0)
            expect(place, own, Counter({row: 1}))
        listener.accept()[0].close()
        first.close()
    rows = expect(
        place,
        port,
        Counter({("cart-0", "egress", "tcp", 4, "failed", "no answer", "none", 0, 0): 1}),
        type="failed",
    )
    assert rows[0]["src"]["port"] == own
    assert rows[0]["duration"] > 10**9
    assert rows[0]["retransmits"] >= 1


@pytest.mark.parametrize(("who", "mine", "other"), [("client", "aborted", "reset"), ("server", "reset", "aborted")])
def test_reset(place, port, who: str, mine: str, other: str) -> None:
    """A connection that one end resets says so at both ends, with the bytes that were sent before."""
    with connected(place, port) as (client, server):
        client.sendall(bytes(17))
        receive(server, 17)
        first, second = (client, server) if who == "client" else (server, client)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        first.close()
        with pytest.raises(ConnectionResetError):
            second.recv(1)
    expect(
        place,
        port,
        Counter(
            {
                ("cart-0", "egress", "tcp", 4, "ended", "forwarded", mine, 17, 0): 1,
                ("web-0", "ingress", "tcp", 4, "ended", "forwarded", other, 0, 17): 1,
            }
        ),
        type="ended",
    )


def test_listens_after_a_failure(place, port) -> None:
    """What a socket accepts that was refused before came from outside, and has nothing of the attempt."""
    cart, web, *_ = place
    with inside(web), socket.socket() as one:
        one.bind(("10.77.0.2", port))
        with pytest.raises(ConnectionRefusedError):
            one.connect(("10.77.0.1", 1))
        one.listen()
        with inside(cart):
            client = socket.create_connection(("10.77.0.2", port), 10)
        server = one.accept()[0]
        client.close()
        assert server.recv(1) == b""
        server.close()
    rows = expect(
        place,
        port,
        Counter(
            {
                ("web-0", "egress", "tcp", 4, "failed", "refused", "none", 0, 0): 1,
                ("cart-0", "egress", "tcp", 4, "begun", "forwarded", "none", 0, 0): 1,
                ("web-0", "ingress", "tcp", 4, "begun", "forwarded", "none", 0, 0): 1,
                ("cart-0", "egress", "tcp", 4, "ended", "forwarded", "closed", 0, 0): 1,
                ("web-0", "ingress", "tcp", 4, "ended", "forwarded", "closed", 0, 0): 1,
            }
        ),
    )
    assert {row["pid"] for row in rows} == {os.getpid()}


def test_datagrams(place, port) -> None:
    """A conversation over UDP has a row when it begins and one when it ends, with its bytes and who began it."""
    cart, web, *_ = place
    with inside(web), socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("10.77.0.2", port))
        with inside(cart), socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(bytes(19), ("10.77.0.2", port))
            _, sender = server.recvfrom(100)
            server.sendto(bytes(23), sender)
            assert len(client.recv(100)) == 23
    rows = expect(
        place,
        port,
        Counter(
            {
                ("cart-0", "egress", "udp", 4, "begun", "forwarded", "none", 19, 0): 1,
                ("web-0", "ingress", "udp", 4, "begun", "forwarded", "none", 0, 19): 1,
                ("cart-0", "egress", "udp", 4, "ended", "forwarded", "closed", 19, 23): 1,
                ("web-0", "ingress", "udp", 4, "ended", "forwarded", "closed", 23, 19): 1,
            }
        ),
    )
    assert {row["pid"] for row in rows} == {os.getpid()}


@pytest.mark.parametrize(
    ("filtered", "kind", "verdict", "drop"),
    [
        ("-j ACCEPT", "failed", "refused", ""),
        ("-j REJECT", "failed", "rejected", "NETFILTER_DROP"),
        ("-j DROP", "failed", "dropped", "NETFILTER_DROP"),
    ],
)
def test_datagrams_for_nobody(place, port, filtered: str, kind: str, verdict: str, drop: str) -> None:
    """Datagrams that do not arrive have the verdict of why, as connections have."""
    cart, web, *_ = place
    rule(web, f"-A INPUT -p udp --dport {port} {filtered}")
    with inside(cart), socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(bytes(19), ("10.77.0.2", port))
    begun = ("cart-0", "egress", "udp", 4, "begun", "forwarded", "none", 19, 0)
    ended = ("cart-0", "egress", "udp", 4, kind, verdict, "closed", 19, 0)
    rows = expect(place, port, Counter({begun: 1, ended: 1}))
    assert [row["drop"] for row in rows if row["type"] == kind] == [drop]


def test_unanswered_datagrams(place, port) -> None:
    """Datagrams that arrive and are not answered have not failed: nobody need have expected an answer."""
    cart, web, *_ = place
    with inside(web), socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("10.77.0.2", port))
        with inside(cart), socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(bytes(29), ("10.77.0.2", port))
            server.recv(100)
    ended = ("cart-0", "egress", "udp", 4, "ended", "no answer", "closed", 29, 0)
    expect(place, port, Counter({ended: 1}), type="ended", direction="egress")


def domains(rows: list[dict[str, Any]]) -> Counter[tuple[str, str, str, str]]:
    return Counter((row["direction"], row["type"], row["domain"], row["domain_by"]) for row in rows)


def test_domain_of_an_address(place, port) -> None:
    """A connection has the name that its container asked DNS for last, of those that had the address; also what came to nothing, also over IPv6 and UDP."""
    cart, web, *_ = place
    here, six = socket.inet_aton("10.77.0.2"), socket.inet_pton(socket.AF_INET6, "fd77::2")
    alias = (CNAME, 60, encode("lb.example.net"))
    resolve(cart, web, "other.example.com", (A, 60, here))
    resolve(cart, web, "API.example.com", alias, (A, 60, socket.inet_aton("192.0.2.1")), (A, 60, here), (AAAA, 60, six))
    resolve(web, web, "never.example.com", (A, 60, here))
    talk(cart, web, "10.77.0.2", port, 11, 13)
    talk(cart, web, "fd77::2", port, 11, 13)
    attempt(cart, port)
    with inside(cart), socket.socket(type=socket.SOCK_DGRAM) as client:
        client.sendto(bytes(19), ("10.77.0.2", port))
    name = ("api.example.com", "dns")
    wait_until(
        lambda: (
            domains([row for row in place.rows(port) if row["type"] != "waiting"])
            == {
                ("egress", "begun", *name): 3,
                ("egress", "ended", *name): 2,
                ("egress", "failed", *name): 2,
                ("ingress", "begun", "", "none"): 2,
                ("ingress", "ended", "", "none"): 2,
            }
        ),
        "the names",
    )


def test_domain_that_does_not_hold(place, port) -> None:
    """A name whose time is over is told as one that may be stale."""
    cart, web, *_ = place
    resolve(cart, web, "old.example.com", (A, 0, socket.inet_aton("10.77.0.2")))
    talk(cart, web, "10.77.0.2", port, 11, 13)
    wait_until(lambda: ("egress", "ended", "old.example.com", "stale") in domains(place.rows(port)), "the name")


def test_domain_of_tls(place, port) -> None:
    """The end of a TLS connection has the name that its client asks for at both ends, whatever DNS said."""
    cart, web, *_ = place
    resolve(cart, web, "cdn.example.com", (A, 60, socket.inet_aton("10.77.0.2")))
    with connected(place, port) as (client, server):
        client.sendall(tls.LARGE)
        receive(server, len(tls.LARGE))
    wait_until(
        lambda: (
            domains(place.rows(port))
            == {
                ("egress", "begun", "cdn.example.com", "dns"): 1,
                ("ingress", "begun", "", "none"): 1,
                ("egress", "ended", tls.NAME, "sni"): 1,
                ("ingress", "ended", tls.NAME, "sni"): 1,
            }
        ),
        "the names",
    )


def test_domain_of_tls_that_is_cut(place, port) -> None:
    """The hello of a connection comes in two packets, cut within the name: what DNS said stays."""
    cart, web, *_ = place
    resolve(cart, web, "cdn.example.com", (A, 60, socket.inet_aton("10.77.0.2")))
    cut = tls.LARGE.index(tls.NAME.encode()) + 3
    with connected(place, port) as (client, server):
        client.sendall(tls.LARGE[:cut])
        receive(server, cut)
        client.sendall(tls.LARGE[cut:])
        receive(server, len(tls.LARGE) - cut)
    wait_until(lambda: ("egress", "ended", "cdn.example.com", "dns") in domains(place.rows(port)), "the name")


def test_answers_of_nobody(place, port) -> None:
    """Nothing is learned from an answer that nobody asked for, nor from one that makes no sense."""
    cart, web, *_ = place
    here = (A, 60, socket.inet_aton("10.77.0.2"))
    resolve(cart, web, "good.example.com", here)
    asked = question("evil.example.com")
    for other in (b"", *(each for each in NO_QUESTIONS if not each.startswith(encode("abc")))):
        with inside(web), socket.socket(type=socket.SOCK_DGRAM) as server:
            server.bind(("10.77.0.2", 53))
            with inside(cart), socket.socket(type=socket.SOCK_DGRAM) as client:
                client.bind(("10.77.0.1", 0))
                if other:
                    client.sendto(asked, ("10.77.0.2", 53))
                    server.recv(512)
                server.sendto(answer(asked[:12] + other if other else asked, here), client.getsockname())
                client.recv(2000)
    talk(cart, web, "10.77.0.2", port, 11, 13)
    wait_until(lambda: ("egress", "ended", "good.example.com", "dns") in domains(place.rows(port)), "the name")


def test_once(place, port) -> None:
    """A connection between two pods is a line as it begins and one as it ends, with both processes, or so many objects of JSON; --ends each has a line of each end."""
    cart, web, *_ = place
    talk(cart, web, "10.77.0.2", port, 1009, 100_003)
    wait_until(lambda: len(place.rows(port)) == 4, "both ends")
    who = rf"shop/cart-0 \S+\[{os.getpid()}\] → web/web-0:{port} \S+\[{os.getpid()}\] TCP FORWARDED"
    begun, ended = place.lines(port)
    assert re.fullmatch(rf"{who} begun in \S+", begun)
    assert re.fullmatch(rf"{who} 1\.0 kB↑ 100 kB↓ \S+ rtt \S+", ended)
    assert len(place.lines(port, "--ends", "each")) == 4
    done = run_cli(
        "observe", "--agent", place.agent.address, "--all", "--port", str(port), "--ends", "once", "-o", "json"
    )
    rows = events(done.stdout)
    assert [(row["direction"], row["pid"], row["other_pid"]) for row in rows] == [
        ("egress", os.getpid(), os.getpid())
    ] * 2
    assert {row["other_end"]["name"] for row in rows} == {"web-0"} and all(row["other_comm"] for row in rows)


def test_counted(place, port, tmp_path: Path) -> None:
    """With --metrics every row of the flow log counts, by namespace and verdict, in numbers that a real Prometheus scrapes and its promtool finds nothing in."""
    cart, web, _, agent = place
    for _ in range(3):
        talk(cart, web, "10.77.0.2", port, 1009, 100_003)
    attempt(cart, port)
    wait_until(lambda: len(place.rows(port)) == 13, "the rows")
    found = re.search(r"at (\S+)/metrics", run_cli("status", "--agent", agent.address).stdout)
    assert found
    with urllib.request.urlopen(f"http://{found[1]}/metrics", timeout=10) as answer:
        check(answer.read().decode())

    def kept(**wanted: str) -> int:
        done = run_cli("observe", "--agent", agent.address, "-A", "--all", "-o", "json")
        return sum(wanted.items() <= row.items() for row in events(done.stdout))

    refused = {"namespace": "shop", "type": "failed", "verdict": "refused"}
    of_them = ",".join(f'{name}="{value}"' for name, value in refused.items())
    with scraping(tmp_path, int(found[1].rpartition(":")[2])) as value:
        wait_until(lambda: (seen := value("sum(gadget_flow_rows_total)")) and seen == kept() > 12, "all rows", 30)
        assert value(f"sum(gadget_flow_rows_total{{{of_them}}})") == kept(**refused) > 0
        assert value('gadget_flow_rtt_seconds_count{namespace="shop"}')


def test_translated(place, port) -> None:
    """A connection to an address that the kernel makes a pod's, as a Service's is, is one line with both."""
    cart, *_ = place
    rule(cart, f"-t nat -A OUTPUT -p tcp -d 10.77.0.9 --dport 80 -j DNAT --to-destination 10.77.0.2:{port}")
    with connected(place, port, ("10.77.0.9", 80)) as (client, server):
        own = client.getsockname()[1]
        client.sendall(bytes(17))
        receive(server, 17)
    wait_until(lambda: len(place.rows(own)) == 4, "both ends")
    assert all(f" → web/web-0:{port} (as 10.77.0.9:80) " in line for line in place.lines(own))
    assert len(place.lines(own)) == 2


def test_rp_filter(place, port) -> None:
    """A connection from an address that the other end has no way back to is dropped, with the kernel's word for it."""
    cart, web, *_ = place
    command(cart, "ip addr add 10.88.0.1/32 dev gadget0")
    command(web, "sysctl -qw net.ipv4.conf.gadget1.rp_filter=1")
    with inside(cart), socket.socket() as client:
        client.bind(("10.88.0.1", 0))
        client.settimeout(PATIENCE_SECONDS)
        with pytest.raises(OSError):
            client.connect(("10.77.0.2", port))
    (row,) = expect(place, port, Counter({("cart-0", "egress", "tcp", 4, "failed", "dropped", "none", 0, 0): 1}))
    assert row["drop"] == "IP_RPFILTER"


def test_no_endpoints(place, port) -> None:
    """What kube-proxy answers for a Service without endpoints is a connection that was rejected, at the Service's address."""
    cart, web, *_ = place
    command(cart, f"ip route add 10.96.0.{port % 200} via 10.77.0.2")
    command(web, "sysctl -qw net.ipv4.ip_forward=1")
    command(
        web, "ip link add other type veth peer name beyond"
    )  # back to where it comes from would be a redirect, and no other ICMP
    command(web, "ip link set other up")
    command(web, "ip link set beyond up")
    command(web, f"ip route add 10.96.0.{port % 200} dev other")
    rule(web, f"-A FORWARD -d 10.96.0.{port % 200} -p tcp --dport {port} -j REJECT --reject-with icmp-port-unreachable")
    with inside(cart), pytest.raises(ConnectionRefusedError):
        socket.create_connection((f"10.96.0.{port % 200}", port), 10)
    (row,) = expect(place, port, Counter({("cart-0", "egress", "tcp", 4, "failed", "rejected", "none", 0, 0): 1}))
    assert (row["dst"]["addr"], row["drop"]) == (f"10.96.0.{port % 200}", "NETFILTER_DROP")


def test_no_such_name(place, port) -> None:
    """A name that there is not is a question that was answered, and no domain of what follows."""
    cart, web, *_ = place
    resolve(cart, web, "nobody.example.com", rcode=NXDOMAIN)
    talk(cart, web, "10.77.0.2", port, 11, 13)
    wait_until(lambda: ("egress", "ended") in {each[:2] for each in domains(place.rows(port))}, "the connection")
    assert not any("nobody" in row["domain"] for row in place.rows(port))
    asked = [row for row in place.rows(53) if row["direction"] == "egress" and row["type"] == "ended"]
    assert asked[-1]["verdict"] == "forwarded"


def test_dns_timeout(place, port) -> None:
    """A question of DNS that nobody answers is a conversation without an answer."""
    cart, web, *_ = place
    with inside(web), socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("10.77.0.2", 53))
        with inside(cart), socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(question("slow.example.com"), ("10.77.0.2", 53))
            own = client.getsockname()[1]
            server.recv(512)
    row = ("cart-0", "egress", "udp", 4, "ended", "no answer", "closed", len(question("slow.example.com")), 0)
    expect(place, own, Counter({row: 1}), direction="egress", type="ended")


@contextmanager
def black_hole(container: Container) -> Iterator[None]:
    """A container has a network, 10.78.0.0/24, whose packets nobody reads."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    try:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", b"gadget2", IFF_TUN | IFF_NO_PI))
        command(container, "ip addr add 10.78.0.1/24 dev gadget2")
        command(container, "ip link set gadget2 up")
        yield
    finally:
        os.close(device)


def test_black_hole(place, port) -> None:
    """A connection into a network where every packet vanishes waits, and then has failed without an answer; nothing says that it was dropped."""
    cart, *_ = place
    with inside(cart), black_hole(cart), socket.socket() as client:
        client.setblocking(False)
        assert client.connect_ex(("10.78.0.2", port)) == errno.EINPROGRESS
        expect(place, port, Counter({("cart-0", "egress", "tcp", 4, "waiting", "no answer", "none", 0, 0): 1}))
    (row,) = expect(
        place, port, Counter({("cart-0", "egress", "tcp", 4, "failed", "no answer", "none", 0, 0): 1}), type="failed"
    )
    assert row["drop"] == ""


def test_pod_gone(place, port) -> None:
    """A connection to a pod that is gone, so that nobody has its address, is unreachable."""
    cart, *_ = place
    with inside(cart), pytest.raises(OSError, match="No route to host"):
        socket.create_connection(("10.77.0.77", port), 30)
    rows = expect(
        place, port, Counter({("cart-0", "egress", "tcp", 4, "failed", "unreachable", "none", 0, 0): 1}), type="failed"
    )
    assert rows[0]["error"] == "EHOSTUNREACH"


@pytest.mark.parametrize("lasting", [True, False])
def test_dropped_amid(place, port, lasting: bool) -> None:
    """A connection whose packets are dropped later on ends as timed out if that lasts, else as any other; what was sent again is counted."""
    _, web, *_ = place
    with connected(place, port) as (client, server):
        client.sendall(bytes(17))
        receive(server, 17)
        rule(web, f"-A INPUT -p tcp --dport {port} -j DROP")
        if lasting:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
        client.sendall(bytes(19))
        if lasting:
            with pytest.raises(TimeoutError):
                client.recv(1)
        else:
            again = struct.Struct("104B")
            wait_until(
                lambda: again.unpack(client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, again.size))[2] > 0,
                "a retransmit",
            )
            rule(web, f"-D INPUT -p tcp --dport {port} -j DROP")
            receive(server, 19)
    reason = "timed out" if lasting else "closed"
    (row,) = expect(
        place,
        port,
        Counter({("cart-0", "egress", "tcp", 4, "ended", "forwarded", reason, 36, 0): 1}),
        direction="egress",
        type="ended",
    )
    assert row["retransmits"] > 0


def test_host(place, port, tmp_path: Path) -> None:
    """--host shows what processes outside containers do, as it comes, and nothing of containers, which the log has."""
    cart, web, *_ = place
    out = tmp_path / "out"
    with out.open("w") as file:
        cli = Cli("observe", "--agent", place.agent.address, "--host", "--port", str(port), "-o", "json", stdout=file)

    def seen() -> list[dict[str, Any]]:
        return events(out.read_text().rpartition("\n")[0])

    with inside(web):
        listener = socket.create_server(("10.77.0.2", port))

    def connect() -> bool:
        with of_node(cart), socket.create_connection(("10.77.0.2", port), 10):
            listener.accept()[0].close()
        return len({row["type"] for row in seen()}) == 2

    with listener:
        wait_until(connect, "flows of a process of the node", 20)
    _, err = cli.finish()
    assert "nothing lost" in err, err
    assert {(row["containerId"], row["direction"], row["pid"]) for row in seen()} == {(None, "egress", os.getpid())}
    done = run_cli("observe", "--agent", place.agent.address, "--host", "--last", "3")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@contextmanager
def of_node(container: Container) -> Iterator[None]:
    """This process in a container's network, and not in the container."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as own, open(f"/proc/{container.pid}/ns/net") as network:
        assert libc.setns(network.fileno(), 0) == 0
        try:
            yield
        finally:
            libc.setns(own.fileno(), 0)


def test_worker(place, port) -> None:
    """Of a server with workers the end of a connection has the worker that served it, not the one that listens."""
    cart, web, *_ = place
    program = (
        "import os, socket\n"
        "listener = socket.create_server(('10.77.0.2', PORT))\n"
        "worker = os.fork()\n"
        "if worker:\n"
        "    print(worker, flush=True); os.wait()\n"
        "else:\n"
        "    end = listener.accept()[0]; end.sendall(end.recv(100)); end.recv(1); end.close()\n"
    )
    with _python_in(web, program, port) as server:
        assert server.stdout
        worker = int(server.stdout.readline())
        _ask(cart, port)
        server.wait(10)
    rows = expect(
        place,
        port,
        Counter(
            {
                ("web-0", "ingress", "tcp", 4, "begun", "forwarded", "none", 0, 0): 1,
                ("web-0", "ingress", "tcp", 4, "ended", "forwarded", "closed", 31, 31): 1,
            }
        ),
        direction="ingress",
    )
    assert {row["type"]: row["pid"] for row in rows} == {"begun": server.pid, "ended": worker}


def test_passed_on(place, port) -> None:
    """Of a connection that one process accepts and gives to another by SCM_RIGHTS the end has the one that used it."""
    cart, web, *_ = place
    program = (
        "import os, socket\n"
        "near, far = socket.socketpair()\n"
        "user = os.fork()\n"
        "if user:\n"
        "    far.close()\n"
        "    listener = socket.create_server(('10.77.0.2', PORT)); print(user, flush=True)\n"
        "    end = listener.accept()[0]; socket.send_fds(near, [b'x'], [end.fileno()]); end.close(); os.wait()\n"
        "else:\n"
        "    near.close()\n"
        "    end = socket.socket(fileno=socket.recv_fds(far, 1, 1)[1][0])\n"
        "    end.sendall(end.recv(100)); end.recv(1); end.close()\n"
    )
    with _python_in(web, program, port) as server:
        assert server.stdout
        user = int(server.stdout.readline())
        _ask(cart, port)
        server.wait(10)
    rows = expect(
        place,
        port,
        Counter({("web-0", "ingress", "tcp", 4, "ended", "forwarded", "closed", 31, 31): 1}),
        direction="ingress",
        type="ended",
    )
    assert rows[0]["pid"] == user


def _python_in(container: Container, program: str, port: int) -> subprocess.Popen[str]:
    with inside(container):
        return subprocess.Popen(
            [sys.executable, "-c", program.replace("PORT", str(port))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def _tell(process: subprocess.Popen[str], line: str) -> None:
    """Have a program do something, and wait until it is done."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def _ask(cart: Container, port: int) -> None:
    with inside(cart), socket.create_connection(("10.77.0.2", port), 10) as client:
        client.sendall(bytes(31))
        receive(client, 31)


def test_older(place, port, start_agent, tmp_path: Path) -> None:
    """Connections that are older than the agent, or than the one that was killed, end with their process, direction and all their bytes; the time that nobody watched is told."""
    cart, web, *_ = place
    state = ("--observe", "--state", str(tmp_path / "kept"))
    server = _python_in(
        web,
        "import socket, threading\n"
        "def serve(end):\n"
        "    while end.recv(4096): pass\n"
        "    end.close()\n"
        "listener = socket.create_server(('10.77.0.2', PORT)); print('ready', flush=True)\n"
        "for _ in range(2): threading.Thread(target=serve, args=listener.accept()[:1]).start()\n",
        port,
    )
    client = _python_in(
        cart,
        "import socket, sys\n"
        "ends = []\n"
        "for line in sys.stdin:\n"
        "    what, _, size = line.partition(' ')\n"
        "    if what == 'connect': ends.append(socket.create_connection(('10.77.0.2', PORT), 10))\n"
        "    ends[-1].sendall(bytes(int(size)))\n"
        "    print('done', flush=True)\n",
        port,
    )
    with server, client:
        assert server.stdout
        assert server.stdout.readline() == "ready\n"
        _tell(client, "connect 37")
        first = start_agent(*state)
        began(first)
        _tell(client, "connect 41")
        begun = {("cart-0", "egress"), ("web-0", "ingress")}
        expect(
            Asked(first), port, Counter({(*each, "tcp", 4, "begun", "forwarded", "none", 0, 0): 1 for each in begun})
        )
        first.stop(signal.SIGKILL)
        _tell(client, "send 43")
        second = start_agent(*state)
        began(second)
        assert client.stdin
        client.stdin.close()
    rows = expect(
        Asked(second),
        port,
        Counter(
            {
                ("cart-0", "egress", "tcp", 4, "ended", "forwarded", "closed", 37, 0): 1,
                ("web-0", "ingress", "tcp", 4, "ended", "forwarded", "closed", 0, 37): 1,
                ("cart-0", "egress", "tcp", 4, "ended", "forwarded", "closed", 84, 0): 1,
                ("web-0", "ingress", "tcp", 4, "ended", "forwarded", "closed", 0, 84): 1,
            }
        ),
        type="ended",
    )
    assert {(row["direction"], row["pid"], row["duration"]) for row in rows} == {
        ("egress", client.pid, None),
        ("ingress", server.pid, None),
    }
    done = run_cli("observe", "--agent", second.address, "--all", "--strict", *OURS)
    assert done.returncode == 3, done.stderr
    assert "not seen from" in done.stderr
