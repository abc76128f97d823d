"""The flight recorder in this process: what it writes and what is read at the same time."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.bpf.bpffs import mount_bpffs, open_pinned
from agent.containers.identity import parse_path
from agent.containers.tracker import Tracker
from agent.traceloop import rings
from agent.traceloop.pointers import Pointers
from agent.traceloop.recorder import Recorder, RecorderSettings
from agent.traceloop.rings import Ring
from agent.traceloop.service import TraceloopService
from agent.traceloop.settings import Settings as Following
from gadget import catalog, syscalls
from gadget._generated import gadget_pb2 as pb
from gadget.errors import UsageError
from tests.bench.machine import enter
from tests.conftest import wait_until
from tests.fuzz.targets import TARGETS
from tests.pods import BUSYBOX, UNIFIED, BareContainer

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
        found = RecorderSettings(bpffs / "gadget/traceloop", tmp_path / "saved", wants, **settings)
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
    """The ring of a container, once the program knows it."""
    ring = wait_until(
        lambda: {ring.about.container.id: ring for ring in recorder.rings()}.get(container.id), "the ring"
    )
    change = recorder._pointers.change(ring.about.cgroup_id)
    if change and recorder.is_there(ring):
        change.result(20)
    return ring


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
def test_follow(slots: int, each: int, recording, container, workload) -> None:
    """While I follow four threads at full speed each call comes once with its whole path, or is counted as missing; and
    if they are not too many for the ring, none is missing.
    """
    with recording(slots=slots) as recorder:
        app = container()
        ring = ring_of(recorder, app)
        service = TraceloopService("node-a", recorder, settings=Following(follow_seconds=0.0, follow_polls=1000))
        work = start(app, workload("ends"), "paths", each)
        end = threading.Thread(target=lambda: (work.wait(), app.cgroup.rmdir()))
        end.start()
        replies = list(service.read(pb.TraceloopReadRequest(cgroup_id=ring.key, follow=True), lambda: True))
        end.join()
        total, dropped, busy = ring.state()["calls"], ring.state()["dropped"], recorder.missed()
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
    assert expected - len(found) <= missing + busy
    assert {number for _, number, _ in found} <= set(range(1_000_000, 1_000_000 + each))
    if slots == 1 << 16:
        assert (missing, dropped) == (0, 0)
        assert len(found) == expected or busy  # Linux 7.0 on
        assert [path for *_, path in found] == [path_of(tid, number) for tid, number, _ in found]
    for tid in {tid for tid, *_ in found}:
        numbers = [number for other, number, _ in found if other == tid]
        assert numbers == sorted(numbers)


def ring_memory(slots: int) -> int:
    return rings.memory_bytes(rings.ring_bytes(slots))


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
        with recording(slots=256) as recorder:
            ring = ring_of(recorder, app)
            run(before, str(program["before"]))
            assert names(recorder, ring) == {str(program["before"])}
        nested.append(inside(app, "meanwhile"))
        with recording(slots=256, total_bytes=ring_memory(256)) as recorder:
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


def test_nested_meanwhile(recording, container, tmp_path: Path) -> None:
    """A container that starts while no agent runs is recorded from its beginning, also what it does in cgroups that it has
    made inside its own, which take no ring from others, whatever their names are.
    """
    program = tmp_path / "nested"  # its path fits into a record
    shutil.copy(BUSYBOX, program)
    with recording(slots=256):
        pass
    app = container()
    nested = [inside(app, "init"), inside(app, "a" * 64)]
    nested.append(inside(nested[0], "deeper"))
    try:
        for each in nested:
            run(each, str(program))
        with recording(slots=256) as recorder:
            ring = ring_of(recorder, app)
            assert names(recorder, ring) == {str(program)}
            before = ring.state()["calls"]
            run(app, str(program))
            once = ring.state()["calls"] - before
            # a call more or less, as a process that is moved may have to begin one again
            assert abs(before - once * len(nested)) <= len(nested) < once
            made = {each.cgroup.stat().st_ino for each in nested}
            assert not made & {each.about.cgroup_id for each in recorder.rings()}
    finally:
        for each in reversed(nested):
            each.cgroup.rmdir()


ID = "0123456789abcdef" * 4
OF_CONTAINERS = (
    *(ID, f"cri-containerd-{ID}.scope", f"crio-{ID}.scope", f"libpod-{ID}.scope", f"{ID}.scope", f"docker-{ID}"),
    *(f"system.slice:cri-containerd:{ID}", f"x-{ID}", f"{'x' * 180}-{ID}.scope"),
)
OF_OTHERS = (
    *(f"crio-conmon-{ID}.scope", f"libpod-conmon-{ID}.scope", f"conmon-{ID}", f"kubepods-pod{ID}.slice", f"{ID}.slice"),
    *(f"x{ID}", f"-{ID}", f"{ID}0", f"{ID[1:]}", f"{ID[1:]}g", ID.upper(), f"{ID}.scope.scope", f"{ID}.service"),
    *("x" * 64, "x" * 200, f"run-{ID[:32]}.scope", f"{ID}-{'x' * 32}.scope", "system.slice", f"{ID}.scop"),
)


def test_who_takes_a_spare_ring(recording) -> None:
    """Rings that stand ready go to containers alone, and not to monitors beside them, or others with long names."""
    with recording(slots=64) as recorder:
        recorder.worker.stop()  # nobody gives one back
        spares = recorder._spares
        wait_until(lambda: (spares._fresh == 0).any(), "one of them")
        for name in (*OF_CONTAINERS, *OF_OTHERS):
            cgroup = UNIFIED / name
            cgroup.mkdir()
            made = cgroup.stat().st_ino
            taken = made in spares.waiting()
            cgroup.rmdir()
            assert taken == (name in OF_CONTAINERS) == bool(parse_path(f"/{name}")), name
            if taken:
                spares.replace(made)
                wait_until(lambda made=made: made not in spares._fresh, "the place")


def test_map_of_others(recording, bpffs: Path, tmp_path: Path) -> None:
    """Programs that look for containers in another map than the agent's are not gone on with, and that is told."""
    with recording(slots=64) as recorder:
        assert recorder.lost == ""
    with recording(slots=64) as recorder:
        assert recorder.lost == ""
    found = RecorderSettings(bpffs / "gadget/traceloop", tmp_path / "saved", lambda container: True, slots=64)
    with closing(Tracker()) as other, closing(Recorder(other, found)) as recorder:
        assert recorder.lost.startswith("nothing was recorded until this agent came: the programs of ")
        assert recorder.lost.endswith(" use other maps")


