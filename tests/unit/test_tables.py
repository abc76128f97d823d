"""Tables on their way: their layout in C, their intervals, and their sums."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import hatch_build
from agent.containers.identity import Container
from agent.containers.tracker import Cgroup
from agent.run import clocked
from agent.run.batch import TableInfo
from agent.run.choosing import Choosing
from agent.run.clocked import Clock
from agent.run.runs import begin, key_of
from agent.run.snapshot import Snapshots, joined
from agent.run.source import LOSSES
from agent.run.table import Tables, most_bytes
from agent.run.totals import Totals
from agent.selection import Selection
from gadget import catalog, standing
from gadget._generated import gadget_pb2 as pb
from gadget.btf import BtfError
from gadget.errors import UsageError
from gadget.kinds.times import DURATION_UNKNOWN
from gadget.schema import KEY_OFFSET, SNAPSHOT, TABLE, Schema, read_source

GADGETS = Path(__file__).parents[1] / "gadgets"


def describe(folder: Path, tmp_path: Path, **changes: str) -> dict:
    """What the build makes of a gadget whose source has been changed."""
    text = (folder / f"{folder.name}.bpf.c").read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "changed.bpf.c").write_text(text)
    hatch_build.compile_object(tmp_path / "changed.bpf.c", "x86_64", tmp_path / "changed.bpf.o")
    return hatch_build.describe(folder, (tmp_path / "changed.bpf.o").read_bytes())


@pytest.fixture(scope="module")
def writes(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    return Schema.from_json(describe(GADGETS / "writes", tmp_path_factory.mktemp("writes"))["schema"])


def test_a_table_is_key_and_value(tmp_path: Path) -> None:
    """A gadget with GADGET_TABLE has the fields of its key and its value, and the time of the table."""
    entry = describe(GADGETS / "writes", tmp_path)
    schema = Schema.from_json(entry["schema"])
    assert entry["source"] == TABLE
    assert [field.name for field in schema.shown] == ["timestamp", "cgroup_id", "pid", "uid", "comm", "writes", "bytes"]
    assert [field.offset for field in schema.shown] == [0, 8, 16, 20, 24, 40, 48]
    assert schema.text_offset == 56


def test_a_snapshot_is_its_row(tmp_path: Path) -> None:
    """A gadget with GADGET_SNAPSHOT has the fields of its row."""
    entry = describe(GADGETS / "processes", tmp_path)
    schema = Schema.from_json(entry["schema"])
    assert entry["source"] == SNAPSHOT
    assert [field.name for field in schema.shown][-2:] == ["comm", "parent"]


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("gadget_uid uid DOC", "__u8 small; gadget_uid uid DOC", "padding"),
        ("__u64 writes DOC", "__u64 pid DOC", "the same name"),
        ("__u64 writes DOC", "__u32 writes DOC", "writes of GADGET_TABLE is added up, so it has to have 8 bytes"),
        ("#define ENTRIES 4096", "#define ENTRIES 65537", "more than 65536 rows"),
    ],
)
def test_refused(tmp_path: Path, old: str, new: str, why: str) -> None:
    """A table whose rows could not be told apart, added up or sent is refused when it is built."""
    changes = {old: new}
    if "pid" in new:
        changes["value->writes"] = "value->pid"
    with pytest.raises(hatch_build.BuildError, match=f"writes: .*{why}"):
        describe(GADGETS / "writes", tmp_path, **changes)


def test_neither(tmp_path: Path) -> None:
    """An object without any source is told what it lacks."""
    elf = (Path(hatch_build.OBJECTS) / "x86_64" / "tracker.bpf.o").read_bytes()
    with pytest.raises(BtfError, match="no GADGET_EVENTS, GADGET_RESERVED, GADGET_TABLE or GADGET_SNAPSHOT"):
        read_source(hatch_build.read_types(elf)[1])


def test_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals have the same length, however late each is read; one that was missed is not made up for."""
    now = [100.0]
    monkeypatch.setattr(clocked.time, "monotonic", lambda: now[0])
    clock = Clock(2 * 10**9, at_once=False)
    assert (clock.is_due, clock.due) == (False, 102.0)
    now[0] = 102.5
    assert clock.is_due
    assert clock.next() == TableInfo(1, 2_500_000_000)
    assert clock.due == 104.0
    now[0] = 111.0
    assert clock.next() == TableInfo(2, 8_500_000_000)
    assert clock.due == 112.0
    clock.end(last=True)
    assert clock.due == inf


