"""Questions and answers of DNS of all sorts, the same each time: python -m tests.dns_mix serve|ask COUNT.

serve is at 10.77.0.2 and fd77::2, says "ready", answers what `ask` asks, and ends when it is sent END. ask asks over UDP
and TCP, one question after the other, each message but some answers in a segment of its own, and says "done".
"""

from __future__ import annotations

import random
import selectors
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.dns import QUESTION, encode, framed

SERVER, SERVER6, PORT = "10.77.0.2", "fd77::2", 53
END = b"no more questions"
SEED = 1035
#: So long either end waits for the other, in seconds.
PATIENCE = 20
A, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT = 1, 5, 6, 12, 15, 16, 28, 33, 41
TYPES = {A: "A", AAAA: "AAAA", CNAME: "CNAME", MX: "MX", TXT: "TXT", SRV: "SRV", PTR: "PTR"}
ANSWER, TRUNCATED = 0x8180, 0x0200
FORMERR, SERVFAIL, NXDOMAIN, REFUSED = 1, 2, 3, 5
#: These have their upper bits in a record of EDNS.
BADVERS, BADCOOKIE = 16, 23
HEADER = struct.Struct("!HHHHHH")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-_ABCXYZ"
#: Of a message that `find` looks at: an answer's bit and the opcode stay, whatever else a fuzzed one has.
KEPT = 3

#: What makes a name, or what is behind it, none: the bytes of a question behind the header.
NO_QUESTIONS = (
    b"\xc0\x0c\0\1\0\1",  # a pointer to itself
    b"\xc0\x30\0\1\0\1" + bytes(64),  # one that leads forwards
    b"\3abc\xc0\x0c\0\1\0\1",  # a loop
    b"\x80abc\0\0\1\0\1",  # no kind of label
    b"\x41abc\0\0\1\0\1",
    b"\x3fcut",
    b"\3abc",
    b"\3abc\0",  # no type
    b"\3abc\0\0\1\0",  # half a class
    b"\x3e" + b"a" * 62 + b"\x3f" + b"b" * 63 + b"\x3f" + b"c" * 63 + b"\x3f" + b"d" * 63 + b"\0\0\1\0\1",  # 256 bytes
    b"",
)


class Exchange(NamedTuple):
    """A question and its answer. sort is plain, no question, no answers, or fuzzed; split: where the answer is, over TCP."""

    sort: str
    transport: str
    asked: bytes
    answered: bytes
    split: int = 0


class _Message:
    """A message in the making, with names compressed as servers do it."""

    def __init__(self, asked: bytes, flags: int) -> None:
        self.data = bytearray(asked[:2] + bytes(10))
        self.flags = flags
        self.counts = [0, 0, 0, 0]
        self._known: dict[str, int] = {}

    def name(self, name: str, compressed: bool = True) -> None:
        while name not in ("", "."):
            if compressed and name in self._known:
                self.data += struct.pack("!H", 0xC000 | self._known[name])
                return
            if len(self.data) < 0x3FFF:
                self._known.setdefault(name, len(self.data))
            label, _, name = name.partition(".")
            self.data += bytes([len(label)]) + label.encode()
        self.data += b"\0"

    def question(self, name: str, kind: int) -> None:
        self.name(name)
        self.data += struct.pack("!HH", kind, 1)
        self.counts[0] += 1

    def record(self, section: int, owner: str, kind: int, write: Callable[[], None]) -> None:
        self.name(owner)
        self.data += struct.pack("!HHIH", kind, 1, 60, 0)
        at = len(self.data)
        write()
        struct.pack_into("!H", self.data, at - 2, len(self.data) - at)
        self.counts[section] += 1

    def edns(self, rcode: int, options: bytes) -> None:
        self.data += _edns(rcode, options)
        self.counts[3] += 1

    def whole(self) -> bytes:
        struct.pack_into("!HHHHH", self.data, 2, self.flags, *self.counts)
        return bytes(self.data)


def _name(rng: random.Random) -> str:
    if rng.random() < 0.01:
        return "."
    if rng.random() < 0.01:
        return ".".join(["x" * 63] * 3 + ["y" * 61])  # the longest that there can be
    labels = ["".join(rng.choices(LETTERS, k=rng.randint(1, 12))) for _ in range(rng.randint(1, 5))]
    if rng.random() < 0.05:
        labels[0] = "l" * 63
    return ".".join(labels)


