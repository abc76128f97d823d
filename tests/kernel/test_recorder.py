"""The flight recorder in this process: what it writes and what is read at the same time."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.bpffs import mount_bpffs, open_pinned
from agent.traceloop.pointers import Pointers
from agent.traceloop.recorder import Recorder, Settings
from agent.traceloop.rings import Ring
from agent.traceloop.service import TraceloopService
from agent.tracker import Tracker
from gadget import catalog, syscalls
from gadget._generated import gadget_pb2 as pb
from tests.bench.machine import enter
from tests.conftest import wait_until
from tests.pods import BUSYBOX, BareContainer

CALL, MORE = (catalog.record("traceloop", name) for name in ("call", "more"))
NO_DATA = catalog.constants("traceloop", "constant")["NO_DATA"]
EXEC = catalog.constants("traceloop", "kind")["KIND_EXEC"]
BUCKETS = 65536
UNLINKAT = next(number for number, call in syscalls.table(os.uname().machine).items() if call.name == "unlinkat")


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    """All containers of this machine."""
    with closing(Tracker()) as found:
        yield found


@pytest.fixture
def recording(tracker: Tracker, bpffs: Path, tmp_path: Path) -> Callable[..., Any]:
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
def test_follow(slots: int, each: int, recording, container, workload, monkeypatch) -> None:
    """While I follow four threads at full speed each call comes once with its whole path, or is counted as missing; and
    if they are not too many for the ring, none is missing.
    """
    monkeypatch.setattr("agent.traceloop.service.FOLLOW_SECONDS", 0.0)
    monkeypatch.setattr("agent.traceloop.service.FOLLOW_POLLS", 1000)
    with recording(slots=slots) as recorder:
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


def names(recorder: Recorder, ring: Ring) -> set[str]:
    """The paths that programs in it were started from."""
    calls = ring.snapshot().calls
    begin = CALL.fields["args"][1]
    rows = [row.tobytes() for row in calls if int(row["shape"]) & 7 == EXEC]
    return {os.fsdecode(row[begin:].split(b"\0", 1)[0]) for row in rows}


def inside(container: BareContainer, name: str) -> BareContainer:
    """A cgroup in a container's, as systemd in it makes one."""
    nested = copy(container)
    nested.cgroup = container.cgroup / name
    nested.cgroup.mkdir()
    return nested


def run(container: BareContainer, path: str) -> None:
    start(container, path).wait()


def test_nested(recording, container, tmp_path: Path) -> None:
    """What runs in a cgroup inside a container's is recorded: one that was there before the agent, one that was made
    while no agent was there, and one of a container that has had to wait for room.
    """
    app = container()
    before = inside(app, "before")
    nested = [before]
    program = {name: tmp_path / name for name in ("before", "meanwhile", "waiting")}
    for path in program.values():
        shutil.copy(BUSYBOX, path)
    try:
        with recording(slots=64) as recorder:
            run(before, str(program["before"]))
            assert names(recorder, ring_of(recorder, app)) == {str(program["before"])}
        nested.append(inside(app, "meanwhile"))
        with recording(slots=64, total_bytes=recorder.memory()[0]) as recorder:
            run(nested[1], str(program["meanwhile"]))
            assert names(recorder, ring_of(recorder, app)) == {str(program["before"]), str(program["meanwhile"])}
            late = container("shop", "late-0")
            nested.append(inside(late, "waiting"))
            wait_until(lambda: len(recorder.refused()) == 1, "the refusal")
            recorder.delete(ring_of(recorder, app).key)
            run(nested[2], str(program["waiting"]))
            assert names(recorder, ring_of(recorder, late)) == {str(program["waiting"])}
    finally:
        for each in nested:
            each.cgroup.rmdir()


def pointers(folder: Path) -> Pointers:
    """What the program looks in."""
    (layout,) = folder.glob("gadget/traceloop/*")
    return Pointers(open_pinned(layout / "rings"), open_pinned(layout / "recorded"))


def counts(folder: Path) -> dict[int, int]:
    """How many cgroups with a ring there are by the low bits of their ids, where there are any."""
    (pin,) = folder.glob("gadget/traceloop/*/recorded")
    fd = open_pinned(pin)
    with mmap.mmap(fd, 2 * BUCKETS) as page:
        os.close(fd)
        found = np.frombuffer(page[:], np.uint16)
    return {int(bucket): int(found[bucket]) for bucket in np.flatnonzero(found)}


def test_counts(recording, container, bpffs: Path) -> None:
    """Cgroups whose ids end alike do not hide each other's rings, however often they come and in which order they go."""
    with recording(slots=64) as recorder:
        ring = ring_of(recorder, container())
        own = {ring.about.cgroup_id % BUCKETS: 1}
        assert counts(bpffs) == own
        found, low = pointers(bpffs), (ring.about.cgroup_id + 17) % BUCKETS
        ids = [low + BUCKETS * number for number in (1, 2, 3)]
        for cgroup_id in [*ids, ids[0]]:
            found.set(cgroup_id, ring)
        assert counts(bpffs) == own | {low: 3}
        for left, cgroup_id in ((2, ids[0]), (2, ids[0]), (1, ids[2])):
            found.remove(cgroup_id)
            assert counts(bpffs) == own | {low: left}
        found.close()
        again = pointers(bpffs)  # as an agent does that has been killed
        assert sorted(again.ids()) == sorted([ring.about.cgroup_id, ids[1]])
        assert counts(bpffs) == own | {low: 1}
        again.close()
    with recording(slots=64) as recorder:
        assert counts(bpffs) == own  # nobody's cgroup points nowhere


def test_killed_while_counting(recording, container, bpffs: Path) -> None:
    """An agent that was killed just as a container came or went leaves nothing behind that the next one believes."""
    with recording(slots=64) as recorder:
        ring = ring_of(recorder, container())
    (pin,) = bpffs.glob("gadget/traceloop/*/recorded")
    fd = open_pinned(pin)
    with mmap.mmap(fd, 2 * BUCKETS) as page:
        os.close(fd)
        page[:] = np.full(BUCKETS, 3, np.uint16).tobytes()
    with recording(slots=64):
        assert counts(bpffs) == {ring.about.cgroup_id % BUCKETS: 1}


def test_older_agent(recording, container, bpffs: Path) -> None:
    """Rings of an agent that did not count them yet are taken over: those who run are recorded, and no call is lost."""
    app = container()
    with recording(slots=64) as recorder:
        run(app, "/bin/true")
        before = ring_of(recorder, app).state()["calls"]
        (links,) = bpffs.glob("gadget/traceloop/*/programs-*")
    links.rename(links.with_name("programs-older"))
    links.with_name("recorded").unlink()
    with recording(slots=64) as recorder:
        assert [path.name for path in links.parent.glob("programs-*")] == [links.name]
        assert ring_of(recorder, app).state()["calls"] == before > 0
        run(app, "/bin/true")
        assert ring_of(recorder, app).state()["calls"] == 2 * before