@pytest.mark.parametrize(("late", "due"), [(103.9, 106.0), (104.0, 106.0), (109.5, 110.0), (109.9, 112.0)])
def test_no_empty_interval(monkeypatch: pytest.MonkeyPatch, late: float, due: float) -> None:
    """After a delay no table is of almost no time: intervals end where they would have, those that are over do not."""
    now = [100.0]
    monkeypatch.setattr(clocked.time, "monotonic", lambda: now[0])
    clock = Clock(2 * 10**9, at_once=False)
    now[0] = late
    clock.next()
    assert clock.due == due


@pytest.mark.parametrize(("takes", "due"), [(0.5, 102.0), (1.9, 104.0), (2.5, 106.0), (7.0, 114.0)])
def test_slow_snapshots(monkeypatch: pytest.MonkeyPatch, takes: float, due: float) -> None:
    """Snapshots that take longer than their interval leave the node as much time as they take."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    snapshots = object.__new__(Snapshots)
    snapshots._walks = False
    snapshots._clock = Clock(2 * 10**9, at_once=True)
    monkeypatch.setattr(snapshots, "_iterate", lambda data: now.__setitem__(0, now[0] + takes))
    assert list(snapshots.read()) == []
    assert snapshots.whole == TableInfo(1, 0)
    assert snapshots.due == due
    snapshots._clock.end(last=True)
    assert list(snapshots.read()) == []


@pytest.mark.parametrize(
    ("ends", "totals", "whole"),
    [
        (100.5, False, (1, 500_000_000, True)),
        (102.5, False, (1, 2_500_000_000, False)),
        (100.5, True, (1, 500_000_000, False)),
    ],
)
def test_the_end_cuts(monkeypatch: pytest.MonkeyPatch, ends: float, totals: bool, whole: tuple[int, int, bool]) -> None:
    """The table that the end has cut short says so; one of a whole interval, or of totals, does not."""
    now = [100.0]
    monkeypatch.setattr(clocked.time, "monotonic", lambda: now[0])
    tables = object.__new__(Tables)
    tables.object = cast(Any, SimpleNamespace(detach=lambda: None))
    tables._lib = cast(Any, SimpleNamespace(bpf_map_lookup_and_delete_batch=None, bpf_map_lookup_batch=None))
    tables._fds, tables._clock, tables._totals, tables.repeats = [5, 6], Clock(2 * 10**9, at_once=False), None, totals
    tables._detached = tables._cut = False
    monkeypatch.setattr(tables, "_exchange", lambda: 5)
    monkeypatch.setattr(tables, "_rows", lambda read, table, now: np.zeros((table, 56), np.uint8))
    now[0] = ends
    rows, so_far = tables.so_far()
    assert (len(rows), so_far) == (5, (1, whole[1], True))
    tables.detach()
    assert [len(rows) for rows in tables.read()] == [5]
    assert tables.whole == whole
    assert list(tables.read()) == []


def test_once() -> None:
    """A snapshot without an interval is taken at once, and never again."""
    clock = Clock(0, at_once=True)
    assert clock.is_due
    assert clock.next().number == 1
    assert clock.due == inf


def test_totals(tmp_path: Path) -> None:
    """Totals are the sums of all intervals, also of keys that are idle; keys beyond the bound are lost, and counted."""
    schema = Schema.from_json(describe(GADGETS / "writes", tmp_path)["schema"])

    def rows(at: int, *values: tuple[int, int, int]) -> np.ndarray:
        made = np.zeros(len(values), schema.dtype(schema.text_offset))
        made["timestamp"] = at
        for row, (pid, writes, size) in zip(made, values, strict=True):
            row["pid"], row["writes"], row["bytes"] = pid, writes, size
        return made.view(np.uint8).reshape(len(values), schema.text_offset)

    totals = Totals(schema, 32, schema.text_offset, 3)
    totals.add(rows(1, (7, 1, 10), (5, 2, 20)), 1)
    totals.add(rows(2, (5, 1, 1)), 2)
    totals.add(rows(3, (9, 1, 3), (7, 1, 5), (2, 1, 1)), 3)
    found = totals.add(rows(4), 4).view(schema.dtype(schema.text_offset))[:, 0]
    assert found[["pid", "writes", "bytes"]].tolist() == [(5, 3, 21), (7, 2, 15), (9, 1, 3)]
    assert set(found["timestamp"].tolist()) == {4}
    assert totals.lost == 1


def test_rows_with_text(tmp_path: Path) -> None:
    """A row may have text, such as a path; of a total it is the latest row's."""
    text = 'gadget_word name DOC("a name"); GADGET_ROW_TEXT(32);'
    entry = describe(
        GADGETS / "writes", tmp_path, **{'__u64 bytes DOC("bytes written");': f'__u64 bytes DOC("bytes"); {text}'}
    )
    schema = Schema.from_json(entry["schema"])
    size = schema.text_offset + 34
    assert (schema["name"].offset, schema["text_length"].offset, schema.text_offset) == (56, 60, 62)
    totals = Totals(schema, 32, size, 3)
    for number, name in enumerate((b"first", b"second"), 1):
        rows = np.zeros(1, schema.dtype(size))
        rows["writes"], rows["bytes"], rows["name"]["length"], rows["text_length"] = (
            number,
            number,
            len(name),
            len(name),
        )
        packed = rows.view(np.uint8).reshape(1, size)
        packed[0, schema.text_offset : schema.text_offset + len(name)] = np.frombuffer(name, np.uint8)
        found = totals.add(packed, number)
    row = found.view(schema.dtype(size))[0, 0]
    assert (row["writes"], row["name"]["length"], row["text_length"]) == (3, 6, 6)
    assert found[0, schema.text_offset :].tobytes().rstrip(b"\0") == b"second"


