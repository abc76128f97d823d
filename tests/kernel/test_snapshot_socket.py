"""`snapshot socket`, beside what ss(8) says in the network namespace of a container."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Agent, events, run_cli
from tests.live import inside, known
from tests.pods import BareContainer

#: Sockets of each protocol and most states, over IPv4 and IPv6, some with data that nobody reads, in a network of its own.
TALKER = r"""
import os, subprocess, sys, time
from socket import *
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
os.chdir(sys.argv[1])
kept = []
for family, host in ((AF_INET, "127.0.0.1"), (AF_INET6, "::1")):
    server = create_server((host, 8080), family=family, backlog=17)
    for _ in range(3):
        one = create_connection((host, 8080))
        two = server.accept()[0]
        kept += [one, two]
    one.sendall(b"x" * 4711)
    kept[-4].shutdown(SHUT_WR)  # FIN-WAIT-2, CLOSE-WAIT
    half = create_connection((host, 8080))
    kept.append(server.accept()[0])
    half.close()  # FIN-WAIT-2, which no process has
    short = create_connection((host, 8080))
    other = server.accept()[0]
    short.close()
    other.close()  # TIME-WAIT
    kept += [server, *(create_connection((host, 8080)) for _ in range(2))]  # which are not accepted
    kept.append(udp := socket(family, SOCK_DGRAM))
    udp.bind((host, 5353))
    kept.append(other := socket(family, SOCK_DGRAM))
    other.connect((host, 5353))
    other.send(b"x" * 11)
    kept.append(socket(family, SOCK_RAW, IPPROTO_ICMP if family == AF_INET else IPPROTO_ICMPV6))
late = create_connection(("127.0.0.1", 8080))
full = create_server(("127.0.0.1", 9), backlog=0)
waits = socket()
waits.setblocking(False)
kept += [full, create_connection(("127.0.0.1", 9)), waits]
waits.connect_ex(("127.0.0.1", 9))  # SYN-SENT: there is no room for it
for name in ("stream.sock", "\0abstract", "\x1b[2Jodd"):
    kept.append(unix := socket(AF_UNIX))
    unix.bind(name)
    unix.listen(7)
kept.append(client := socket(AF_UNIX))
client.connect("\0abstract")
kept += [*socketpair(), *socketpair(AF_UNIX, SOCK_DGRAM), *socketpair(AF_UNIX, SOCK_SEQPACKET), socket(AF_NETLINK, SOCK_RAW)]
if os.fork():
    os.write(1, b"done\n")