def test_end(recording, container) -> None:
    """A recorder that was told to end has nothing more to do, whatever containers are there."""
    with recording(slots=64) as recorder:
        ring_of(recorder, container())
        recorder.end()
        container()
        container("web")
        wait_until(lambda: not recorder._spares.waiting(), "its rest", 5)


def test_end_while_rings_are_made(recording) -> None:
    """A recorder that was told to end waits for the rings that are being made: a pin that came later would stay."""
    with recording(slots=64) as recorder:
        may_go_on = threading.Event()
        made = recorder._pointers.later(may_go_on.wait)
        end = threading.Thread(target=recorder.end)
        end.start()
        wait_until(lambda: recorder._pointers._pool._closed, "its end")
        assert recorder._kept.folder.exists()
        may_go_on.set()
        end.join()
        assert made.done()
        assert not recorder._kept.root.exists()


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
        wait_until(lambda: counts(bpffs) == own, "its count")
        found, low = pointers(bpffs), (ring.about.cgroup_id + 17) % BUCKETS
        ids = [low + BUCKETS * number for number in (1, 2, 3)]
        for cgroup_id in [*ids, ids[0]]:
            found.set(cgroup_id, ring, lambda: None)
        wait_until(lambda: counts(bpffs) == own | {low: 3}, "three of them")
        for left, cgroup_id in ((2, ids[0]), (2, ids[0]), (1, ids[2])):
            found.remove(cgroup_id)
            wait_until(lambda left=left: counts(bpffs) == own | {low: left}, f"{left} of them")
        found.close()
        again = pointers(bpffs)  # as an agent does that has been killed
        assert sorted(again.ids()) == sorted([ring.about.cgroup_id, ids[1]])
        assert counts(bpffs) == own | {low: 1}
        again.close()
    with recording(slots=64) as recorder:
        wait_until(lambda: counts(bpffs) == own, "the end of the others")  # nobody's cgroup points nowhere


def test_end_before_its_ring(recording, container, bpffs: Path, monkeypatch) -> None:
    """A container that ends before the kernel has been told of its ring leaves nothing in the map, however slow that is."""
    with recording(slots=64) as recorder:
        ring = ring_of(recorder, container())
        own = {ring.about.cgroup_id % BUCKETS: 1}
        wait_until(lambda: counts(bpffs) == own, "its count")
        found, go_on = pointers(bpffs), threading.Event()
        count = found._count

        def slowly(cgroup_id: int, more: int) -> None:
            assert more < 0 or go_on.wait(20)
            count(cgroup_id, more)

        monkeypatch.setattr(found, "_count", slowly)
        other = ring.about.cgroup_id + 17
        found.set(other, ring, lambda: None)
        found.remove(other)
        threading.Timer(0.5, go_on.set).start()
        found.close()
        again = pointers(bpffs)
        assert again.ids() == [ring.about.cgroup_id]
        assert counts(bpffs) == own
        again.close()


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
        ring = ring_of(recorder, app)
        run(app, "/bin/true")
        before = ring.state()["calls"]
        (links,) = bpffs.glob("gadget/traceloop/*/programs-*")
    links.rename(links.with_name("programs-older"))
    links.with_name("recorded").unlink()
    with recording(slots=64) as recorder:
        assert [path.name for path in links.parent.glob("programs-*")] == [links.name]
        assert ring_of(recorder, app).state()["calls"] == before > 0
        run(app, "/bin/true")
        assert ring_of(recorder, app).state()["calls"] == 2 * before


