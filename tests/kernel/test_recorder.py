"""The flight recorder in this process: what it writes and what is read at the same time."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.bpffs import mount_bpffs
from agent.traceloop.recorder import Recorder, Settings
from agent.traceloop.rings import Ring
from agent.traceloop.service import TraceloopService
from agent.tracker import Tracker
from gadget import catalog, syscalls
from gadget._generated import gadget_pb2 as pb
from tests.bench.machine import enter
from tests.conftest import wait_until
from tests.pods import BareContainer

CALL, MORE = (catalog.record("traceloop", name) for name in ("call", "more"))
NO_DATA = catalog.constants("traceloop", "constant")["NO_DATA"]
UNLINKAT = next(number for number, call in syscalls.table(os.uname().machine).items() if call.name == "unlinkat")


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    """All containers of this machine."""
    with closing(Tracker()) as found:
        yield found


@pytest.fixture
def record(tracker: Tracker, bpffs: Path, tmp_path: Path) -> Callable[..., Any]:
    """Records in this process, as a context manager; settings differ from the usual ones."""
    mount_bpffs(bpffs)
    (bpffs / "gadget").mkdir(exist_ok=True)

    @contextmanager
    def begin(**settings: Any) -> Iterator[Recorder]:
        wants = settings.pop("wants", lambda container: container.namespace == "shop")
        found = Settings(bpffs / "gadget/traceloop", tmp_path / "saved", wants, **settings)
        with closing(Recorder(tracker, found)) as recorder:
            yield recorder

    return begin


@pytest.fixture
def container() -> Iterator[Callable[..., BareContainer]]:
    """Makes containers that are gone after the test."""
    made: list[BareContainer] = []

    def make(namespace: str = "shop", pod: str = "cart-0") -> BareContainer:
        made.append(BareContainer(namespace, pod))
        return made[-1]

    yield make
    for each in made:
        each.delete()


def ring_of(recorder: Recorder, container: BareContainer) -> Ring:
    return wait_until(
        lambda: {ring.about.container.id: ring for ring in recorder.rings()}.get(container.id), "the ring"
    )


def start(container: BareContainer, *command: str | Path) -> subprocess.Popen[bytes]:
    """A program in a container."""
    return subprocess.Popen(list(map(str, command)), preexec_fn=enter(container))


def texts(calls: np.ndarray, more: np.ndarray) -> list[tuple[int, int, bytes]]:
    """Of each call with a number: which thread, its number, its path as far as it is there."""
    further: dict[int, list[bytes]] = {}
    begin = MORE.fields["data"][1]
    for row in more:
        further.setdefault(int(row["owner"]), []).append(row.tobytes()[begin : begin + int(row["length"])])
    found = []
    for row in calls:
        if row["number"] == UNLINKAT and row["length"] != NO_DATA:
            begin = CALL.fields["args"][1] + (int(row["shape"]) >> 4) * 8
            own = row.tobytes()[begin : begin + int(row["length"])]
            path = b"".join([own, *further.get(int(row["sequence"]), ())])
            found.append((int(row["tid"]), int(row["args"][0]), path))
    return found


def path_of(tid: int, number: int) -> bytes:
    return f"/{number}/{tid}/".encode().ljust(199, b"p")


@pytest.mark.parametrize(("slots", "each"), [(1 << 16, 4999), (512, 10007)])
def test_follow(slots: int, each: int, record, container, workload, monkeypatch) -> None:
    """While I follow four threads at full speed each call comes once with its whole path, or is counted as missing; and
    if they are not too many for the ring, none is missing.
    """
    monkeypatch.setattr("agent.traceloop.service.FOLLOW_SECONDS", 0.0)
    monkeypatch.setattr("agent.traceloop.service.FOLLOW_POLLS", 1000)
    with record(slots=slots) as recorder:
        app = container()
        ring = ring_of(recorder, app)
        service = TraceloopService("node-a", recorder)
        work = start(app, workload("ends"), "paths", each)
        end = threading.Thread(target=lambda: (work.wait(), app.cgroup.rmdir()))
        end.start()
        replies = list(service.read(pb.TraceloopReadRequest(cgroup_id=ring.key, follow=True), lambda: True))
        end.join()
        total, dropped = ring.state()["calls"], ring.state()["dropped"]
    assert len(replies) > 5
    found, counts = [], []
    for reply in replies:
        calls, more = np.frombuffer(reply.calls, CALL), np.frombuffer(reply.more, MORE)
        assert set(more["owner"].tolist()) <= set(calls["sequence"].tolist())
        found += texts(calls, more)
        counts += calls["count"].tolist()
    assert len(set(counts)) == len(counts)
    missing = total - len(counts)
    expected = 4 * each
    assert len({(tid, number) for tid, number, _ in found}) == len(found)
    assert expected - len(found) <= missing
    assert {number for _, number, _ in found} <= set(range(1_000_000, 1_000_000 + each))
    if slots == 1 << 16:
        assert (missing, dropped, len(found)) == (0, 0, expected)
        assert [path for *_, path in found] == [path_of(tid, number) for tid, number, _ in found]
    for tid in {tid for tid, *_ in found}:
        numbers = [number for other, number, _ in found if other == tid]
        assert numbers == sorted(numbers)
