"""DNS for tests that watch it: over UDP between two processes, python -m tests.dns serve|ask|ask-any ADDRESS [PORT]; over
TCP, in one process, python -m tests.dns tcp ADDRESS; over both, python -m tests.dns both ADDRESS PORT.

serve says "ready", answers what `ask` asks, and ends when it is asked nothing that is DNS. ask asks, by a socket that is
connected, ask-any by one that is not, and says "done":
  ADDRESSES  7 times, of type A: two addresses
  NO_NAME    5 times, of type AAAA: there is no such name
  SILENT     3 times, of type HTTPS: nobody answers, for which it waits
  MANY       once, of type AAAA: 40 addresses
tcp asks by one connection, and says "done":
  ADDRESSES  TOGETHER times, two questions in a segment, and both answers
  NO_NAME    APART times, the length in a segment of its own
  MANY       IN_PIECES times, the answers in many segments, one of which has the end of one and the begin of the next
  SILENT     once: nobody answers, for which it waits
both asks, and says "done":
  ADDRESSES  BY_UDP times over UDP
  NO_NAME    BY_TCP times over TCP
"""

from __future__ import annotations

import socket
import struct
import sys

ADDRESSES, NO_NAME = "api.example.com", "api.example.com.shop.svc.cluster.local"
SILENT, MANY = "nobody.answers", "many"
A, AAAA, HTTPS = 1, 28, 65
PORT, MOST = 53, 2000
#: So long it waits for an answer, in seconds, longer than dnssnoop.
PATIENCE = 8
TOGETHER, APART, IN_PIECES = 6, 5, 2
BY_UDP, BY_TCP = 7, 5
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


def serve(address: str, port: int = PORT) -> None:
    names = {encode(name): said for name, said in ANSWERS.items()}
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind((address, port))
        print("ready", flush=True)
        while len((received := server.recvfrom(MOST))[0]) > 12:
            asked, peer = received
            if said := names.get(asked[12:-4]):
                server.sendto(answer(asked, *said), peer)


def ask(address: str, port: int = PORT, *, connected: bool = True) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        if connected:
            client.connect((address, port))
        number = 0
        for times, name, kind in ((7, ADDRESSES, A), (5, NO_NAME, AAAA), (3, SILENT, HTTPS), (1, MANY, AAAA)):
            for _ in range(times):
                head = struct.pack("!HHHHHH", number, QUESTION, 1, 0, 0, 0)
                message = head + encode(name) + struct.pack("!HH", kind, 1)
                client.send(message) if connected else client.sendto(message, (address, port))
                if name in ANSWERS:
                    assert client.recv(MOST)[:2] == head[:2]
                number += 1
        wait_in_vain(client)
        client.send(b"no DNS") if connected else client.sendto(b"no DNS", (address, port))


def ask_any(address: str, port: int = PORT) -> None:
    ask(address, port, connected=False)


def wait_in_vain(client: socket.socket) -> None:
    client.settimeout(PATIENCE)
    try:
        raise AssertionError(client.recv(MOST))
    except TimeoutError:
        pass


def framed(message: bytes) -> bytes:
    return struct.pack("!H", len(message)) + message


def question(number: int, name: str, kind: int) -> bytes:
    return struct.pack("!HHHHHH", number, QUESTION, 1, 0, 0, 0) + encode(name) + struct.pack("!HH", kind, 1)


def over_tcp(address: str) -> None:
    """Both ends' every send is a segment, as each is read before the next one."""
    with socket.create_server((address, PORT)) as listens, socket.create_connection((address, PORT)) as client:
        server = listens.accept()[0]
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def pass_on(end: socket.socket, other: socket.socket, data: bytes) -> None:
            end.sendall(data)
            left = len(data)
            while left:
                left -= len(other.recv(left))

        number = 0
        for _ in range(TOGETHER // 2):
            asked = [question(number + each, ADDRESSES, A) for each in (1, 2)]
            number += 2
            pass_on(client, server, b"".join(map(framed, asked)))
            pass_on(server, client, b"".join(framed(answer(each, *ANSWERS[ADDRESSES])) for each in asked))
        for _ in range(APART):
            number += 1
            asked_once = question(number, NO_NAME, AAAA)
            for end, other, message in (
                (client, server, asked_once),
                (server, client, answer(asked_once, *ANSWERS[NO_NAME])),
            ):
                data = framed(message)
                pass_on(end, other, data[:2])
                pass_on(end, other, data[2:])
        answers = b""
        for _ in range(IN_PIECES):
            number += 1
            pass_on(client, server, framed(question(number, MANY, AAAA)))
            answers += framed(answer(question(number, MANY, AAAA), *ANSWERS[MANY]))
        for at in range(0, len(answers), 250):
            pass_on(server, client, answers[at : at + 250])
        pass_on(client, server, framed(question(number + 1, SILENT, HTTPS)))
        wait_in_vain(client)
        server.close()


def over_both(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as server,
        socket.socket(family, socket.SOCK_DGRAM) as client,
        socket.create_server((address, port), family=family) as listens,
        socket.create_connection((address, port)) as stream,
    ):
        server.bind((address, port))
        client.connect((address, port))
        for number in range(BY_UDP):
            client.send(question(number, ADDRESSES, A))
            asked, peer = server.recvfrom(MOST)
            server.sendto(answer(asked, *ANSWERS[ADDRESSES]), peer)
            client.recv(MOST)
        accepted = listens.accept()[0]
        for number in range(BY_TCP):
            stream.sendall(framed(question(BY_UDP + number, NO_NAME, AAAA)))
            accepted.sendall(framed(answer(accepted.recv(MOST)[2:], *ANSWERS[NO_NAME])))
            stream.recv(MOST)
        accepted.close()


if __name__ == "__main__":
    what = {"serve": serve, "ask": ask, "ask-any": ask_any, "tcp": over_tcp, "both": over_both}
    what[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))
    print("done", flush=True)