def test_torn(recording, container, workload) -> None:
    """What I read from a ring that is overwritten many times meanwhile is never a mixture of two calls; what could not be
    read is counted.
    """
    with recording(slots=16) as recorder:
        app = container()
        ring = ring_of(recorder, app)
        work = start(app, workload("ends"), "paths", 20011)
        seen = unread = 0
        while work.poll() is None:
            found = ring.snapshot()
            unread += found.unread
            own = [(row, text) for row in found.calls for *_, text in texts(np.array([row]), found.more[:0])]
            for row, text in own:
                expected = path_of(int(row["tid"]), int(row["args"][0]))
                assert text and expected.startswith(text), (row, text)
            mine = found.more[np.isin(found.more["owner"], [row["sequence"] for row, _ in own])]
            begin = MORE.fields["data"][1]
            assert not set(b"".join(row.tobytes()[begin : begin + int(row["length"])] for row in mine)) - set(b"p")
            seen += len(own)
        state = ring.state()
    assert seen > 1009
    assert unread + state["dropped"] > 0
    assert state["calls"] > 4 * 20011


def test_crash_is_kept(recording, container, workload) -> None:
    """When there is no room, what crashed a moment ago is not overwritten by what starts now: that has to wait a while."""
    with recording(slots=64, total_bytes=ring_memory(64), kept_seconds=2.0) as recorder:
        app = container()
        crashed = ring_of(recorder, app)
        start(app, workload("ends"), "exit3").wait()
        began = time.monotonic()
        app.cgroup.rmdir()
        late = container("shop", "late-0")
        wait_until(lambda: recorder.refused(), "the refusal")
        assert recorder.rings() == [crashed]
        found = ring_of(recorder, late)
        assert time.monotonic() - began > 1.9
        assert (recorder.rings(), recorder.refused()) == ([found], {})


def test_ended_well_is_not_kept(recording, container) -> None:
    """What ended well makes room at once."""
    with recording(slots=64, total_bytes=ring_memory(64)) as recorder:
        app = container()
        ring_of(recorder, app)
        run(app, "/bin/true")
        app.cgroup.rmdir()
        late = ring_of(recorder, container("shop", "late-0"))
        assert recorder.rings() == [late]


def test_lower_limit(recording, container, workload) -> None:
    """An agent that is started with less memory for recordings keeps to it: what ended goes first, then the youngest."""
    apps = []
    with recording(slots=64) as recorder:
        for number in range(4):
            apps.append(container("shop", f"cart-{number}"))
            ring_of(recorder, apps[-1])
        start(apps[0], workload("ends"), "exit3").wait()
        apps[0].cgroup.rmdir()
        wait_until(lambda: not recorder.is_there(recorder.rings()[0]), "the end")
    with recording(slots=64, total_bytes=2 * ring_memory(64) + 1) as recorder:
        assert {ring.about.container.pod for ring in recorder.rings()} == {"cart-1", "cart-2"}
        wait_until(lambda: [each.pod for each in recorder.refused().values()] == ["cart-3"], "the refusal")
        assert recorder.memory() == (2 * ring_memory(64), 2 * ring_memory(64) + 1)
        with pytest.raises(UsageError, match="node-a does not record that container: there is no memory for it"):
            list(TraceloopService("node-a", recorder).read(
                pb.TraceloopReadRequest(cgroup_id=next(iter(recorder.refused()))), lambda: True
            ))  # fmt: skip


def test_memory_is_what_the_kernel_counts(recording, container) -> None:
    """The memory that `status` tells of is what the kernel takes for the recordings."""
    with recording(slots=64) as recorder:
        fd = open_pinned(ring_of(recorder, container()).path)
        info = Path(f"/proc/self/fdinfo/{fd}").read_text()
        os.close(fd)
        (taken,) = (int(line.split()[1]) for line in info.splitlines() if line.startswith("memlock:"))
        every = 1 + rings.SPARES  # with those that stand ready
        assert every * taken <= recorder.memory()[0] <= every * (taken + mmap.PAGESIZE)


def test_long_names(recording, container) -> None:
    """A container whose names are none that Kubernetes takes is recorded without them, and the next one with its own."""
    with recording(slots=64, wants=lambda container: True) as recorder:
        odd = container("shop", "x" * 9000)
        assert ring_of(recorder, container()).about.container.pod == "cart-0"
        assert ring_of(recorder, odd).about.container.pod == ""


def test_two_boots(recording, tmp_path: Path) -> None:
    """Saved recordings of two boots are both there, although their containers had the same number."""
    (tmp_path / "saved").mkdir()
    for boot in ("one", "two"):
        (tmp_path / f"saved/layout-ring-7-{boot}").write_bytes(TARGETS["ring"].seed())
    with recording(slots=64) as recorder:
        assert [ring.about.cgroup_id for ring in recorder.rings()] == [7, 7]
        for ring in recorder.rings():
            found = recorder.find(ring.key)
            assert found and found.path == ring.path