def test_totals_of_what_is_not_known(tmp_path: Path) -> None:
    """Totals leave out durations that are not known; only where none is known, the total is not known, either."""
    changes = {"__u64 bytes DOC": 'gadget_duration waited[2] DOC("twice"); gadget_duration bytes DOC'}
    schema = Schema.from_json(describe(GADGETS / "writes", tmp_path, **changes)["schema"])
    totals = Totals(schema, 32, schema.text_offset, 3)
    for pids, times in (([7, 5], [DURATION_UNKNOWN, 20]), ([7, 5], [DURATION_UNKNOWN, DURATION_UNKNOWN]), ([5], [3])):
        rows = np.zeros(len(pids), schema.dtype(schema.text_offset))
        rows["pid"], rows["bytes"], rows["waited"][:, 1] = pids, times, times
        found = totals.add(rows.view(np.uint8).reshape(len(pids), -1), 1).view(rows.dtype)[:, 0]
    assert found[["pid", "bytes"]].tolist() == [(5, 23), (7, DURATION_UNKNOWN)]
    assert found["waited"].tolist() == [[0, 23], [0, DURATION_UNKNOWN]]


def test_totals_of_what_is_not_added(tmp_path: Path) -> None:
    """A total of what was so in the end, such as a round-trip time, is the latest; one of the longest is the longest."""
    longest = 'gadget_longest_duration longest DOC("the longest"); gadget_latest_duration bytes DOC'
    changes = {"__u64 bytes DOC": longest}
    schema = Schema.from_json(describe(GADGETS / "writes", tmp_path, **changes)["schema"])
    totals = Totals(schema, 32, schema.text_offset, 3)
    for latest in (20, 3):
        rows = np.zeros(1, schema.dtype(schema.text_offset))
        rows["writes"], rows["bytes"], rows["longest"] = 2, latest, latest
        found = totals.add(rows.view(np.uint8).reshape(1, -1), 1).view(rows.dtype)[:, 0]
    assert found[["writes", "bytes", "longest"]].tolist() == [(4, 3, 20)]


@pytest.mark.parametrize("key", ["", "char name[200];", "char name[320];"])
def test_memory_of_totals(tmp_path: Path, key: str) -> None:
    """What --totals take of memory is in the agent's budget."""
    schema = Schema.from_json(
        describe(GADGETS / "writes", tmp_path, **{"gadget_pid pid": f"{key} gadget_pid pid"})["schema"]
    )
    size, entries = schema.text_offset, 20_011
    rows = np.zeros(entries, schema.dtype(size))
    rows["pid"] = np.random.default_rng(7).permutation(entries)
    table = rows.view(np.uint8).reshape(entries, size)
    tracemalloc.start()
    try:
        totals = Totals(schema, schema["writes"].offset - KEY_OFFSET, size, entries)
        for now in range(3):
            totals.add(table, now)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    taken = most_bytes(entries, size, totals=True) - most_bytes(entries, size, totals=False)
    assert most <= taken <= 2 * most, (most / entries, taken / entries)


