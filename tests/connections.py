"""TCP connections over loopback, for tests that watch them: python -m tests.connections KIND [FILE], then "done".

KIND: held        3, for HELD_SECONDS each
      reset       7 that this end resets with SO_LINGER
      made        5 that are closed in order
      older       3 closed in order, 5 reset by this end, once FILE is there, which is after they were made
      mptcp       3 of MPTCP, in which the client sends 11 bytes, closed in order
      refused     of each of REFUSED so many that an ICMP error answers before connect(2) returns; some do not ask for it
      fast        1 that is accepted by TCP Fast Open before its handshake is over
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from tests.tun import ACK, IFF_NO_PI, IFF_TUN, RST, SYN, TCP, TUNSETIFF, wrap

HELD_SECONDS = 0.7
#: How many, to which address, how iptables rejects them, with which error.
REFUSED = (
    (7, "10.8.0.1", "icmp-port-unreachable", errno.ECONNREFUSED),
    (5, "10.8.0.2", "icmp-host-unreachable", errno.EHOSTUNREACH),
    (3, "10.8.0.3", "icmp-net-unreachable", errno.ENETUNREACH),
    (11, "fd08::1", "icmp6-port-unreachable", errno.ECONNREFUSED),
)
ESTABLISHED = 1  # net/tcp_states.h


def pair(server: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Both ends of a new connection."""
    client = socket.create_connection(server.getsockname())
    return client, server.accept()[0]


def reset_on_close(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def close(client: socket.socket, other: socket.socket) -> None:
    client.close()
    assert other.recv(1) == b""
    other.close()


def close_by_reset(client: socket.socket, other: socket.socket) -> None:
    reset_on_close(client)
    client.close()
    try:
        other.recv(1)
        raise AssertionError("no reset")
    except ConnectionResetError:
        other.close()


def mptcp() -> None:
    with socket.socket(proto=socket.IPPROTO_MPTCP) as server, socket.socket(proto=socket.IPPROTO_MPTCP) as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        other = server.accept()[0]
        client.send(b"eleven byte")
        assert other.recv(11, socket.MSG_WAITALL) == b"eleven byte"
        close(client, other)


def refused() -> None:
    """As by kube-proxy, for a Service without endpoints."""
    for command in ("addr add 10.8.0.9/16 dev lo", "addr add fd08::9/64 dev lo nodad"):
        subprocess.run(["ip", *command.split()], check=True)
    for count, address, reject, error in REFUSED:
        six = ":" in address
        rule = f"-A OUTPUT -d {address} -p tcp -j REJECT --reject-with {reject}"
        subprocess.run(["ip6tables" if six else "iptables", *rule.split()], check=True)
        for number in range(count):
            with socket.socket(socket.AF_INET6 if six else socket.AF_INET) as client:
                client.setblocking(False)
                assert client.connect_ex((address, 80)) == errno.EINPROGRESS
                if number:  # one does not ask
                    assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == error


def fast(stack: ExitStack) -> None:
    """As a peer behind a TUN device, whose last packet of the handshake comes when the server has accepted."""
    Path("/proc/sys/net/ipv4/tcp_fastopen").write_text("514")  # as server, without a cookie
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH14x", b"peers", IFF_TUN | IFF_NO_PI))
    for command in ("link set peers up", "addr add 10.9.0.1/24 dev peers"):
        subprocess.run(["ip", *command.split()], check=True)
    server = stack.enter_context(socket.create_server(("10.9.0.1", 7000)))
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
    peer, here = socket.inet_aton("10.9.0.9"), socket.inet_aton("10.9.0.1")

    def send(seq: int, ack: int, flags: int, data: bytes = b"") -> None:
        head = struct.pack("!HHIIBBHHH", 5555, 7000, seq, ack, 5 << 4, flags, 65535, 0, 0)
        os.write(tun, wrap(peer, here, TCP, head + data, 16))

    send(1000, 0, SYN, b"hello")
    other = stack.enter_context(server.accept()[0])
    state = other.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    assert state != ESTABLISHED, "accepted too late"
    while True:
        packet = os.read(tun, 65536)
        if packet[0] >> 4 == 4 and packet[9] == TCP and packet[33] & (SYN | ACK) == SYN | ACK:
            break
    (seq,) = struct.unpack_from("!I", packet, 24)
    send(1006, seq + 1 & 0xFFFFFFFF, ACK)
    while other.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED:
        time.sleep(0.01)
    assert other.recv(100) == b"hello"
    send(1006, seq + 1 & 0xFFFFFFFF, RST | ACK)
    try:
        other.recv(1)
        raise AssertionError("no reset")
    except ConnectionResetError:
        pass


def main(kind: str, file: str = "") -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with ExitStack() as stack:
        if kind == "fast":
            fast(stack)
        elif kind == "refused":
            refused()
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        if kind == "held":
            for _ in range(3):
                ends = pair(server)
                time.sleep(HELD_SECONDS)
                close(*ends)
        elif kind == "reset":
            for _ in range(7):
                close_by_reset(*pair(server))
        elif kind == "made":
            for _ in range(5):
                close(*pair(server))
        elif kind == "mptcp":
            for _ in range(3):
                mptcp()
        elif kind == "older":
            pairs = [pair(server) for _ in range(8)]
            Path(file).with_suffix(".made").touch()
            while not Path(file).exists():
                time.sleep(0.01)
            for ends in pairs[:3]:
                close(*ends)
            for ends in pairs[3:]:
                close_by_reset(*ends)
    print("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
