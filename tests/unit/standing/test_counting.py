"""What a standing run counts for Prometheus."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agent.run.batch import Packed
from agent.standing import counting
from agent.standing.counting import Counting
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import UsageError
from gadget.kinds.times import DURATION_UNKNOWN
from gadget.standing import from_toml, to_toml

CONNECTS = catalog.find("tcpconnect")
NAMES = {7: pb.Container(cgroup_id=7, namespace="shop", pod="cart-0", container="app", id="a" * 64)}


def events(*rows: dict[str, Any]) -> list[Packed]:
    """Attempts to connect."""
    size = CONNECTS.schema.text_offset + 8
    made = np.zeros(len(rows), CONNECTS.schema.dtype(size))
    for row, values in zip(made, rows, strict=True):
        for name, value in values.items():
            row[name] = value
    return [Packed(size, len(rows), made.tobytes())]


def counting_of(*metrics: str, clock: Any = lambda: 0.0) -> Counting:
    return Counting(pb.Standing(name="refused.ones", metrics=metrics), CONNECTS, clock)


def shown(made: Counting) -> dict[tuple[str, ...], float]:
    return {(number.name, *number.labels.values()): number.value for number in made.numbers()}


def test_counts() -> None:
    """--metric counts events by the values of fields, in their words, each once, over all batches."""
    made = counting_of("namespace,pod,error")
    for _ in range(3):
        made.take(
            events(
                *[{"cgroup_id": 7, "error": 111}] * 5, *[{"cgroup_id": 7}] * 2, *[{"cgroup_id": 9, "error": 111}] * 4
            ),
            NAMES,
        )
    name = "run_refused_ones_by_namespace_pod_error_total"
    assert shown(made) == {
        (name, "shop", "cart-0", "ECONNREFUSED"): 15,
        (name, "shop", "cart-0", "-"): 6,
        (name, "", "", "ECONNREFUSED"): 12,
    }


def test_all_together() -> None:
    """Without fields a number is drawn of all events."""
    made = counting_of("latency:")
    made.take(events({"latency": 1000}, {"latency": 3}), NAMES)
    assert shown(made) == {("run_refused_ones_latency_seconds",): pytest.approx(1003e-9)}


def test_histogram() -> None:
    """NUMBER: draws a histogram, whose buckets hold each event once; what is not known is in none."""
    made = counting_of("latency:namespace")
    values = [1, 2, 3, 1000, 1 << 40, DURATION_UNKNOWN]
    made.take(events(*({"cgroup_id": 7, "latency": value} for value in values)), NAMES)
    (number,) = made.numbers()
    assert number.name == "run_refused_ones_latency_by_namespace_seconds"
    assert number.value == pytest.approx(sum(values[:-1]) * 1e-9)
    below = {float(bound): count for bound, count in number.buckets}
    at_most = {
        value: max(count for bound, count in below.items() if bound <= value * 1e-9 * 1.001) for value in (1, 1024)
    }
    assert at_most == {1: 1, 1024: 4} and below[float("inf")] == 5
    assert sorted(below.values()) == [count for _, count in sorted(below.items())]


def test_many_series(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that makes up names costs no more than so many series: what is beyond counts as other."""
    monkeypatch.setattr(counting, "MOST_SERIES", 10)
    made = counting_of("comm")
    made.take(events(*({"comm": b"name-%d" % number} for number in range(37))), NAMES)
    found = shown(made)
    assert len(found) == 11 and sum(found.values()) == 37
    assert found["run_refused_ones_by_comm_total", "other"] == 27


def test_hostile_names() -> None:
    """A name that would move a cursor is escaped."""
    made = counting_of("comm")
    made.take(events({"comm": b"a\x1b[2J\nb"}), NAMES)
    ((_, label),) = shown(made)
    assert label.isprintable()


def test_series_go() -> None:
    """Series of what has been gone for an hour go."""
    now = [0.0]
    made = counting_of("namespace", clock=lambda: now[0])
    made.take(events({"cgroup_id": 7}), NAMES)
    now[0] = 3000.0
    made.take(events({"cgroup_id": 9}), NAMES)
    assert len(shown(made)) == 2
    now[0] = 4000.0
    assert [*shown(made)] == [("run_refused_ones_by_namespace_total", "")]


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ("dst", "cannot count by 'dst'; there is namespace, pod, container, uid"),
        ("nothing", "cannot count by 'nothing'"),
        ("namespace,namespace", "up to 4 fields, each once"),
        ("comm:namespace", "'comm' is no number to draw; there is version, retransmits, latency"),
    ],
)
def test_mistyped(metric: str, why: str) -> None:
    """A metric that cannot be is told with those fields that there are."""
    with pytest.raises(UsageError, match=why):
        from_toml("connects", f'gadget = "tcpconnect"\nmetrics = ["{metric}"]\n')


def test_definition() -> None:
    """The file of a run has its metrics, and says the same when it is read again."""
    run = from_toml("connects", 'gadget = "tcpconnect"\nmetrics = ["namespace,error", "latency:pod"]\n')
    assert list(run.metrics) == ["namespace,error", "latency:pod"]
    assert from_toml("connects", to_toml(run)) == run
