"""Histograms: what is drawn, filtered, sorted and added up of them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.run.totals import Totals
from gadget import catalog, filters
from gadget.errors import UsageError
from gadget.kinds import HISTOGRAM
from gadget.kinds.histograms import buckets
from gadget.rows import Decoder
from gadget.schema import value_offset
from kubectl_gadget.output import Look, choose_fields, make_output
from kubectl_gadget.stream.request import make_request
from tests.unit.test_layout import screen
from tests.unit.test_snapshots import batch

RUNQLAT = catalog.find("runqlat")
#: As many counts as gadget_histogram has, and the sum.
SIZE = 48


def histogram(*durations: int) -> list[int]:
    """What a program in the kernel makes of durations."""
    value = [0] * SIZE
    for each in durations:
        value[min(max(each - 1, 0).bit_length(), SIZE - 2)] += 1
    return [*value[:-1], sum(durations)]


def table(*values: list[int], pod: str = "cart-0") -> list[tuple[object, ...]]:
    """Rows of runqlat as its default form has them."""
    fields = choose_fields(RUNQLAT, "histogram", "", [])
    told = batch(RUNQLAT, [{"pid": 0, "waited": value} for value in values])
    told.containers[0].pod = pod
    return [
        row for _, row, _ in Decoder("node-a", RUNQLAT.schema).rows(told, [f.name for f in fields], lambda table: None)
    ]


@given(st.lists(st.integers(1, 1 << 45), min_size=1))
def test_parts(durations: list[int]) -> None:
    """Half of the durations are at most as long as p50 says, which is less than twice what the half's longest took."""
    found = HISTOGRAM.member_of(histogram(*durations))
    ranked = sorted(durations)
    assert (found["count"], found["sum"]) == (len(durations), sum(durations))
    for name, part in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        exact = ranked[max(-(-len(ranked) * round(part * 1000) // 1000) - 1, 0)]
        assert exact <= found[name] < 2 * exact or found[name] == exact == 1


def test_buckets() -> None:
    """Each duration is counted where it is longer than one bound and at most the other."""
    assert [*buckets(histogram(1, 2, 3, 8))] == [(0, 1, 1), (1, 2, 1), (2, 4, 1), (4, 8, 1)]
    assert [*buckets(histogram(1 << 60))] == [(1 << 45, None, 1)]
    assert [*buckets(histogram())] == []


def test_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    """A histogram is drawn with a bar for each length; many lengths without any are one line."""
    fields = choose_fields(RUNQLAT, "histogram", "", [])
    output = make_output("histogram", fields, {}, Look(fixed={"node": "node-a"}))
    output.write(table(histogram(1000, 1500, 1500, 100_000, 5_000_000_000)))
    assert capsys.readouterr().out == (
        "shop  cart-0  cart: 5, half within 2.0µs, 99% within 8.6s\n"
        "   512ns –  1.0µs  1  █████████████████████████\n"
        "   1.0µs –  2.0µs  2  ██████████████████████████████████████████████████\n"
        "       …\n"
        "  65.5µs –  131µs  1  █████████████████████████\n"
        "       …\n"
        "    4.3s –   8.6s  1  █████████████████████████\n"
    )


def test_no_upper_end(capsys: pytest.CaptureFixture[str]) -> None:
    """The last length has no upper end: of what is so long I am told that it is more, never that it is at most so."""
    assert HISTOGRAM.member_of(histogram(1 << 60))["p50"] == (1 << 45) + 1
    assert HISTOGRAM.member_of(histogram(1 << 45))["p50"] == 1 << 45
    output = make_output("histogram", choose_fields(RUNQLAT, "histogram", "", []), {}, Look(fixed={"node": "node-a"}))
    output.write(table(histogram(1000, 1500, 1 << 60)))
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "shop  cart-0  cart: 3, half within 2.0µs, 99% more than 9h46m"
    assert last.startswith("   9h46m –      ∞  1  █")
    parts = [RUNQLAT.schema.parts[f"waited.{name}"] for name in ("p50", "p99")]
    make_output("columns", parts, {}).write([((1 << 20), (1 << 45) + 1), (1, 2)])
    shown = [line.split("  ")[-1].strip() for line in capsys.readouterr().out.splitlines()[1:]]
    assert shown == [">9h46m", "2ns"]


def test_numbers_are_whole() -> None:
    """However narrow my terminal is: of the line above a histogram names are cut, in their middle, and no number."""
    with screen(72) as shown:
        output = make_output("histogram", choose_fields(RUNQLAT, "histogram", "", []), {})
        output.write(table(histogram(1000, 1500, 1500, 100_000, 5_000_000_000), pod="cart-6c9f7d5b8-x2x7l"))
    assert shown.lines[0] == "node-a  shop  ca…d5b8-x2x7l  cart: 5, half within 2.0µs, 99% within 8.6s"


def test_room() -> None:
    """On a terminal as many histograms are drawn as there is room for, and at least one."""
    output = make_output("histogram", choose_fields(RUNQLAT, "histogram", "", []), {})
    rows = table(*[histogram(1000, 2000)] * 3)
    assert [output.fitting(rows, room) for room in (1, 4, 8, 12, 100)] == [1, 1, 2, 3, 3]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has count, sum, percentiles and the counts, in nanoseconds."""
    fields = choose_fields(RUNQLAT, "json", "waited", [])
    make_output("json", fields, {}).write([(histogram(3, 1 << 60),)])
    assert json.loads(capsys.readouterr().out)["waited"] == {
        "count": 2, "sum": 3 + (1 << 60), "p50": 4, "p90": (1 << 45) + 1, "p99": (1 << 45) + 1,
        "buckets": [{"over": 2, "upTo": 4, "count": 1}]
        + [{"over": 1 << at, "upTo": 2 << at, "count": 0} for at in range(2, 45)]
        + [{"over": 1 << 45, "upTo": None, "count": 1}],
    }  # fmt: skip


def test_filtered() -> None:
    """I filter by the parts of a histogram; by itself I am told how."""
    told = batch(RUNQLAT, [{"pid": 0, "waited": histogram(*[each] * 7)} for each in (1000, 1_000_000)])
    keep = filters.parse("waited.p99>=1ms,waited.count==7", RUNQLAT.schema)
    rows = Decoder("node-a", RUNQLAT.schema).rows(told, ["waited.p99"], keep)
    assert [row for _, row, _ in rows] == [(1 << 20,)]
    with pytest.raises(UsageError, match=r"want one of its parts, such as waited.p99>10ms"):
        filters.parse("waited>1ms", RUNQLAT.schema)


def test_totals() -> None:
    """Totals of histograms are those of all durations."""
    key_size = sum(RUNQLAT.schema[name].size for name in ("cgroup_id", "pid", "comm", "uid"))
    size = value_offset(key_size) + SIZE * 8
    totals = Totals(RUNQLAT.schema, key_size, size, 10)
    for durations in ((5, 17), (17, 1000)):
        row = np.zeros(1, RUNQLAT.schema.dtype(size))
        row["waited"] = histogram(*durations)
        found = totals.add(row.view(np.uint8).reshape(1, -1), 0)
    assert found.view(RUNQLAT.schema.dtype(size))[0]["waited"].tolist() == [histogram(5, 17, 17, 1000)]


def test_switch_shows_its_fields() -> None:
    """With --processes I see of which process a row is, and who asks for the process turns that on."""
    asked = make_request(RUNQLAT, {"param_processes": True}, "columns", "", (), "")
    assert [each.name for each in asked.fields][4:6] == ["pid", "comm"]
    assert make_request(RUNQLAT, {}, "columns", "+pid", (), "").parameters == {"processes": "True"}
    assert "pid" not in [each.name for each in make_request(RUNQLAT, {}, "columns", "", (), "").fields]


def test_hostile_sizes() -> None:
    """A histogram of an agent that means harm has as many counts as a duration can need, or is refused."""
    assert [size for size in (8, 12, 16, 384, 520, 528, 4096) if HISTOGRAM.fits(size)] == [16, 384, 520]
    assert SimpleNamespace(**HISTOGRAM.member_of([1] * 65)).count == 64
