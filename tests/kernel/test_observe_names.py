"""The names of the flow log on this kernel: which a connection was made for, by DNS and by TLS."""

from __future__ import annotations

import socket
from collections import Counter
from typing import Any

from tests import tls
from tests.conftest import wait_until
from tests.dns import NXDOMAIN, encode
from tests.dns_mix import AAAA, CNAME, NO_QUESTIONS, A
from tests.kernel.flows import inside
from tests.kernel.observing import answer, attempt, connected, expect, place, port, question, receive, resolve, talk

__all__ = ["place", "port"]  # fixtures


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
