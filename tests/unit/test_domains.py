"""Names of addresses are those that the container asked for, whoever answers whatever."""

from __future__ import annotations

import socket
import struct
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from agent import domains
from agent.detect.surroundings import Surroundings
from agent.domains import ADDRESSES, ALL_ADDRESSES, LEAST_SECONDS, MOST_SECONDS, NAMES, Domains, Follower
from agent.flows.names import NamesOfPods
from agent.run.batch import Batch, pack
from agent.run.subscriber import Subscriber
from agent.service import ServiceContext
from gadget import catalog
from tests.dns import encode

SCHEMA = catalog.find("dnssnoop").schema
RECORD = 640
SERVER, CLIENT = (b"\x0a" * 16, 53), (b"\x0b" * 16, 4711)
A, CNAME, AAAA = 1, 5, 28
FOUR, SIX = "10.0.0.1", "fd00::1"


def number(field: str, word: str) -> int:
    return next(int(key) for key, value in SCHEMA[field].values.items() if value == word)


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def answer(name: str | bytes, *addresses: str, ttl: int = 60, aliases: tuple[str, ...] = ()) -> bytes:
    """A message as the text of an event has it."""
    records = [(CNAME, encode(alias)) for alias in aliases]
    records += [(AAAA if ":" in address else A, packed(address)) for address in addresses]
    asked = encode(name) if isinstance(name, str) else name
    said = struct.pack("!HHHHH", 0x8180, 1, len(records), 0, 0) + asked + struct.pack("!HH", A, 1)
    said += b"".join(struct.pack("!HHHIH", 0xC00C, kind, 1, ttl, len(data)) + data for kind, data in records)
    return struct.pack("!H", len(said) + 2) + said


def event(text: bytes, cgroup: int = 7, **fields: Any) -> np.ndarray:
    row = np.zeros(1, SCHEMA.dtype(RECORD))
    values = {"message": "answer", "rcode": "NOERROR", "src": CLIENT, "dst": SERVER, "server": SERVER, **fields}
    for name in ("message", "rcode"):
        row[name] = number(name, values[name])
    for name in ("src", "dst", "server"):
        row[name]["address"], row[name]["port"] = values[name]
    for name in ("name", "type", "addresses", "cnames"):
        row[name] = (0, len(text))
    row["cgroup_id"] = cgroup
    rows = row.view(np.uint8).reshape(1, RECORD).copy()
    rows[0, SCHEMA.text_offset : SCHEMA.text_offset + len(text)] = np.frombuffer(text, np.uint8)
    return rows


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> Domains:
    return Domains(clock)


def learn(known: Domains, *rows: np.ndarray) -> None:
    known.learn(Batch([pack(np.concatenate(rows))], {}))


def test_names(known: Domains) -> None:
    """An address has the name that the container asked for, in lower case, and for no other container."""
    learn(known, event(answer("API.example.com", FOUR, SIX)), event(answer("other.org", "10.0.0.2"), cgroup=8))
    assert known.names(7, packed(FOUR)) == known.names(7, packed(SIX)) == ("api.example.com",)
    assert known.names(7, packed(f"::ffff:{FOUR}")) == ("api.example.com",)
    assert known.names(8, packed("10.0.0.2")) == ("other.org",)
    assert (
        known.names(8, packed(FOUR)) == known.names(7, packed("10.0.0.2")) == known.names(7, packed("10.0.0.9")) == ()
    )


def test_several_names(known: Domains) -> None:
    """An address that several names lead to has them all, the one that was asked for last first."""
    learn(known, event(answer("a.org", FOUR)), event(answer("b.org", FOUR)), event(answer("a.org", FOUR)))
    assert known.names(7, packed(FOUR)) == ("a.org", "b.org")
    learn(known, *(event(answer(f"n{each}.org", FOUR)) for each in range(NAMES)))
    assert known.names(7, packed(FOUR)) == tuple(f"n{each}.org" for each in reversed(range(NAMES)))


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [(0, LEAST_SECONDS), (60, LEAST_SECONDS), (3600, 3600), (0xFFFFFFFF, MOST_SECONDS)],
)
def test_time(known: Domains, clock: Clock, ttl: int, seconds: int) -> None:
    """A name counts as long as the answer says, 5 minutes at least and a day at most; a shorter answer does not cut it."""
    learn(known, event(answer("a.org", FOUR, ttl=ttl)), event(answer("a.org", FOUR, ttl=0)))
    clock.now += seconds - 1
    assert known.names(7, packed(FOUR)) == ("a.org",)
    clock.now += 1
    assert known.names(7, packed(FOUR)) == ()


@pytest.mark.parametrize(
    "row",
    [
        event(answer("a.org", FOUR), message="question"),
        event(answer("a.org", FOUR), message="no answer"),
        event(answer("a.org", FOUR), rcode="NXDOMAIN"),
        event(answer("a.org", FOUR), src=SERVER, dst=CLIENT),  # the container is the server
        event(answer(b"\3a\xff\xff" + b"\x3f\xff" + b"\xff" * 62 + b"\0", FOUR)),  # too long where it is shown
        event(answer("a.org", FOUR)[:30]),
        event(b""),
        event(b"\xff" * 40),
    ],
    ids=["question", "no answer", "no such name", "as server", "long", "cut", "empty", "nonsense"],
)
def test_no_answers(known: Domains, row: np.ndarray) -> None:
    """What is no answer that the container asked for gives no address a name."""
    learn(known, row)
    assert known.names(7, packed(FOUR)) == ()
    assert known._size == sum(map(len, known._known.values())) == 0