def _asked(rng: random.Random, number: int, name: str, kind: int) -> bytes:
    edns = rng.random() < 0.3
    head = HEADER.pack(number, QUESTION, 1, 0, 0, int(edns))
    return head + (b"\0" if name == "." else encode(name)) + struct.pack("!HH", kind, 1) + _edns() * edns


#: An option of EDNS: RFC 7873.
_COOKIE = struct.pack("!HH", 10, 16) + bytes(range(16))


def _edns(rcode: int = 0, options: bytes = b"") -> bytes:
    """The record of EDNS: RFC 6891, 6.1.3."""
    return b"\0" + struct.pack("!HHIH", OPT, 1232, rcode >> 4 << 24, len(options)) + options


def _answered(rng: random.Random, asked: bytes, name: str, kind: int) -> bytes:
    """What a server says: most often what was asked for, at times that there is none, or as much as there is room for."""
    edns = asked.endswith(_edns())
    rcode = rng.choices((0, NXDOMAIN, SERVFAIL, REFUSED, BADVERS, BADCOOKIE), (80, 10, 6, 4, 3 * edns, 3 * edns))[0]
    truncated = TRUNCATED * (not rcode and rng.random() < 0.06)
    message = _Message(asked, ANSWER | rcode & 15 | truncated)
    message.question(name, kind)
    data = message.data

    def soa() -> None:
        message.name("ns1." + zone)
        message.name("host." + zone)
        data.extend(bytes(20))

    def rdata() -> None:
        if kind in (A, AAAA):
            data.extend(rng.randbytes(4 if kind == A else 16))
        elif kind == MX:
            data.extend(struct.pack("!H", 10))
            message.name("mail." + zone)
        elif kind == TXT:
            text = rng.randbytes(rng.randint(0, 200))
            data.extend(bytes([len(text)]) + text)
        elif kind == SRV:
            data.extend(struct.pack("!HHH", 1, 2, 443))
            message.name("srv." + zone, compressed=False)
        else:
            message.name(_name(rng) if rng.random() < 0.5 else "other." + zone)

    zone = "example.com" if len(name) > 180 else name.partition(".")[2] or "example.com"
    if rcode == NXDOMAIN:
        message.record(2, zone, SOA, soa)
    elif not rcode:
        owner = name
        for number in range(rng.choice((0, 0, 0, 1, 3)) if kind in (A, AAAA, TXT) else 0):
            target = f"c{number}.{zone}"
            message.record(1, owner, CNAME, lambda target=target: message.name(target))  # type: ignore[misc]
            owner = target
        for _ in range(1 if kind == CNAME else rng.choice((1, 1, 2, 4, 8, 40))):
            message.record(1, owner, kind, rdata)
        if kind in (MX, SRV):
            for more in (A, AAAA):
                size = 4 if more == A else 16
                message.record(3, "mail." + zone, more, lambda size=size: data.extend(rng.randbytes(size)))  # type: ignore[misc]
    if edns:
        message.edns(rcode, rng.choice((b"", _COOKIE)))
    return message.whole()


def has_extended_rcode(answered: bytes) -> bool:
    """Whether its code has upper bits, which are behind the question."""
    return any(_edns(rcode)[:-2] in answered for rcode in (BADVERS, BADCOOKIE))


def _no_answers(rng: random.Random, asked: bytes, name: str) -> bytes:
    """An answer whose question is one, and whose records are none."""
    message = _Message(asked, ANSWER)
    message.question(name, A)
    message.record(1, name, A, lambda: message.data.extend(b"\x0a\0\0\1"))
    at = len(message.data)
    wrong = rng.randrange(6)
    if wrong == 0:  # fewer than it says
        message.counts[1] += 2
    elif wrong == 1:
        message.record(1, name, A, lambda: message.data.extend(b"\x0a\0"))  # half an address
    elif wrong == 2:
        message.data += struct.pack("!H", 0xC000 | at)  # its owner is itself
        message.data += struct.pack("!HHIH", CNAME, 1, 60, 2) + struct.pack("!H", 0xC000 | at + 12)
        message.counts[1] += 1
    elif wrong == 3:  # longer than the message
        message.data += b"\0" + struct.pack("!HHIH", A, 1, 60, 400)
        message.counts[1] += 1
    elif wrong == 4:
        message.data += b"\x80"
        message.counts[1] += 1
    else:  # a record's head is cut
        message.data += b"\0\0\1\0"
        message.counts[1] += 1
    return message.whole()


