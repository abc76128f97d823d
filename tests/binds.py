"""Addresses that are held, or tried in vain: python -m tests.binds hold|pass|leave|try ADDRESS…

An address is PROTOCOL/IP/PORT. hold: binds and listens. pass: as hold, but a child alone has the sockets in the end.
leave: a connection to each was closed, and the port waits for what may come late. All of these say "ready" and stay until
their input ends. try: COUNT/PROTOCOL/IP/PORT, so often it is bound without success.
"""

from __future__ import annotations

import os
import socket
import sys


def make(protocol: str, ip: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    made = socket.socket(family, socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM)
    if protocol == "tcp6only":
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return made


def hold(address: str) -> socket.socket:
    protocol, ip, port = address.split("/")
    made = make(protocol, ip)
    made.bind((ip, int(port)))
    if protocol != "udp":
        made.listen()
    return made


def leave(address: str) -> None:
    with hold(address) as listens, socket.create_connection(listens.getsockname()) as client:
        listens.accept()[0].close()
        client.recv(1)


def stay() -> None:
    print("ready", flush=True)
    sys.stdin.read()


def tried(address: str) -> None:
    count, protocol, ip, port = address.split("/")
    for _ in range(int(count)):
        with make(protocol, ip) as made:
            try:
                made.bind((ip, int(port)))
            except OSError:
                continue
            sys.exit(f"{address} is free")


if __name__ == "__main__":
    way, *addresses = sys.argv[1:]
    if way == "try":
        for each in addresses:
            tried(each)
        print("done", flush=True)
    elif way == "leave":
        for each in addresses:
            leave(each)
        stay()
    else:
        held = [hold(each) for each in addresses]
        if way == "pass" and (child := os.fork()):
            for passed in held:
                passed.close()
            os.waitpid(child, 0)
        else:
            stay()
