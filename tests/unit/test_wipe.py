"""Nothing leaves the node but what the records of a recording say is theirs: the program leaves old bytes in a slot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.containers.identity import Container
from agent.traceloop import rings
from agent.traceloop.redact import Redactor
from agent.traceloop.rings import About, Ring
from agent.traceloop.service import TraceloopService
from agent.traceloop.wipe import wipe
from gadget import catalog, syscalls
from gadget._generated import gadget_pb2 as pb

CALL, MORE = (catalog.record("traceloop", name) for name in ("call", "more"))
KINDS = catalog.constants("traceloop", "kind")
UNKNOWN = catalog.constants("traceloop", "constant")["NUMBER_UNKNOWN"]
ARGS, DATA = CALL.fields["args"][1], MORE.fields["data"][1]  # type: ignore[index]
SECRET = b"hunter2!" * 16
#: what the program writes of every record: `begin` in bpf/traceloop/ring.h
HEAD = ("sequence", "time", "placed", "ran", "pid", "tid", "count", "shape", "length", "argument")


def number_of(name: str) -> int:
    return syscalls.numbers("x86_64")[name]


def call(position: int, kind: str, words: int, args: tuple[int, ...], text: bytes | None = None,
         more: Mapping[str, Any] = {}) -> bytes:  # fmt: skip
    """A record as the program writes it into a slot that held SECRET."""
    row = np.frombuffer(bytearray(SECRET), CALL)
    for name in HEAD:
        row[name] = 0
    row["sequence"], row["shape"], row["comm"] = position << 2, KINDS[kind] | words << 4, b"sh"
    row["length"] = rings.NO_DATA if text is None else len(text)
    row["args"][0, : len(args)] = args
    for name, value in more.items():
        row[name] = value
    data = bytearray(row.tobytes())
    if text is not None:
        data[ARGS + words * 8 : ARGS + words * 8 + len(text)] = text
    return bytes(data)


def more(position: int, owner: int, text: bytes | None) -> bytes:
    row = np.frombuffer(bytearray(SECRET), MORE)
    row["sequence"], row["owner"], row["argument"], row["part"] = position << 2 | rings.MORE, owner << 2, 1, 0
    row["length"], row["left"] = rings.NO_DATA if text is None else len(text), 0
    data = bytearray(row.tobytes())
    data[DATA : DATA + len(text or b"")] = text or b""
    return bytes(data)


REGISTERS = (1, 2, 3, 4, 5, 6)
RECORDS = [
    call(1, "KIND_CALL", 3, REGISTERS, b"..shown..", {"result": 9, "number": number_of("write")}),
    call(2, "KIND_CALL", 3, REGISTERS, None, {"result": 0, "number": number_of("close")}),
    call(3, "KIND_CALL", 3, REGISTERS, b"vector", {"result": 6, "number": number_of("writev"), "size": 6, "buffers": 2,
                                                    "skipped": 1}),
    call(4, "KIND_CALL", 3, REGISTERS, None, {"result": 6, "number": number_of("writev")}),
    call(5, "KIND_CALL", 0, REGISTERS, None, {"result": -38, "number": 511}),
    call(6, "KIND_CALL", 6, REGISTERS, None, {"result": -38, "number": UNKNOWN, "size": 70_000}),
    call(7, "KIND_NO_RETURN", 1, (3,), None, {"number": number_of("exit_group")}),
    call(8, "KIND_SIGNAL", 3, (11, 1, 0xBEEF)),
    call(9, "KIND_EXEC", 0, (), b"/bin/sh", {"result": 0, "number": number_of("execve")}),
    call(10, "KIND_PROCESS_EXIT", 1, (0,), None, {"result": 256}),
    more(11, 1, b"the rest"),
    more(12, 1, None),
]  # fmt: skip


def write_ring(path: Path, slots: list[bytes]) -> Ring:
    """A saved ring that has these records and no others."""
    about = About(Container("c", namespace="shop", pod="cart-0"), 7, 1, "x86_64", rings.own_layout(), 1).to_json()
    state = np.zeros(1, catalog.record("traceloop", "state"))
    state["head"] = len(slots)
    path.write_bytes(about.ljust(rings.ABOUT_BYTES, b"\0") + state.tobytes() + b"".join(slots) + SECRET)
    return Ring(path, saved=True)


def reply(tmp_path: Path, redactor: Redactor | None = None) -> pb.TraceloopReadReply:
    """What an agent sends of RECORDS."""
    ring = write_ring(tmp_path / "ring", RECORDS)
    recorder = Mock(find=lambda key: ring, is_there=lambda ring: False, is_running=lambda ring: False)
    service = TraceloopService("node-a", recorder, redactor)
    (found,) = service.read(pb.TraceloopReadRequest(cgroup_id=ring.key), lambda: True)
    return found


@pytest.mark.parametrize("redactor", [None, Redactor(["hunter.*"])], ids=["plain", "redact"])
def test_old_bytes_stay(tmp_path: Path, redactor: Redactor | None) -> None:
    """A secret that a slot held before is not in a recording that I am sent, with --redact and without."""
    found = reply(tmp_path, redactor)
    sent = found.calls + found.more
    assert len(sent) == len(RECORDS) * rings.SLOT_BYTES
    # nor a piece of it: each word of SECRET is the same, wherever it is cut
    assert not [at for at in range(len(sent) - 3) if sent[at : at + 4] in SECRET]


def test_own_bytes_go(tmp_path: Path) -> None:
    """All that a record is about is there as before: arguments, results, text, names, sizes of buffers."""
    found = reply(tmp_path)
    calls, further = np.frombuffer(found.calls, CALL), np.frombuffer(found.more, MORE)
    assert set(calls["comm"].tolist()) == {b"sh"}
    assert calls["result"].tolist() == [9, 0, 6, 6, -38, -38, 0, 0, 0, 256]
    assert calls["args"][:3, :3].tolist() == [[1, 2, 3]] * 3
    assert calls["args"][4].tolist() == calls["args"][5].tolist() == list(REGISTERS)  # nobody knows how many it takes
    assert calls["args"][7, :3].tolist() == [11, 1, 0xBEEF]
    assert calls["size"].tolist() == [0, 0, 6, 0, 0, 70_000, 0, 0, 0, 0]
    assert (calls["buffers"][2], calls["skipped"][2]) == (2, 1)
    assert b"..shown.." in found.calls and b"/bin/sh" in found.calls
    assert further["length"].tolist() == [8, rings.NO_DATA] and b"the rest" in found.more


@given(st.lists(st.binary(min_size=rings.SLOT_BYTES, max_size=rings.SLOT_BYTES), max_size=20))
def test_any_bytes(slots: list[bytes]) -> None:
    """Whatever a ring holds, wiping it goes well, and a second time changes nothing."""
    about = About(Container("c"), 7, 1, "x86_64", rings.own_layout(), 1)
    calls, further = np.frombuffer(bytearray(b"".join(slots)), CALL), np.frombuffer(bytearray(b"".join(slots)), MORE)
    snapshot = rings.Snapshot({}, calls, further, 0)
    wipe(about, snapshot)
    once = calls.tobytes(), further.tobytes()
    wipe(about, snapshot)
    assert once == (calls.tobytes(), further.tobytes())
