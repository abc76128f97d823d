"""snisnoop and udpsnoop beside tshark: both read the same packets of a container's loopback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.conftest import Cli, events, wait_until
from tests.dns_mix import END
from tests.kernel.test_dnssnoop_beside import captured
from tests.live import start_python_in

GADGETS = {"tls": "snisnoop", "udp": "udpsnoop"}
HELLOS = ("tcp.srcport", "tcp.dstport", "tls.handshake.extensions_server_name", "tls.handshake.extensions_alpn_str",
          "_ws.malformed")  # fmt: skip
DATAGRAMS = ("udp.srcport", "udp.dstport", "udp.length")
#: The last datagram goes to this port; what stands before the data of each.
MARK, HEADER_BYTES = 9, 8
SEND = f"import socket; socket.socket(type=socket.SOCK_DGRAM).sendto({END!r}, ('127.0.0.1', {MARK}))"
#: A protocol that a client names to see whether servers mind: RFC 8701. Its two bytes, as tshark has them.
GREASE = "**"
Ports = tuple[int, int]


def by_tshark(file: Path, which: str, fields: tuple[str, ...]) -> Iterator[tuple[Ports, list[str]]]:
    """The ports of packets, and other fields. Ports that the kernel chose may be those of another protocol."""
    wanted = [word for field in fields for word in ("-e", field)]
    command = ["tshark", "-n", "-r", str(file), "-d", "tcp.port==1-65535,tls", "-Y", which, "-T", "fields", *wanted]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        src, dst, *rest = line.split("\t")
        yield (int(src), int(dst)), rest


def ports(row: dict[str, Any]) -> Ports:
    return row["src"]["port"], row["dst"]["port"]


def test_beside_tshark(agent, start_cli: Callable[..., Cli], make_pod, tmp_path: Path) -> None:
    """Of TLS hellos, however they are cut, I see the names and protocols that tshark sees, and of UDP conversations its
    bytes and datagrams each way.
    """
    container, file = make_pod("shop", "tls-0").container("app", "/bin/sleep", "600"), tmp_path / "packets.pcap"
    with captured(container, file, "lo"):
        cli = start_cli("story", "--agent", agent.address, "--kinds", ",".join(GADGETS), "-p", "tls-0", "-o", "json")
        started = lambda: all(f"{name}: started" in agent.log.read_text() for name in GADGETS.values())  # noqa: E731
        wait_until(started, "the story's start")
        for module, what in (("tests.tls", "run"), ("tests.datagrams", "closed")):
            with start_python_in(container, module, what) as process:
                assert process.communicate(timeout=60)[0] == "done\n"
        subprocess.run(["nsenter", f"--net=/proc/{container.pid}/ns/net", sys.executable, "-c", SEND], check=True)
    out, err = cli.finish()
    assert "nothing lost" in err, err
    rows = events(out)

    hellos = {ports(row): row for row in rows if row["kind"] == "tls"}
    whole = {at: (row["name"], row["alpn"]) for at, row in hellos.items() if row["state"] == "whole"}
    theirs = {
        at: (name, alpn, malformed) for at, (name, alpn, malformed) in by_tshark(file, "tls.handshake.type==1", HELLOS)
    }
    read = {
        at: (name, ", ".join(each for each in alpn.split(",") if each != GREASE))
        for at, (name, alpn, _) in theirs.items()
    }
    assert {at: read.get(at) for at in whole} == whole
    assert len(whole) > 80
    malformed = {at for at, row in hellos.items() if row["state"] == "malformed" and row["name"]}
    assert {at for at, (*_, why) in theirs.items() if why} == malformed != set()

    sent: dict[Ports, list[int]] = {}
    for at, (length,) in by_tshark(file, "udp", DATAGRAMS):
        if MARK not in at:
            sent.setdefault(at, []).append(int(length) - HEADER_BYTES)
    said = {at: (sum(sizes), len(sizes)) for at, sizes in sent.items()}
    ends = [row for row in rows if row["kind"] == "udp" and row["operation"] == "end"]
    assert {ports(row): (row["sent"], row["packets_sent"]) for row in ends} == said
    assert {ports(row)[::-1]: (row["received"], row["packets_received"]) for row in ends} == said
    assert len(ends) == len(said) > 0
