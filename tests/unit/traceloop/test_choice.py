"""Of a recording that is asked for its end: what is sent of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from agent.containers.identity import Container
from agent.traceloop import choice, rings
from agent.traceloop.redact import Redactor
from agent.traceloop.rings import About, Ring, Snapshot
from agent.traceloop.service import TraceloopService
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.strace import Call
from kubectl_gadget.traceloop.calls import MissingCalls, ReplyReader
from kubectl_gadget.why.gather import facts_of, read_history
from kubectl_gadget.why.judge import judge
from tests.unit.traceloop.replies import record, reply

ABOUT = About(Container("c"), 7, 1, "x86_64", rings.own_layout())
ENOENT, EAGAIN, ECONNREFUSED = -2, -11, -111
#: The slots of a ring.
SLOTS = 4096
#: How many records are chosen at most: every number in choice.py, what its thread recorded before each, and the rest.
MOST = 1500


def chosen(*records: np.void) -> pb.TraceloopReadReply:
    """What an agent sends of a recording of an end."""
    calls = np.frombuffer(b"".join(each.tobytes() for each in records), catalog.record("traceloop", "call"))
    found = choice.choose(ABOUT, Snapshot({}, calls, np.empty(0, catalog.record("traceloop", "more")), 0))
    if found is None:
        return reply(*records)
    sent = pb.Chosen(left_out=found.left_out, failures=found.failures, alone=found.alone)
    return reply(*found.snapshot.calls, chosen=sent)


def write(sequence: int, text: bytes, descriptor: int = 2, **more: int) -> np.void:
    return record(sequence, name="write", text=text, args=[descriptor, 1, len(text)], result=len(text), **more)


def first(sent: pb.TraceloopReadReply) -> tuple[str, str]:
    sent.item.MergeFrom(pb.TraceloopItem(status=1 << 8, known=True, ended_ns=5000 * 1000))
    found = judge(facts_of("node-a", sent.item, read_history([sent])))[0]
    return found.cause, found.sentence


#: Records of one kind that a container can make as many of as it likes, by their position.
FLOODS: dict[str, Callable[[int], np.void]] = {
    "reads": lambda at: record(at, name="read", args=[9, 1, 10], result=10),
    "threads": lambda at: record(at, "KIND_THREAD_EXIT", tid=at),
    "processes": lambda at: record(at, "KIND_PROCESS_EXIT", pid=1000 + at, tid=1000 + at),
    "signals": lambda at: record(at, "KIND_SIGNAL", args=[10, 0, 0]),
    "sent signals": lambda at: record(at, "KIND_SENT", args=[10, 0, 7, 1]),
    "programs": lambda at: record(at, "KIND_EXEC", text=b"/bin/true", pid=1000 + at, tid=1000 + at, result=at),
    "failures": lambda at: record(at, name="access", text=b"/x", args=[1], result=-1 - at % 100),
    "idle failures": lambda at: record(at, name="read", args=[9], result=EAGAIN),
    "opens": lambda at: record(at, name="open", text=b"/x", args=[1], result=3),
    "closes": lambda at: record(at, name="close", args=[3]),
    "connects": lambda at: record(at, name="connect", text=b"\1\0/x", args=[at, 1, 4], result=-115),
    "frames": lambda at: write(at, b"\tat Main.deep(Main.java:7)"),
    "ends of lines": lambda at: write(at, b"\n"),
    "output": lambda at: write(at, b"again\n", descriptor=1),
    "long waits": lambda at: record(at, name="poll", args=[1, 1, 300], time=at * 10**9),
    "threads that do one thing": lambda at: record(at, name="recvfrom", args=[3], tid=7 + at % 1000, result=1),
    "everything": lambda at: [FLOODS[name](at) for name in list(FLOODS)[:-1]][at % (len(FLOODS) - 1)],
}


@pytest.mark.parametrize("name", FLOODS)
def test_bounded(name: str) -> None:
    """A container cannot make its recording a long one to read: whatever it did 4,096 times, few records are sent."""
    sent = chosen(*map(FLOODS[name], range(1, SLOTS + 1)))
    reader = ReplyReader()
    reader.entries(sent)
    assert reader.kept == SLOTS and len(sent.calls) // rings.SLOT_BYTES <= MOST


@pytest.mark.parametrize("name", ["reads", "idle failures", "closes", "ends of lines", "frames", "threads"])
def test_what_tells_is_there(name: str) -> None:
    """What failed long before an end, and what was said of it, is found in what is sent, however much came after it."""
    failed = record(2, name="open", text=b"/etc/cart.yaml", args=[1], result=ENOENT)
    said = write(3, b"/etc/cart.yaml: no such file\n")
    begun = record(1, "KIND_EXEC", text=b"/app/cart", result=1)
    flood = [FLOODS[name](at) for at in range(4, SLOTS)]
    records = [begun, failed, said, *flood, record(SLOTS, "KIND_PROCESS_EXIT", result=1 << 8)]
    sent = chosen(*records)
    assert len(sent.calls) < SLOTS / 4 * rings.SLOT_BYTES
    assert first(sent) == first(reply(*records)) and "/etc/cart.yaml" in first(sent)[1]


def test_what_a_server_is_bound_to() -> None:
    """The port that a server listens at is known, however many names it has asked for since."""
    begun, bound = record(1, "KIND_EXEC", text=b"/app/cart", result=1), b"\2\0\x1f\x90" + bytes(12)
    records = [begun, record(2, name="bind", text=bound, args=[3, 1, 16]), record(3, name="listen", args=[3])]
    for at in range(4, 1000, 3):  # a resolver's
        records += [record(at, name="socket", args=[16, 3], result=9), FLOODS["reads"](at + 2),
                    record(at + 1, name="bind", text=b"\x10\0" + bytes(10), args=[9, 1, 12])]  # fmt: skip
    sent = chosen(*records, record(1000, "KIND_PROCESS_EXIT", result=9))
    assert sent.chosen.left_out and read_history([sent]).listens()


def test_counts_are_not_told_as_all() -> None:
    """A failure of which not all are sent is told as so many times or more, never as fewer than it was."""
    failures = [record(at, name="connect", text=b"\1\0/run/db", args=[3, 1, 9], result=ECONNREFUSED)
                for at in range(2, 1000)]  # fmt: skip
    said, end = write(1000, b"/run/db: Connection refused\n"), record(1001, "KIND_PROCESS_EXIT", result=1 << 8)
    begun = record(1, "KIND_EXEC", text=b"/app/cart", result=1)
    assert "998 times;" in first(reply(begun, *failures, said, end))[1]
    assert re.search(r"refused.*, \d\d+ times or more;", first(chosen(begun, *failures, said, end))[1])


def test_left_out_is_not_lost() -> None:
    """What was left out is neither told as calls that are missing, nor counted as time that a call took."""
    random = np.random.default_rng(7)
    names = ("read", "connect", "poll", "getpid", "open", "write", "close")
    records, now = [], 0
    for at in range(1, 3000):
        now += int(random.integers(1, 10**9))
        tid, name = int(random.integers(7, 12)), names[random.integers(len(names))]
        records.append(record(at, name=name, args=[at % 9], time=now, tid=tid, result=int(random.integers(-120, 3))))
    records[0]["count"] = 0
    full, short = ReplyReader(), ReplyReader()
    every, some = full.entries(reply(*records)), short.entries(chosen(*records))
    assert not any(isinstance(entry, MissingCalls) for entry in some) and (short.kept, short.complete) == (2999, True)
    known = {entry.time_ns: entry for entry in every if isinstance(entry, Call)}
    for entry in some:
        assert isinstance(entry, Call) and entry in (
            known[entry.time_ns], known[entry.time_ns]._replace(duration_ns=None)
        )  # fmt: skip
    timed = [entry for entry in some if entry.number in (0, 7, 42)][-40:]
    assert timed == [known[entry.time_ns] for entry in timed]


def test_how_connects_ended() -> None:
    """A connection that was made is not taken for one that nobody answered, however many calls are left out."""
    records = [record(1, "KIND_EXEC", text=b"/app/cart", result=1)]
    for at in range(2, 3000, 100):
        records.append(record(at, name="connect", text=b"\2\0\0\x50\x0a\0\0\1", args=[at, 1, 8], result=-115, tid=at))
        records.append(record(at + 1, name="write", text=b"GET", args=[at, 1, 3], result=3, time=at * 1000 + 400))
        records += [FLOODS["reads"](more) for more in range(at + 2, at + 100)]
    records.append(record(4000, "KIND_PROCESS_EXIT", result=1 << 8, time=10**12))
    assert not read_history([chosen(*records)]).failures


def service(
    tmp_path: Path, records: list[np.void], redactor: Redactor | None = None, running: bool = False
) -> TraceloopService:
    """An agent that has a recording."""
    about = About(Container("c", namespace="shop", pod="cart-0"), 7, 1, "x86_64", rings.own_layout(), 1).to_json()
    state = np.zeros(1, catalog.record("traceloop", "state"))
    state["head"] = len(records)
    slots = b"".join(each.tobytes() for each in records)
    path = tmp_path / "ring"
    path.write_bytes(about.ljust(rings.ABOUT_BYTES, b"\0") + state.tobytes() + slots + bytes(rings.SLOT_BYTES))
    ring = Ring(path, saved=True)
    recorder = Mock(
        find={7: ring}.get, is_there=lambda ring: running, is_running=lambda ring: running, processes=lambda ring: []
    )
    return TraceloopService("node-a", recorder, redactor)


def test_asked_for(tmp_path: Path) -> None:
    """What is left out is asked for: all records are sent, as ever, to who reads a recording, and none of who runs."""
    records = [record(at, name="read", args=[9], result=1) for at in range(1, 1000)]
    asked = service(tmp_path, records)
    (short,), (whole,) = (
        asked.ends([8, 7], lambda: True),
        asked.read(pb.TraceloopReadRequest(cgroup_id=7), lambda: True),
    )
    assert short.HasField("chosen") and len(short.calls) < 999 * rings.SLOT_BYTES == len(whole.calls)
    assert not whole.HasField("chosen")
    assert not list(asked.ends([7], lambda: False))
    assert not list(service(tmp_path, records, running=True).ends([7], lambda: True))


def test_masked(tmp_path: Path) -> None:
    """What --redact masks is masked in that, too."""
    records = [write(at, b"password hunter2\n") for at in range(1, 1000)]
    (sent,) = service(tmp_path, records, Redactor(["hunter."])).ends([7], lambda: True)
    assert sent.chosen.left_out and b"hunter" not in sent.calls and b"password *******" in sent.calls


def test_older_rings(tmp_path: Path) -> None:
    """Of a recording that lacks what the choice needs all is sent."""
    kind = catalog.record("traceloop", "call")
    assert kind.fields
    fewer = {name: field for name, field in kind.fields.items() if name != "tid"}
    old = np.dtype({"names": list(fewer), "formats": [each[0] for each in fewer.values()],
                    "offsets": [each[1] for each in fewer.values()], "itemsize": kind.itemsize})  # fmt: skip
    calls = np.zeros(1000, old)
    assert choice.choose(ABOUT, Snapshot({}, calls, np.empty(0, catalog.record("traceloop", "more")), 0)) is None
