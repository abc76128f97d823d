"""The flow log on this kernel: what became of each connection between two containers, as users are shown it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import events, run_cli, wait_until
from tests.kernel.flows import inside
from tests.kernel.observing import (
    PATIENCE_SECONDS,
    attempt,
    command,
    connected,
    expect,
    place,
    port,
    receive,
    rule,
    talk,
)
from tests.pods import Container
from tests.prometheus import check, scraping
from tests.tun import IFF_NO_PI, IFF_TUN, TUNSETIFF

__all__ = ["place", "port"]  # fixtures


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