def _fuzzed(rng: random.Random, message: bytes) -> bytes:
    data = bytearray(message)
    how = rng.randrange(3)
    if how == 0:
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(KEPT, len(data))] = rng.randrange(256)
    elif how == 1:
        del data[rng.randint(HEADER.size, len(data)) :]
    else:
        data[4:] = rng.randbytes(rng.randint(8, 700))
    return bytes(data)


def exchanges(count: int) -> Iterator[Exchange]:
    """So many, each with its own id."""
    rng = random.Random(SEED)
    for number in range(1, count + 1):
        transport = rng.choices(("udp", "udp6", "tcp"), (60, 20, 20))[0]
        name, kind = _name(rng), rng.choice([*TYPES])
        asked = _asked(rng, number, name, kind)
        sort = rng.choices(("plain", "no question", "no answers", "fuzzed"), (84, 3, 3, 10))[0]
        split = 0
        if sort == "no question":
            wrong = rng.choice(NO_QUESTIONS)
            asked = HEADER.pack(number, QUESTION, 1, 0, 0, 0) + wrong
            answered = HEADER.pack(number, ANSWER | FORMERR, 1, 0, 0, 0) + wrong
            if rng.random() < 0.5:
                answered = HEADER.pack(number, ANSWER | FORMERR, 0, 0, 0, 0)  # as most servers do it
        elif sort == "no answers":
            asked = _asked(rng, number, name, A)
            answered = _no_answers(rng, asked, name)
        else:
            answered = _answered(rng, asked, name, kind)
            if sort == "fuzzed":
                asked, answered = _fuzzed(rng, asked), _fuzzed(rng, answered)
            elif transport == "tcp" and rng.random() < 0.3 and not has_extended_rcode(answered):
                question = HEADER.size + (1 if name == "." else len(name) + 2) + 4
                split = rng.randint(question, len(answered) - 1) if question < len(answered) else 0
        yield Exchange(sort, transport, asked, answered, split)


def serve(count: int) -> None:
    answers = {each.asked: each for each in exchanges(count)}
    with (
        socket.socket(type=socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp6,
        socket.create_server((SERVER, PORT)) as listens,
        selectors.DefaultSelector() as ready,
    ):
        udp.bind((SERVER, PORT))
        udp6.bind((SERVER6, PORT))
        for end in (udp, udp6, listens):
            ready.register(end, selectors.EVENT_READ)
        print("ready", flush=True)
        while True:
            for key, _ in ready.select(PATIENCE) or sys.exit("nobody asks"):
                end = key.fileobj
                assert isinstance(end, socket.socket)
                if end is listens:
                    stream = listens.accept()[0]
                    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    ready.register(stream, selectors.EVENT_READ)
                elif end.type == socket.SOCK_DGRAM:
                    asked, peer = end.recvfrom(65536)
                    if asked == END:
                        return
                    end.sendto(answers[asked].answered, peer)
                elif asked := _framed_from(end):
                    found = answers[asked]
                    data = framed(found.answered)
                    if found.split:
                        end.sendall(data[: found.split + 2])
                        data = data[found.split + 2 :]
                    end.sendall(data)
                else:
                    ready.unregister(end)
                    end.close()


def _framed_from(end: socket.socket) -> bytes:
    head = _exactly(end, 2)
    return _exactly(end, struct.unpack("!H", head)[0]) if head else b""


def _exactly(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return data


def ask(count: int) -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp6,
        socket.create_connection((SERVER, PORT)) as tcp,
    ):
        for end in (udp, udp6, tcp):
            end.settimeout(PATIENCE)
        udp.connect((SERVER, PORT))
        udp6.connect((SERVER6, PORT))
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for each in exchanges(count):
            if each.transport == "tcp":
                tcp.sendall(framed(each.asked))
                answered = _framed_from(tcp)
            else:
                end = udp if each.transport == "udp" else udp6
                end.send(each.asked)
                answered = end.recv(65536)
            assert answered == each.answered, each
        udp.send(END)


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](int(sys.argv[2]))
    print("done", flush=True)
