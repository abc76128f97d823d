from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.stream import session
from kubectl_gadget.stream.merge import HOLD_SECONDS, Merge, TimedRow
from kubectl_gadget.stream.streams import Message
from tests.unit.test_recording import record, show, shown, started
from tests.unit.test_snapshots import batch

EXECS = catalog.find("execsnoop")


def rows(*times: int) -> list[TimedRow]:
    return [(time, (time,), "") for time in times]


def test_waits_for_others() -> None:
    """Rows of several nodes come in the order of their time, if they come within a fifth of a second."""
    merging = Merge()
    merging.add(rows(10, 40), 1.0)
    merging.add(rows(20, 30), 1.05)
    assert merging.ripe(1.18) == []
    assert merging.ripe(1.21) == rows(10, 20, 30, 40)
    merging.add(rows(50), 1.22)
    assert merging.rest() == rows(50)


def test_in_order_whoever_was_faster() -> None:
    """Events of several nodes come in the order in which they happened, whoever was faster to send them."""
    merging = Merge()
    merging.add([(10, ()), (40, ()), (70, ())], now=1.0)
    assert merging.ripe(1.0 + HOLD_SECONDS * 0.9) == []
    merging.add([(20, ()), (50, ()), (80, ())], now=1.0 + HOLD_SECONDS * 0.9)
    ripe = merging.ripe(1.0 + HOLD_SECONDS * 1.3)
    assert [at for at, _ in ripe] == [10, 20, 40, 50, 70]
    merging.add([(60, ()), (90, ())], now=1.0 + HOLD_SECONDS * 1.3)
    assert [at for at, _ in merging.ripe(1.0 + HOLD_SECONDS * 2)] == [60, 80]
    assert [at for at, _ in merging.rest()] == [90]
    assert merging.rest() == []


def test_too_many_at_once() -> None:
    """However many rows come at the same moment, only so many are held, no fewer than can be, and none is lost."""
    merging, given = Merge(most_held=101), []
    for number in range(59):
        merging.add(rows(*range(number * 7, number * 7 + 7)), 1.0)
        given += merging.ripe(1.0)
        held = number * 7 + 7 - len(given)
        assert min(number * 7 + 7, 101 - 6) <= held <= 101
    assert [*given, *merging.rest()] == rows(*range(59 * 7))


def test_time_that_is_far_off(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """One event whose time is years ahead does not keep those after it in memory to the end of a replay."""
    held: list[int] = []

    class Watched(Merge):
        def __init__(self) -> None:
            super().__init__(most_held=23)

        def add(self, rows: list[TimedRow], now: float) -> None:
            super().add(rows, now)
            held.append(len(self._rows))

    monkeypatch.setattr(session, "Merge", Watched)
    messages: list[Message] = [("node-a", started(EXECS.schema))]
    for number in range(53):
        sent = batch(EXECS, [{"pid": number, "comm": b"app"}])
        sent.clock_offset_ns += 10**18 if number == 3 else number * 10**9
        messages.append(("node-a", pb.RunReply(batch=sent)))
    show(record(tmp_path / "file", messages, "execsnoop"), "pid")
    pids = [pid for (pid,) in shown(capsys.readouterr().out)]
    assert max(held) <= 24
    assert sorted(pids) == list(range(53))
    assert [pid for pid in pids if pid != 3] == [pid for pid in range(53) if pid != 3]
