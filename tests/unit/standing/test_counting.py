"""What a standing run counts for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from agent.containers.identity import Container
from agent.containers.tracker import Tracker
from agent.limits import RunBudget
from agent.run.batch import Batch, Packed
from agent.run.runs import Runs
from agent.run.subscriber import Subscriber
from agent.standing import standing
from agent.standing.counting import MOST_SERIES, Counting
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.catalog import Gadget
from gadget.errors import GadgetError, UsageError
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


def table(gadget: Gadget, *rows: dict[str, Any]) -> list[Packed]:
    """A table of an interval."""
    made = np.zeros(len(rows), gadget.schema.dtype(gadget.schema.text_offset))
    for row, values in zip(made, rows, strict=True):
        for name, value in values.items():
            row[name] = value
    return [Packed(gadget.schema.text_offset, len(rows), made.tobytes())]


def counting_of(*metrics: str, clock: Any = lambda: 0.0, living: Any = list) -> Counting:
    return Counting(pb.Standing(name="refused.ones", metrics=metrics), CONNECTS, living, clock)


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


def test_many_series() -> None:
    """A container that makes up names costs no more than so many series: what is beyond counts as other."""
    made = counting_of("comm")
    made.take(events(*({"comm": b"name-%d" % number} for number in range(MOST_SERIES + 27))), NAMES)
    found = shown(made)
    assert len(found) == MOST_SERIES + 1 and sum(found.values()) == MOST_SERIES + 27
    assert found["run_refused_ones_by_comm_total", "other"] == 27


def test_hostile_names() -> None:
    """A name that would move a cursor is escaped."""
    made = counting_of("comm")
    made.take(events({"comm": b"a\x1b[2J\nb"}), NAMES)
    ((_, label),) = shown(made)
    assert label.isprintable()


def test_series_go() -> None:
    """The series of a pod goes five minutes after its last event if the pod is gone, and counts on if it comes back; that of what nobody can know goes after an hour."""
    now, living = [0.0], [Container("a" * 64, namespace="shop", pod="cart-0", name="app")]
    made = counting_of("namespace", "comm", clock=lambda: now[0], living=lambda: [*living])
    made.take(events({"cgroup_id": 7, "comm": b"sh"}), NAMES)
    by_space, by_comm = (f"run_refused_ones_by_{name}_total" for name in ("namespace", "comm"))
    now[0] = 3000.0
    assert shown(made) == {(by_space, "shop"): 1, (by_comm, "sh"): 1}
    living.clear()
    assert [*shown(made)] == [(by_comm, "sh")]
    now[0] = 4000.0
    assert [*shown(made)] == []
    made.take(events({"cgroup_id": 7, "comm": b"sh"}), NAMES)
    now[0] = 4299.0
    assert shown(made) == {(by_space, "shop"): 2, (by_comm, "sh"): 2}
    now[0] = 4301.0
    assert [*shown(made)] == [(by_comm, "sh")]


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


def test_sums_of_tables() -> None:
    """NUMBER: of a table adds the number up over all intervals; what is not known is left out."""
    cputop = catalog.find("cputop")
    made = Counting(pb.Standing(name="use", metrics=["cpu:pod", "waited:namespace"]), cputop, list)
    for waited in (5, DURATION_UNKNOWN, 12):
        rows = [{"cgroup_id": 7, "cpu": 10**9, "waited": waited}, {"cgroup_id": 9, "cpu": 3}]
        made.take(table(cputop, *rows), NAMES)
    assert shown(made) == {
        ("run_use_cpu_by_pod_seconds_total", "cart-0"): pytest.approx(3.0),
        ("run_use_cpu_by_pod_seconds_total", ""): pytest.approx(9e-9),
        ("run_use_waited_by_namespace_seconds_total", "shop"): pytest.approx(17e-9),
        ("run_use_waited_by_namespace_seconds_total", ""): 0,
    }


def test_histograms_of_tables() -> None:
    """A histogram of a table is one of Prometheus: buckets of all intervals and rows together, each duration once."""
    runqlat = catalog.find("runqlat")
    made = Counting(pb.Standing(name="waits", metrics=["waited:namespace"]), runqlat, list)
    few, many = [0] * 48, [0] * 48
    few[10], few[12], few[-1] = 3, 2, 7000  # up to 2^10, up to 2^12 nanoseconds
    many[10], many[-2], many[-1] = 1, 5, 10**15  # longer than any bound
    for value in (few, many):
        made.take(table(runqlat, {"cgroup_id": 7, "waited": value}, {"cgroup_id": 9, "waited": few}), NAMES)
    shop, _ = made.numbers()
    assert (shop.name, shop.labels) == ("run_waits_waited_by_namespace_seconds", {"namespace": "shop"})
    assert shop.value == pytest.approx((7000 + 10**15) * 1e-9)
    below = {float(bound): count for bound, count in shop.buckets}
    assert {round(bound * 1e9): count for bound, count in below.items() if bound < 1} | {
        "all": below[float("inf")]
    } == {
        **{1 << at: 4 if at < 12 else 6 for at in range(10, 30)},
        "all": 11,
    }


@pytest.mark.parametrize(
    ("gadget", "metric", "why"),
    [
        ("cputop", "namespace", "say what of cputop's tables, such as cpu:namespace"),
        ("cputop", "comm:namespace", "'comm' is no number to draw; there is cpu, waited, throttled"),
        ("snapshot_file", "namespace", "snapshot file cannot stand"),
        ("cputop", "", "with --metric"),
    ],
)
def test_tables_refused(gadget: str, metric: str, why: str) -> None:
    """What cannot be counted of a table is refused, and I am told what can."""
    with pytest.raises(UsageError, match=why):
        from_toml("x", f'gadget = "{gadget}"\nmetrics = {[metric] if metric else []}\n')


def test_interval_in_a_file() -> None:
    """A run of a table has its interval in its file."""
    text = 'gadget = "cputop"\ninterval = "10s"\nmetrics = ["cpu:namespace"]\n'
    run = from_toml("use", text)
    assert run.start.interval_ns == 10**10
    assert from_toml("use", to_toml(run)) == run
    with pytest.raises(UsageError, match="interval = 'soon': want a time such as 10s"):
        from_toml("use", text.replace("10s", "soon"))
    assert from_toml("use", text.replace("10s", "1d")).start.interval_ns == 86_400 * 10**9
    with pytest.raises(UsageError, match=r"use\.toml: --interval: from 100ms to 24h"):
        from_toml("use", text.replace("10s", "5d"))


class NoRuns:
    """Runs of which none can begin."""

    def subscribe(self, *_: Any) -> Subscriber:
        raise GadgetError("not here")


class Asked:
    """A reader of a run that is told names again once it has forgotten them."""

    rate, lost = 0.0, 0

    def __init__(self) -> None:
        self.told: set[int] = set()

    def news(self, cgroups: Iterable[int]) -> dict[int, Container]:
        found = {each: Container("c", namespace=f"n{each}") for each in cgroups if each not in self.told}
        self.told |= found.keys()
        return found

    def forget(self) -> None:
        self.told.clear()


def test_names_of_many_containers(tmp_path: Path) -> None:
    """Of tables names are known however many containers have come and gone, also that of one which stays."""
    run = from_toml("use", 'gadget = "cputop"\nmetrics = ["cpu:namespace"]\n')
    runs, tracker = cast(Runs, NoRuns()), cast(Tracker, SimpleNamespace(containers=list))
    made = standing.StandingRun(
        run, "", tmp_path, 1 << 20, 60.0, runs, "node-a", tracker, RunBudget(), lambda: None, named=8
    )
    reader = Asked()
    for number in range(1, 61, 3):
        there = [7000, number, number + 1, number + 2]
        rows = table(catalog.find("cputop"), *({"cgroup_id": each, "cpu": 10**9} for each in there))
        made._keep(Batch(rows, reader.news(there)), cast(Subscriber, reader))
    made.close()
    found = {number.labels["namespace"]: number.value for number in made.counting.numbers()}
    assert found == {"n7000": 20, **{f"n{number}": 1 for number in range(1, 61)}}
    assert len(made._names) <= 12


def test_names_in_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events count for their container also when what is kept of them goes into a new file."""
    started = pb.RunReply(node="node-a", started=pb.Started())
    monkeypatch.setattr(standing, "started_reply", lambda *_: started)
    run = from_toml("connects", 'gadget = "tcpconnect"\nmetrics = ["namespace"]\n')
    runs, tracker = cast(Runs, NoRuns()), cast(Tracker, SimpleNamespace(containers=list))
    made = standing.StandingRun(run, "", tmp_path, 1 << 20, 60.0, runs, "node-a", tracker, RunBudget(), lambda: None)
    monkeypatch.setattr(made.history, "is_full", lambda: True)
    reader = Asked()
    for _ in range(5):
        made._keep(Batch(events(*[{"cgroup_id": 7}] * 3), reader.news([7])), cast(Subscriber, reader))
    made.close()
    assert [(number.labels["namespace"], number.value) for number in made.counting.numbers()] == [("n7", 15)]