@pytest.mark.parametrize(
    ("source", "asked", "said"),
    [
        ("events", {"interval_ns": 10**9}, "execsnoop has events, no tables: it takes no --interval"),
        ("snapshot", {"totals": True}, "execsnoop counts nothing: it takes no --totals"),
        ("table", {"interval_ns": 10**7}, "--interval: from 100ms to 24h"),
        ("table", {"interval_ns": 10**15}, "--interval: from 100ms to 24h"),
    ],
)
def test_no_such_source(source: str, asked: dict[str, Any], said: str) -> None:
    """What a gadget cannot do is refused before anything is loaded."""
    tracker: Any = SimpleNamespace(map_fd=-1, mount=Path("/"))
    gadget = replace(catalog.find("execsnoop"), source=source)
    with pytest.raises(UsageError) as refused:
        begin(gadget, {}, tracker, Selection.of(pb.Selection()), **asked)
    assert str(refused.value) == said


def test_who_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who ask for the same tables share a run; who wants totals, or one snapshot, has a beginning of their own."""

    def shared(source: str, **asked: Any) -> bool:
        gadget = replace(catalog.find("execsnoop"), source=source)
        monkeypatch.setattr("agent.run.runs.find", lambda name: gadget)
        start = pb.Start(gadget="execsnoop", **asked)
        return key_of(start) == key_of(start)

    assert shared("events")
    assert shared("table", interval_ns=10**9)
    assert not shared("table", totals=True)
    assert shared("snapshot", interval_ns=10**9)
    assert not shared("snapshot")


def test_standing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A standing run of a gadget with tables is refused unless it says what to count of them: it keeps events."""
    gadget = replace(catalog.find("execsnoop"), source=TABLE)
    monkeypatch.setattr(standing, "find", lambda name: gadget)
    with pytest.raises(
        UsageError, match="mine: a standing run keeps no tables: say what to count of them, with --metric"
    ):
        standing.check(pb.Standing(name="mine", start=pb.Start(gadget="execsnoop")))


class Node:
    """A source of totals, and the tracker of their containers, which knows what a test says."""

    def __init__(self, schema: Schema, **selection: Any) -> None:
        self.gadget = SimpleNamespace(schema=schema)
        self.host, self.holds, self.repeats, self.generation = False, False, True, 1
        self.object = SimpleNamespace(set=lambda *args: True, delete=lambda *args: True, missed=lambda: 0)
        self.known: dict[int, Cgroup] = {}
        self.app: dict[int, str | None] = {}
        self.choosing = Choosing(cast(Any, self), cast(Any, self), Selection.of(pb.Selection(**selection)))

    def resolve(self, number: int) -> Cgroup | None:
        return self.known.get(number)

    def labels(self, container: Container) -> dict[str, str] | None:
        app = self.app[int(container.id)]
        return None if app is None else {"app": app}

    def losses(self) -> tuple[list[int], dict[int, list[int]]]:
        return [0] * len(LOSSES), {}

    def know(self, number: int, namespace: str = "shop", app: str | None = None, **more: Any) -> None:
        container = Container(str(number), namespace=namespace, pod="cart", pod_uid="u")
        self.known[number], self.app[number] = Cgroup(number, container, 1, **more), app
        self.generation += 1

    def forget(self, number: int) -> None:
        del self.known[number]
        self.generation += 1

    def choose(self, *cgroups: int) -> list[int]:
        """The cgroups of the rows that are kept, of a table with a row of each of these."""
        rows = np.zeros(len(cgroups), self.gadget.schema.dtype(self.gadget.schema.text_offset))
        rows["cgroup_id"] = cgroups
        kept = self.choosing([rows.view(np.uint8).reshape(len(cgroups), -1)])
        return [number for part in kept for number in part.view(rows.dtype)["cgroup_id"][:, 0].tolist()]

    def missed(self) -> list[tuple[int, int]]:
        return [(loss.cgroup_id, loss.count) for loss in self.choosing.losses()]


