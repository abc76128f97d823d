"""Who began a talk: after silences, at a start of the recorder, over every protocol."""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
import time

import pytest

from tests.kernel.flows import (
    ICMP,
    ICMPV6,
    SCTP,
    SILENCE,
    TCP,
    UDP,
    Seen,
    be_silent,
    connection,
    datagrams,
    inside,
    seen_by,
    send,
    serve,
    talk,
)


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