def test_names_on_the_way(known: Domains) -> None:
    """A server that answers with another's name as an alias does not give its address that name."""
    learn(known, event(answer("evil.org", FOUR, aliases=("github.com",))))
    assert known.names(7, packed(FOUR)) == ("evil.org",)


def test_memory() -> None:
    """However much a container asks and is answered, the memory is bounded, and others keep what they learned last."""
    assert ALL_ADDRESSES * (NAMES * 300 + 600) < 32 << 20
    known = Domains(most=ADDRESSES + 3)
    learn(known, *(event(answer(f"n{at}.org", f"10.1.{at >> 8}.{at & 255}")) for at in range(ADDRESSES)))
    learn(known, event(answer("last.org", FOUR)))
    assert (known._size, known.names(7, packed("10.1.0.0")), known.names(7, packed("10.1.0.1"))) == (
        ADDRESSES, (), ("n1.org",)
    )  # fmt: skip
    for cgroup in range(10, 17):
        learn(known, event(answer("a.org", FOUR), cgroup=cgroup))
    assert known._size == sum(map(len, known._known.values())) == ADDRESSES + 3
    assert known.names(16, packed(FOUR)) == ("a.org",)
    known = Domains(most=2)
    for cgroup in (15, 16, 30):
        learn(known, event(answer("a.org", FOUR), cgroup=cgroup))
    assert (list(known._known), known._size) == ([16, 30], 2)


def test_answers_without_end(known: Domains) -> None:
    """A container that is answered without end costs no more than some hundred answers at a time; what is left out is counted."""
    rows = [event(answer(f"n{at}.org", FOUR)) for at in range(domains.ANSWERS + 5)]
    learn(known, *rows, event(answer("mine.org", SIX), cgroup=8), *rows[:2])
    assert known.skipped == 7
    assert known.names(8, packed(SIX)) == ("mine.org",)
    assert known.names(7, packed(FOUR))[:3] == ("n1.org", "n0.org", f"n{domains.ANSWERS + 4}.org")


def test_read_so_far(known: Domains) -> None:
    """Who judges a connection can tell whether answers from before it are known yet."""
    known.learn(Batch([], {}, read_ns=5))
    assert known.read_ns == 5


class Answers:
    """A run of dnssnoop whose reader gets an answer when it asks for what there is."""

    def __init__(self, known: Domains) -> None:
        self._known = known
        self.looks = 0

    def look(self) -> None:
        self.looks += 1
        threading.Timer(0.01, learn, (self._known, event(answer("pool.example.com", FOUR)))).start()


def test_connects_at_once(known: Domains, tmp_path: Path) -> None:
    """A rule knows the name of an address although the program connects as soon as it is told, and asks for it once."""
    context = SimpleNamespace(tracker=SimpleNamespace(proc=tmp_path), runs=None, budget=None)
    surroundings = Surroundings(cast(ServiceContext, context), domains=False)
    answers = Answers(known)
    follower = Follower.__new__(Follower)
    follower._domains, follower._subscriber = known, cast(Subscriber, answers)
    surroundings._domains, surroundings.follower = known, follower
    surroundings.begin(time.time_ns())
    assert surroundings.domains(7, packed(FOUR)) == ("pool.example.com",)
    assert surroundings.domains(7, packed("10.0.0.9")) == surroundings.domains(7, packed("10.0.0.8")) == ()
    assert answers.looks == 1


def test_wait() -> None:
    """Who asks for the names of an address waits until the answers of that time have been read, and no longer."""
    known = Domains()
    assert not known.wait(100, 0.01)
    reader = threading.Timer(0.05, lambda: known.learn(Batch([], {}, read_ns=200)))
    reader.start()
    assert known.wait(200, 10)
    reader.join()


def test_names_by_pod_outlive_the_agent(tmp_path: Path) -> None:
    """The flow recorder keeps the names of a pod's addresses, however old, for the next agent, damaged files or not."""
    file = tmp_path / "flows/names.json"
    names = NamesOfPods(file, {7: "uid-7"}.get)
    learn(names, event(answer("api.example.com", FOUR, SIX)), event(answer("other.org", "10.0.0.2"), cgroup=8))
    names.save()
    written = file.stat().st_mtime_ns
    learn(names, event(answer("api.example.com", FOUR)))
    names.save()
    assert file.stat().st_mtime_ns == written
    after = NamesOfPods(file, {}.get)
    for known in (names, after):
        assert known.names("uid-7", packed(FOUR)) == known.names("uid-7", packed(SIX)) == ("api.example.com",)
        assert known.names("uid-7", packed("10.0.0.2")) == ()
        assert len(known.all()) == 2
    for damaged in (
        b"{",
        b"[]",
        b'{"names":[["u","00",["a"]]]}',
        b'{"names":[["u","0a000001",[7]]]}',
        b'{"names":[[1]]}',
    ):
        file.write_bytes(damaged)
        assert NamesOfPods(file, {}.get).all() == []
    file.unlink()
    file.parent.rmdir()
    file.parent.write_text("")  # no folder can be there
    learn(names, event(answer("new.example.com", FOUR)))
    names.save()
    assert names.names("uid-7", packed(FOUR)) == ("new.example.com", "api.example.com")