def test_totals_miss_once(writes: Schema) -> None:
    """With --totals a row that cannot be told whose it is counts once as lost or not decided, however many tables follow."""
    node = Node(writes, labels="app=cart")
    node.know(7)
    for _ in range(3):
        assert node.choose(7, 9, 9) == [7]
        assert (node.missed(), node.choosing.undecided) == ([(9, 2)], 1)
    node.know(7, app="cart")
    node.know(9, app="web")
    assert node.choose(7, 9, 9) == [7]
    assert (node.missed(), node.choosing.undecided) == ([], 0)


def test_uncounted(writes: Schema) -> None:
    """What was given of a table before it is whole is not counted twice as lost or not decided."""
    node = Node(writes, labels="app=cart")
    node.repeats = False
    node.know(7)
    node.choose(7, 9)
    with node.choosing.uncounted():
        assert node.choose(7, 7, 9) == [7, 7]
        assert (node.missed(), node.choosing.undecided) == ([(9, 2)], 3)
    assert (node.missed(), node.choosing.undecided) == ([(9, 1)], 1)


def test_totals_of_who_is_gone(writes: Schema) -> None:
    """With --totals containers that have ended keep their rows, also when the node knows them no more; others stay out."""
    node = Node(writes, namespaces=["shop"])
    node.know(7)
    node.know(8, "web")
    assert node.choose(7, 8) == [7]
    node.forget(7)
    node.forget(8)
    for _ in range(2):
        assert node.choose(7, 8) == [7]
        assert (node.missed(), node.choosing.undecided) == ([], 0)


def test_totals_of_labels_that_are_gone(writes: Schema) -> None:
    """With --totals and -l a pod that is gone with its labels stays what it was: chosen, or not."""
    node = Node(writes, labels="app=cart")
    node.know(7, app="cart")
    node.know(8, app="web")
    assert node.choose(7, 8) == [7]
    node.know(7, ended=5)
    node.know(8, ended=5)
    assert node.choose(7, 8) == [7]
    assert (node.missed(), node.choosing.undecided) == ([], 0)


def test_labels_not_known_yet(tmp_path: Path) -> None:
    """A row of a pod whose labels are not known yet is in its table, and is counted; one that is not chosen is not."""
    schema = Schema.from_json(describe(GADGETS / "writes", tmp_path)["schema"])
    labels = {7: None, 8: {"app": "web"}, 9: {"app": "cart"}}
    source = SimpleNamespace(
        gadget=SimpleNamespace(schema=schema),
        host=False,
        holds=False,
        repeats=False,
        object=SimpleNamespace(set=lambda *args: True, missed=lambda: 0),
    )
    tracker = SimpleNamespace(
        generation=1,
        resolve=lambda number: Cgroup(number, Container(str(number), namespace="shop", pod="cart", pod_uid="u"), 1),
        labels=lambda container: labels[int(container.id)],
    )
    choosing = Choosing(cast(Any, source), cast(Any, tracker), Selection.of(pb.Selection(labels="app=cart")))
    rows = np.zeros(3, schema.dtype(schema.text_offset))
    rows["cgroup_id"] = [7, 8, 9]
    (kept,) = choosing([rows.view(np.uint8).reshape(3, -1)])
    assert kept.view(rows.dtype)["cgroup_id"][:, 0].tolist() == [7, 9]
    assert (choosing.undecided, choosing.waiting) == (1, False)


def test_rows_of_several_slots() -> None:
    """A row with long text arrives whole, whatever stands before and behind it."""
    slots = np.zeros((6, 24), np.uint8)
    for at, (number, letter) in enumerate([(0, "a"), (0, "b"), (1, "c"), (2, "d"), (0, "e"), (1, "f")]):
        slots[at, :KEY_OFFSET] = np.array([number], np.uint64).view(np.uint8)
        slots[at, KEY_OFFSET:] = ord(letter)
    found = {bytes(row[KEY_OFFSET:]) for rows in joined(slots) for row in rows}
    assert found == {b"a" * 16, b"b" * 16 + b"c" * 16 + b"d" * 16, b"e" * 16 + b"f" * 16}