time.sleep(600)
"""
STATES = {"listen": "LISTEN", "established": "ESTAB", "close": "UNCONN", "close wait": "CLOSE-WAIT",
          "fin wait2": "FIN-WAIT-2", "time wait": "TIME-WAIT",
          "syn sent": "SYN-SENT"}  # fmt: skip
TYPES = {"unix stream": "u_str", "unix datagram": "u_dgr", "unix seqpacket": "u_seq"}


@pytest.fixture
def talker(bare: Callable[..., BareContainer], tmp_path: Path) -> Iterator[tuple[BareContainer, int]]:
    """A container, and its first process."""
    cart = bare("shop", "cart-0")
    with inside(
        cart, "unshare", "--net", sys.executable, "-c", TALKER, str(tmp_path), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline() == b"done\n"
        yield cart, process.pid
        subprocess.run(["pkill", "-KILL", "-P", str(process.pid)], check=True)


def shown(agent: Agent, *args: str) -> list[dict[str, Any]]:
    done = run_cli("snapshot", "socket", "-n", "shop", "-o", "json", "--agent", agent.address, *args)
    assert "nothing lost" in done.stderr, done.stderr
    return events(done.stdout)


def of_ss(pid: int, *args: str) -> list[list[str]]:
    """The fields of each line of ss in the network of a process."""
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "ss", "-Hna", *args]
    return [line.split() for line in subprocess.check_output(command, text=True).splitlines()]


def end(value: dict[str, Any] | None) -> str:
    """An end of a connection as ss has it."""
    if not value or not value["port"]:
        return "*"
    return f"[{value['addr']}]:{value['port']}" if ":" in value["addr"] else f"{value['addr']}:{value['port']}"


def test_internet_sockets_are_those_of_ss(agent, talker) -> None:
    """Each TCP, UDP and raw socket of a container is there, with the state, the ends and the queues that ss tells, also without process."""
    cart, pid = talker
    known(agent, cart)
    every = shown(agent)
    rows = {row["inode"]: row for row in every if row["inode"]}
    assert {row["pid"] for row in rows.values()} == {pid}
    compared, without = set(), []
    for netid, state, received, unsent, own, other, *rest in of_ss(pid, "-tue"):
        found = re.search(r"ino:([1-9]\d*)", " ".join(rest))
        if not found:  # nobody's: not accepted yet, or let go of
            without.append((netid, state, received, unsent, own, other))
            continue
        inode = int(found[1])
        row = rows[inode]
        compared.add(inode)
        assert netid == row["type"]
        assert (STATES[row["state"]], row["received"], row["unsent"]) == (state, int(received), int(unsent)), row
        assert (end(row["src"]), end(row["dst"])) == (own, "*" if other.endswith(":*") else other)
    nobodys = [row for row in every if not row["inode"]]
    assert sorted(
        (row["type"], STATES[row["state"]], str(row["received"]), str(row["unsent"]), end(row["src"]), end(row["dst"]))
        for row in nobodys
    ) == sorted(without)
    assert {row["state"] for row in nobodys} == {"established", "fin wait2", "time wait"}
    assert {(row["pid"], row["pod"], row["netns"]) for row in nobodys} == {(0, "cart-0", every[0]["netns"])}
    assert compared == {row["inode"] for row in rows.values() if row["type"] in ("tcp", "udp")}
    assert [row["src"]["port"] for row in rows.values() if row["type"] == "raw"] == [1, 58]  # their protocols
    assert {row["state"] for row in every} == set(STATES)
    assert not [row for row in shown(agent, "--pid", str(pid)) if not row["inode"]]
    assert 4711 in {row["received"] for row in rows.values()}
    waiting = [row for row in rows.values() if (row["type"], row["state"]) == ("tcp", "listen")]
    assert [(row["received"], row["unsent"]) for row in waiting] == [(3, 17), (2, 17), (1, 0)]


def test_unix_sockets_are_those_of_ss(agent, talker) -> None:
    """Each unix socket of a process is there, with its name and which one is the other end."""
    cart, pid = talker
    known(agent, cart)
    rows = {row["inode"]: row for row in shown(agent) if row["type"].startswith("unix")}
    compared = set()
    for netid, state, _, unsent, name, inode, _, peer, *_ in of_ss(pid, "-x"):
        if row := rows.get(int(inode)):
            compared.add(int(inode))
            assert (TYPES[row["type"]], STATES[row["state"]]) == (netid, state)
            assert row["name"] == ("" if name == "*" else name.replace("^[", "\x1b"))
            assert row["peer"] == int(peer) or row["name"] == ""
            if state == "LISTEN":
                assert (
                    (row["received"], row["unsent"]) == (int(name == "@abstract"), int(unsent)) == (row["received"], 7)
                )
    assert compared == set(rows) and len(rows) == 3 + 1 + 6
    done = run_cli("snapshot", "socket", "-n", "shop", "--fields", "name", "--agent", agent.address)
    assert r"\x1b[2Jodd" in done.stdout and "\x1b" not in done.stdout


def test_from_a_pod(start_agent, talker) -> None:
    """An agent in a pod, whose pid and network namespaces are its own, sees the sockets of all others."""
    cart, _ = talker
    agent = start_agent(under=("unshare", "--pid", "--net", "--mount-proc", "--fork", "--kill-child"))
    known(agent, cart)
    rows = shown(agent, "--filter", "state==listen")
    assert len(rows) == 3 + 3
    assert len({row["netns"] for row in rows}) == 1
