"""Connections, packets and names."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import struct
import subprocess
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from agent.bpf.libbpf import kernel_has
from gadget.kinds.times import DURATION_UNKNOWN
from tests import datagrams, dns, losses, tls
from tests.vm.machine import Core, Stream, container, make_network

HERE = "10.9.0.1"  # not 127.0.0.1, with which nobody else is talked to


def tcpconnect(core: Core) -> None:
    """Of connects that succeed and that are refused I see exactly as many as happened, over IPv4 and IPv6."""
    wanted = {
        ("127.0.0.1", "ok", None): 13,
        ("127.0.0.1", "refused", "ECONNREFUSED"): 7,
        ("::1", "ok", None): 5,
        ("::1", "refused", "ECONNREFUSED"): 3,
    }
    with ExitStack() as stack:
        places: dict[tuple[str, str], Any] = {}
        for address, result, _ in wanted:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            place = stack.enter_context(socket.socket(family))
            place.bind((address, 0))
            if result == "ok":
                place.listen(64)
            places[address, result] = place.getsockname()

        def connects() -> None:
            for (address, result, _), count in wanted.items():
                for _ in range(count):
                    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
                        # closed by reset: else timers, for which nobody waits, may come while a program runs
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        code = client.connect_ex(places[address, result])
                        assert code == (0 if result == "ok" else errno.ECONNREFUSED)

        with Stream(core.tracker, "tcpconnect") as stream, container() as app:
            core.call(app, connects)
            core.work(app, "trapped")
            rows = stream.rows()
    trapped = [row for row in rows if row["error"] == "EPERM"]
    assert [(row["dst"].addr, row["result"]) for row in trapped] == [("127.0.0.1", "failed")] * 23, trapped
    rows = [row for row in rows if row["error"] != "EPERM"]
    assert Counter((row["dst"].addr, row["result"], row["error"]) for row in rows) == wanted, rows
    assert all(row["dst"].port == places[row["dst"].addr, row["result"]][1] for row in rows)
    assert all(row["latency"] > 0 and row["src"].addr == row["dst"].addr for row in rows)


def tcptracer(core: Core) -> None:
    """Of each connection I see connect, accept and the close of both ends, with exactly the bytes of each direction."""
    Path("/tmp/go").touch()
    with Stream(core.tracker, "tcptracer") as stream, container() as app:
        core.work(app, "traffic")
        core.work(app, "trapped")
        rows = stream.rows()
    kinds = Counter((row["operation"], row["version"]) for row in rows)
    assert kinds == {
        ("connect", 6): 13, ("accept", 6): 13, ("close", 6): 26, ("connect", 4): 88, ("accept", 4): 88, ("close", 4): 176,
    }, kinds  # fmt: skip
    closes = Counter((row["sent"], row["received"]) for row in rows if row["operation"] == "close")
    assert closes == Counter([(10 * n, 3 * n) for n in range(1, 102)] + [(3 * n, 10 * n) for n in range(1, 102)])


def bindsnoop(core: Core) -> None:
    """Of binds that succeed and of each way to fail I see exactly as many as happened."""
    with Stream(core.tracker, "bindsnoop") as stream, container() as app:
        core.work(app, "binds")
        core.work(app, "trapped")
        rows = stream.rows()
    seen = Counter((row["protocol"], row["address"].addr, row["options"], row["error"]) for row in rows)
    assert seen == {
        ("tcp", "0.0.0.0", "SO_REUSEADDR", None): 13,
        ("udp", "::", "SO_REUSEPORT|IPV6_V6ONLY", None): 11,
        ("tcp", "0.0.0.0", "0", None): 18,
        ("tcp", "0.0.0.0", "0", "EADDRINUSE"): 7,
        ("tcp", "192.0.2.1", "0", "EADDRNOTAVAIL"): 5,
        ("tcp", "0.0.0.0", "0", "EINVAL"): 17,
        ("unknown", "0.0.0.0", "0", "ENOTSOCK"): 19,
        ("unknown", "0.0.0.0", "0", "EBADF"): 2,
        ("tcp", "127.0.0.1", "0", "EPERM"): 17,
    }, seen
    who = {(row["hpid"] == row["pid"], row["hcomm"]) for row in rows if row["error"] == "EADDRINUSE"}
    assert who == {(True, "workload")}, who


def listensnoop(core: Core) -> None:
    """Of listens that succeed and of each way to fail I see exactly as many as happened."""
    with Stream(core.tracker, "listensnoop") as stream, container() as app:
        core.work(app, "binds")
        core.work(app, "trapped")
        rows = stream.rows()
    seen = Counter((row["protocol"], row["options"], row["backlog"], row["error"]) for row in rows)
    assert seen == {
        ("tcp", "SO_REUSEADDR", 5, None): 13,
        ("udp", "SO_REUSEPORT|IPV6_V6ONLY", 5, "ENOTSUP"): 11,
        ("tcp", "0", 1 << 30, None): 3,
        ("unknown", "0", 7, "ENOTSOCK"): 19,
        ("unknown", "0", 9, "EBADF"): 2,
        ("tcp", "0", 5, "EPERM"): 19,
    }, seen


def tcptop(core: Core) -> None:
    """Of each connection I see at both ends exactly the bytes of each direction, together as many as were sent."""
    Path("/tmp/go").touch()
    with Stream(core.tracker, "tcptop") as stream, container() as app:
        core.work(app, "traffic")
        rows = stream.rows()
    ends: dict[tuple[Any, Any], Counter[str]] = {}
    for row in rows:
        sums = ends.setdefault((row["src"], row["dst"]), Counter())
        sums.update(sent=row["sent"], received=row["received"])
    seen = Counter((each["sent"], each["received"]) for each in ends.values())
    assert seen == Counter([(10 * n, 3 * n) for n in range(1, 102)] + [(3 * n, 10 * n) for n in range(1, 102)]), seen
    assert all(row["pid"] for row in rows)


def snapshot_socket(core: Core) -> None:
    """A snapshot has each socket of a container's process, with state, ends, queues and name."""
    ready, told = os.pipe()
    with container() as app, ExitStack() as stack:
        if not (pid := os.fork()):
            with suppress(BaseException):
                (app.cgroup / "cgroup.procs").write_text("0")
                make_network()
                kept = [socket.create_server(("127.0.0.1", 8080), backlog=7)]
                kept += [socket.create_connection(("127.0.0.1", 8080)), kept[0].accept()[0]]
                kept[1].sendall(b"x" * 4711)
                kept.append(socket.create_connection(("127.0.0.1", 8080)))
                kept.append(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
                kept[-1].bind(("::1", 5353))
                kept.append(socket.socket(socket.AF_UNIX))
                kept[-1].bind("\0core")
                kept[-1].listen(3)
                os.write(told, b"x")
                signal.pause()
            os._exit(1)
        stack.callback(os.waitpid, pid, 0)
        stack.callback(os.kill, pid, signal.SIGKILL)
        os.close(told)
        assert os.read(ready, 1)
        with Stream(core.tracker, "snapshot_socket", pid=str(pid)) as stream:
            rows = stream.snapshot()
    os.close(ready)
    own = [row for row in rows if row["name"] == "@core" or row["src"].port in (8080, 5353) or row["dst"].port == 8080]
    seen = Counter((row["type"], row["state"], row["received"], row["unsent"], row["name"]) for row in own)
    assert seen == {
        ("tcp", "listen", 1, 7, ""): 1,
        ("tcp", "established", 0, 0, ""): 2,
        ("tcp", "established", 4711, 0, ""): 1,
        ("udp", "close", 0, 0, ""): 1,
        ("unix stream", "listen", 0, 3, "@core"): 1,
    }, seen
    assert {row["src"].addr for row in own if row["type"] != "unix stream"} == {"127.0.0.1", "::1"}


def dnssnoop(core: Core) -> None:
    """Of each message of DNS, also over TCP, and of each question without an answer I see both ends, with process."""

    def talk() -> None:
        make_network()
        dns.over_tcp("127.0.0.1")
        with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
            server.bind(("127.0.0.1", dns.PORT))
            client.connect(("127.0.0.1", dns.PORT))
            for number in range(7):
                client.send(dns.question(number, dns.ADDRESSES, dns.A))
                asked, peer = server.recvfrom(600)
                server.sendto(dns.answer(asked, *dns.ANSWERS[dns.ADDRESSES]), peer)
                client.recv(600)

    with Stream(core.tracker, "dnssnoop") as stream, container() as app:
        core.call(app, talk)
        rows = stream.rows()
    keys = ("protocol", "message", "name", "rcode")
    seen = Counter((*(row[key] for key in keys), row["latency"] == DURATION_UNKNOWN) for row in rows)
    each = {
        ("udp", dns.ADDRESSES, "NOERROR"): 7,
        ("tcp", dns.ADDRESSES, "NOERROR"): dns.TOGETHER,
        ("tcp", dns.NO_NAME, "NXDOMAIN"): dns.APART,
        ("tcp", dns.MANY, "NOERROR"): dns.IN_PIECES,
    }
    assert seen == {
        **{(protocol, "question", name, None, True): 2 * count for (protocol, name, _), count in each.items()},
        **{(protocol, "answer", name, rcode, False): 2 * count for (protocol, name, rcode), count in each.items()},
        ("tcp", "question", dns.SILENT, None, True): 2,
        **({("tcp", "no answer", dns.SILENT, None, False): 2} if kernel_has("bpf_timer_start") else {}),
    }, seen
    addresses = {row["addresses"] for row in rows if row["name"] == dns.ADDRESSES and row["message"] == "answer"}
    assert addresses == {"10.0.0.1, 10.0.0.2"}, addresses
    assert len({row["pid"] for row in rows}) == 1 and rows[0]["pid"], rows


def snisnoop(core: Core) -> None:
    """Of hellos of TLS, whole, in pieces or damaged, I see each once, with what it says and its process."""

    def talk() -> None:
        make_network()
        tls.run()

    with Stream(core.tracker, "snisnoop") as stream, container() as app:
        core.call(app, talk)
        rows = stream.rows()
    seen = Counter(tls.seen(row, lambda end: end.addr) for row in rows)
    assert seen == tls.rows(), (seen - tls.rows(), tls.rows() - seen)
    assert len({row["pid"] for row in rows}) == 1 and rows[0]["pid"], rows


def tcpretrans(core: Core) -> None:
    """Of segments that are sent again I see exactly as many as TCP counts, with why, state and process."""
    counts = Path("/tmp/counts")

    def talk() -> None:
        make_network()
        losses.run(counts)

    with Stream(core.tracker, "tcpretrans") as stream, container() as app:
        core.call(app, talk)
        rows = stream.rows()
    told = json.loads(counts.read_text())
    seen = Counter((row["reason"], row["state"], row["bytes"]) for row in rows)
    assert seen["rto", "syn sent", 0] == sum(told["syn"]), (told, seen)
    assert seen["syn ack", "syn recv", 0] == losses.SYN_ACK, (told, seen)
    data = {kind: seen[kind, "established", losses.LOST] for kind in ("tlp", "rto", "fast", "loss")}
    assert sum(data.values()) == sum(told["timeouts"]) + sum(told["fast"]), (told, seen)
    assert data["tlp"] >= losses.TIMEOUTS and data["fast"] >= losses.FAST and data["rto"] >= 2 * losses.TIMEOUTS, seen
    known = kernel_has("bpf_sock_from_file")  # came with what tells whose a socket is
    assert len({row["pid"] for row in rows}) == 1 and bool(rows[0]["pid"]) == known, rows


def tcpdrop(core: Core) -> None:
    """Of packets that a socket does not take I see exactly as many as TCP had to send again, with why and where."""
    counts = Path("/tmp/counts")

    def talk() -> None:
        make_network()
        losses.run(counts)

    with Stream(core.tracker, "tcpdrop", host="true") as stream, container() as app:
        core.call(app, talk)
        rows = [row for row in stream.rows() if row["bytes"] == losses.LOST]
    told = json.loads(counts.read_text())
    assert len(rows) == sum(told["timeouts"]) + sum(told["fast"]), (told, rows)
    reasons = {(row["reason"], row["function"], row["protocol"], row["flags"]) for row in rows}
    reason, function, *others = next(iter(reasons))
    assert (len(reasons), *others) == (1, "tcp", "PSH|ACK"), reasons
    if kernel_has("bpf_strncmp"):  # came with reasons
        assert reason in ("SOCKET_FILTER", "TCP_FILTER") and function == "tcp_v4_rcv", reasons
    whose = {(row["pod"], row["state"]) for row in rows}
    assert whose in ({("cart-0", "established")}, {("", "unknown")}), whose


def udpsnoop(core: Core) -> None:
    """Of each conversation over UDP I see begin and end, at both ends, with why, and bytes and datagrams each way."""

    def talk() -> None:
        make_network()
        datagrams.talk()

    with Stream(core.tracker, "udpsnoop", silence=datagrams.SILENCE) as stream, container() as app:
        core.call(app, talk)
        rows = stream.rows()
    assert Counter(map(datagrams.seen, rows)) == datagrams.rows(), rows
    assert len({row["pid"] for row in rows}) == 1 and rows[0]["pid"], rows


def observe(core: Core) -> None:
    """Of flows I see what became of each, at both ends: made and closed, refused, datagrams; with bytes and process."""

    def talk() -> None:
        make_network()
        subprocess.run(["ip", "addr", "replace", f"{HERE}/32", "dev", "lo"], check=True)
        with socket.create_server((HERE, 8080)) as listener:
            client = socket.create_connection((HERE, 8080))
            server = listener.accept()[0]
            client.sendall(bytes(1009))
            while len(server.recv(2000, socket.MSG_PEEK)) < 1009:
                pass
            client.close()
            server.recv(2000)
            assert server.recv(1) == b""
            server.close()
        for _ in range(3):
            assert socket.socket().connect_ex((HERE, 8081)) == errno.ECONNREFUSED
        with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as other:
            other.bind((HERE, 8082))
            one.sendto(bytes(19), (HERE, 8082))
            other.sendto(bytes(23), other.recvfrom(100)[1])
            one.recv(100)

    with Stream(core.tracker, "observe") as stream, container() as app:
        core.call(app, talk)
        rows = stream.rows()
    keys = ("protocol", "direction", "type", "verdict", "sent", "received")
    assert Counter(tuple(row[key] for key in keys) for row in rows) == {
        ("tcp", "egress", "begun", "forwarded", 0, 0): 1,
        ("tcp", "ingress", "begun", "forwarded", 0, 0): 1,
        ("tcp", "egress", "ended", "forwarded", 1009, 0): 1,
        ("tcp", "ingress", "ended", "forwarded", 0, 1009): 1,
        ("tcp", "egress", "failed", "refused", 0, 0): 3,
        ("udp", "egress", "begun", "forwarded", 19, 0): 1,
        ("udp", "ingress", "begun", "forwarded", 0, 19): 1,
        ("udp", "egress", "ended", "forwarded", 19, 23): 1,
        ("udp", "ingress", "ended", "forwarded", 23, 19): 1,
    }, rows
    assert len({row["pid"] for row in rows}) == 1 and rows[0]["pid"], rows
