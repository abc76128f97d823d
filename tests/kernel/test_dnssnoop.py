"""dnssnoop on this kernel: every question and every answer at both ends, with what it says and how long it took."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable

import pytest

from tests.conftest import Cli, events, wait_until
from tests.dns import ADDRESSES, APART, BY_TCP, BY_UDP, IN_PIECES, MANY, NO_NAME, SILENT, TOGETHER
from tests.live import rows_of, start_json, start_python_in

#: Of cluster DNS, which no host has.
SERVICE = "10.96.0.10"


def test_exact(agent, start_cli: Callable[..., Cli], pair) -> None:
    """I see each question, each answer and each want of one over UDP, at both ends, with name, result and process."""
    cart, web = pair
    with start_python_in(web, "tests.dns", "serve", "10.77.0.2") as server:
        assert server.stdout and server.stdout.readline() == "ready\n"  # it is older than the stream
        cli = start_cli("dnssnoop", "--agent", agent.address, "-o", "json")
        wait_until(lambda: "dnssnoop: started" in agent.log.read_text(), "the stream's start")
        with start_python_in(cart, "tests.dns", "ask", "10.77.0.2") as client:
            assert client.communicate(timeout=60)[0] == "done\n"
        assert server.wait(60) == 0
    out, err = cli.finish()
    assert "nothing lost" in err, err
    rows = [row for row in events(out) if row["pod"] in ("cart-0", "web-0")]

    keys = ("pod", "message", "name", "type", "rcode", "addresses")
    found = Counter((*(row[key] for key in keys), row["latency"] is None) for row in rows if row["name"] != MANY)
    each = {
        ("question", ADDRESSES, "A", None, "", True): 7,
        ("answer", ADDRESSES, "A", "NOERROR", "10.0.0.1, 10.0.0.2", False): 7,
        ("question", NO_NAME, "AAAA", None, "", True): 5,
        ("answer", NO_NAME, "AAAA", "NXDOMAIN", "", False): 5,
        ("question", SILENT, "HTTPS", None, "", True): 3,
        ("no answer", SILENT, "HTTPS", None, "", False): 3,
    }
    assert found == {(pod, *key): count for pod in ("cart-0", "web-0") for key, count in each.items()}
    many = [row["addresses"] for row in rows if row["name"] == MANY and row["message"] == "answer"]
    assert len(many) == 2
    assert all(text.startswith("fd00::1, ") and text.endswith(", …") for text in many)
    ends = {(row["pod"], row["pid"], row["src"]["addr"]) for row in rows}
    assert ends == {("cart-0", client.pid, "10.77.0.1"), ("web-0", server.pid, "10.77.0.2")}
    assert {row["dst"]["port"] for row in rows if row["pod"] == "cart-0"} == {53}
    assert {(row["server"]["addr"], row["server"]["port"], row["protocol"]) for row in rows} == {
        ("10.77.0.2", 53, "udp")
    }
    assert all(row["latency"] >= 5e9 for row in rows if row["message"] == "no answer")
    # the client's latency has the server's in it
    for number in {row["id"] for row in rows if row["message"] == "answer"}:
        took = {row["pod"]: row["latency"] for row in rows if row["id"] == number and row["message"] == "answer"}
        assert 0 < took["web-0"] < took["cart-0"]


@pytest.mark.parametrize(("way", "port"), [("ask", 53), ("ask", 5353), ("ask-any", 53)])
def test_service_address(agent, start_cli: Callable[..., Cli], pair, way: str, port: int) -> None:
    """Where NAT rewrites a service's address to a pod's, also with another port, I see each answer with its question's
    latency, by the address that was asked, and no false want of an answer.
    """
    cart, web = pair
    network = ["nsenter", f"--net=/proc/{cart.pid}/ns/net"]
    rule = f"-t nat -A OUTPUT -p udp -d {SERVICE} --dport 53 -j DNAT --to-destination 10.77.0.2:{port}"
    subprocess.run([*network, "ip", "route", "add", SERVICE, "via", "10.77.0.2"], check=True)
    subprocess.run([*network, "iptables", *rule.split()], check=True)
    cli = start_json(start_cli, agent, "dnssnoop", "-p", "cart-0")
    with start_python_in(web, "tests.dns", "serve", "10.77.0.2", str(port)) as server:
        assert server.stdout and server.stdout.readline() == "ready\n"
        with start_python_in(cart, "tests.dns", way, SERVICE) as client:
            assert client.communicate(timeout=60)[0] == "done\n"
        assert server.wait(60) == 0
    rows = rows_of(cli)
    assert Counter((row["message"], row["name"], row["latency"] is None) for row in rows) == {
        ("question", ADDRESSES, True): 7,
        ("answer", ADDRESSES, False): 7,
        ("question", NO_NAME, True): 5,
        ("answer", NO_NAME, False): 5,
        ("question", SILENT, True): 3,
        ("no answer", SILENT, False): 3,
        ("question", MANY, True): 1,
        ("answer", MANY, False): 1,
    }
    asked = {row["server"]["addr"] for row in rows if way == "ask" or row["message"] == "answer"}
    assert asked == {SERVICE}


def test_tcp(agent, start_cli: Callable[..., Cli], make_pod) -> None:
    """Over TCP I see each message at both ends, also of several in a segment, and of one in several segments."""
    container = make_pod("shop", "cart-0").container("app", "/bin/sleep", "600")
    cli = start_json(start_cli, agent, "dnssnoop", "-p", "cart-0")
    with start_python_in(container, "tests.dns", "tcp", "127.0.0.1") as process:
        assert process.communicate(timeout=60)[0] == "done\n"
    rows = rows_of(cli)
    keys = ("message", "name", "type", "rcode", "protocol")
    assert Counter(tuple(row[key] for key in keys) for row in rows) == {
        ("question", ADDRESSES, "A", None, "tcp"): 2 * TOGETHER,
        ("answer", ADDRESSES, "A", "NOERROR", "tcp"): 2 * TOGETHER,
        ("question", NO_NAME, "AAAA", None, "tcp"): 2 * APART,
        ("answer", NO_NAME, "AAAA", "NXDOMAIN", "tcp"): 2 * APART,
        ("question", MANY, "AAAA", None, "tcp"): 2 * IN_PIECES,
        ("answer", MANY, "AAAA", "NOERROR", "tcp"): 2 * IN_PIECES,
        ("question", SILENT, "HTTPS", None, "tcp"): 2,
        ("no answer", SILENT, "HTTPS", None, "tcp"): 2,
    }
    assert all((row["latency"] is None) == (row["message"] == "question") for row in rows)
    assert {(row["server"]["addr"], row["server"]["port"], row["pid"]) for row in rows} == {
        ("127.0.0.1", 53, process.pid)
    }


@pytest.mark.parametrize(("options", "port"), [([], 53), (["--port", "5353"], 5353)], ids=["usual", "other"])
def test_port_and_family(agent, start_cli: Callable[..., Cli], make_pod, options: list[str], port: int) -> None:
    """I see what is asked over IPv6 as over IPv4, at the port that I name, or 53, and at no other."""
    container = make_pod("shop", "cart-0").container("app", "/bin/sleep", "600")
    cli = start_json(start_cli, agent, "dnssnoop", "-p", "cart-0", *options)
    families = ("127.0.0.1", "::1")
    for address, at in ((address, at) for address in families for at in (53, 5353)):
        with start_python_in(container, "tests.dns", "both", address, str(at)) as process:
            assert process.communicate(timeout=60)[0] == "done\n"
    rows = rows_of(cli)
    keys = ("protocol", "message", "name", "rcode")
    found = Counter((*(row[key] for key in keys), row["server"]["addr"], row["server"]["port"]) for row in rows)
    each = {
        ("udp", "question", ADDRESSES, None): 2 * BY_UDP,
        ("udp", "answer", ADDRESSES, "NOERROR"): 2 * BY_UDP,
        ("tcp", "question", NO_NAME, None): 2 * BY_TCP,
        ("tcp", "answer", NO_NAME, "NXDOMAIN"): 2 * BY_TCP,
    }
    assert found == {(*key, address, port): count for key, count in each.items() for address in families}
    assert all((row["latency"] is None) == (row["message"] == "question") for row in rows)


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        (["--failed"], {("answer", NO_NAME): 2 * APART, ("no answer", SILENT): 2}),
        (["--slow", "1h"], {("no answer", SILENT): 2}),
        (["--slow", "1h", "--failed"], {("answer", NO_NAME): 2 * APART, ("no answer", SILENT): 2}),
    ],
    ids=["failed", "slow", "both"],
)
def test_only_what_is_wrong(agent, start_cli, make_pod, options: list[str], seen: dict[tuple[str, str], int]) -> None:
    """With --failed I see the answers that are no success, with --slow those that took long, and always no answers."""
    container = make_pod("shop", "cart-0").container("app", "/bin/sleep", "600")
    cli = start_json(start_cli, agent, "dnssnoop", "-p", "cart-0", *options)
    with start_python_in(container, "tests.dns", "tcp", "127.0.0.1") as process:
        assert process.communicate(timeout=60)[0] == "done\n"
    assert Counter((row["message"], row["name"]) for row in rows_of(cli)) == seen


def test_filters(agent, start_cli: Callable[..., Cli], pair) -> None:
    """I choose by name and result, and see no other namespace's."""
    cart, web = pair
    with start_python_in(web, "tests.dns", "serve", "10.77.0.2") as server:
        assert server.stdout and server.stdout.readline() == "ready\n"
        condition = "rcode==NXDOMAIN and name==*.cluster.local"
        cli = start_cli("dnssnoop", "--agent", agent.address, "-o", "json", "-n", "shop", "--filter", condition)
        wait_until(lambda: "dnssnoop: started" in agent.log.read_text(), "the stream's start")
        with start_python_in(cart, "tests.dns", "ask", "10.77.0.2") as client:
            assert client.communicate(timeout=60)[0] == "done\n"
        assert server.wait(60) == 0
    rows = events(cli.finish()[0])
    assert [(row["pod"], row["name"]) for row in rows] == [("cart-0", NO_NAME)] * 5
