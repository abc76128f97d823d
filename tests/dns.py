"""DNS over UDP between two processes, for tests that watch it: python -m tests.dns serve|ask ADDRESS.

serve says "ready", answers what `ask` asks, and ends when it is asked nothing that is DNS. ask asks, and says "done":
  ADDRESSES  7 times, of type A: two addresses
  NO_NAME    5 times, of type AAAA: there is no such name
  SILENT     3 times, of type HTTPS: nobody answers
  MANY       once, of type AAAA: 40 addresses
"""

from __future__ import annotations

import socket
import struct
import sys

ADDRESSES, NO_NAME = "api.example.com", "api.example.com.shop.svc.cluster.local"
SILENT, MANY = "nobody.answers", "many"
A, AAAA, HTTPS = 1, 28, 65
PORT, MOST = 53, 2000
NOERROR, NXDOMAIN = 0, 3
QUESTION, ANSWER = 0x0100, 0x8180
ANSWERS = {
    ADDRESSES: (NOERROR, ["10.0.0.1", "10.0.0.2"]),
    NO_NAME: (NXDOMAIN, []),
    MANY: (NOERROR, ["fd00::1"] * 40),
}


def encode(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def answer(asked: bytes, rcode: int, addresses: list[str]) -> bytes:
    """Its records name what was asked for by a pointer."""
    head = asked[:2] + struct.pack("!HHHHH", ANSWER | rcode, 1, len(addresses), 0, 0)
    records = []
    for address in addresses:
        family, kind = (socket.AF_INET6, AAAA) if ":" in address else (socket.AF_INET, A)
        data = socket.inet_pton(family, address)
        records.append(struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(data)) + data)
    return head + asked[12:] + b"".join(records)


def serve(address: str) -> None:
    names = {encode(name): said for name, said in ANSWERS.items()}
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind((address, PORT))
        print("ready", flush=True)
        while len((received := server.recvfrom(MOST))[0]) > 12:
            asked, peer = received
            if said := names.get(asked[12:-4]):
                server.sendto(answer(asked, *said), peer)


def ask(address: str) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.connect((address, PORT))
        number = 0
        for times, name, kind in ((7, ADDRESSES, A), (5, NO_NAME, AAAA), (3, SILENT, HTTPS), (1, MANY, AAAA)):
            for _ in range(times):
                head = struct.pack("!HHHHHH", number, QUESTION, 1, 0, 0, 0)
                client.send(head + encode(name) + struct.pack("!HH", kind, 1))
                if name in ANSWERS:
                    assert client.recv(MOST)[:2] == head[:2]
                number += 1
        client.send(b"no DNS")
    print("done", flush=True)


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](sys.argv[2])
