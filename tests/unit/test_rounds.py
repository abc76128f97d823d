"""Tables of several nodes, and the order of their rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gadget import catalog
from gadget.errors import UsageError
from kubectl_gadget.stream.order import read_order
from kubectl_gadget.stream.rounds import AHEAD, ONCE_SECONDS, Rounds

EXECSNOOP = catalog.find("execsnoop")


def test_all_nodes() -> None:
    """The tables of all nodes are shown together as soon as the last one is there."""
    rounds = Rounds(2.0)
    rounds.add("a", [(1, ("a",), "")], 10.0)
    assert rounds.ripe(10.5, ["a", "b"]) is None
    assert rounds.missing(["a", "b"]) == ["b"]
    rounds.add("b", [(2, ("b",), "")], 11.0)
    assert rounds.ripe(11.0, ["a", "b"]) == [(1, ("a",), ""), (2, ("b",), "")]
    assert rounds.ripe(99.0, ["a", "b"]) is None


def test_a_slow_node() -> None:
    """A node that is late keeps the tables of the others for an interval, and no longer; its own comes with the next."""
    rounds = Rounds(2.0)
    rounds.add("a", [(1, ("a",), "")], 10.0)
    assert rounds.ripe(11.9, ["a", "b"]) is None
    assert rounds.ripe(12.0, ["a", "b"]) == [(1, ("a",), "")]
    rounds.add("b", [(2, ("b",), "")], 12.1)
    rounds.add("a", [(3, ("a",), "")], 12.2)
    assert sorted(rounds.ripe(12.2, ["a", "b"]) or []) == [(2, ("b",), ""), (3, ("a",), "")]


def test_at_once() -> None:
    """What comes at once, as after a break, is still shown table by table, in which each node is once."""
    rounds = Rounds(2.0)
    for number in (1, 2):
        rounds.add("a", [(number, ("a",), "")], 10.0)
    assert rounds.ripe(10.1, ["a", "b"]) is None
    rounds.add("b", [(1, ("b",), "")], 10.2)
    assert rounds.ripe(10.2, ["a", "b"]) == [(1, ("a",), ""), (1, ("b",), "")]
    assert rounds.ripe(10.2, ["a", "b"]) is None
    assert rounds.ripe(12.2, ["a", "b"]) == [(2, ("a",), "")]


def test_no_more_than_some_wait() -> None:
    """Where nobody knows who may come, tables wait until there are some of one node; in the end all are there."""
    rounds = Rounds(0.0)
    assert rounds.seconds == ONCE_SECONDS
    for number in range(AHEAD):
        rounds.add("a", [(number, ("a",), "")], 10.0)
    assert rounds.ripe(99.0, None) is None
    rounds.add("a", [], 10.1)
    assert rounds.ripe(10.1, None) == [(0, ("a",), "")]
    rest = [rounds.next(10.1) for _ in range(AHEAD + 1)]
    assert rest == [*([(number, ("a",), "")] for number in range(1, AHEAD)), [], None]


def replayed(*tables: tuple[str, float, float]) -> list[list[str]]:
    """Which tables of a recording stand together: of each its node, when it was read, and its length."""
    rounds, found = Rounds(0.0, recorded=True), []
    for node, at, length in tables:
        rounds.add(node, [(0, (f"{node}{at:g}",), "")], at, length)
        found.append(rounds.ripe(0.0, None))
    while (rest := rounds.next(0.0)) is not None:
        found.append(rest)
    return [[str(row[0]) for _, row, _ in each] for each in found if each]


def each_second(node: str, first: float, *numbers: int) -> list[tuple[str, float, float]]:
    return [(node, first + number, 1.0 if number else 0.0) for number in numbers]


def test_replayed_gap() -> None:
    """In a recording a node that was away stands beside what others had at the same time, not beside what came before."""
    tables = [*each_second("a", 0.0, *range(9)), *each_second("b", 0.1, 0, 1, 6, 7, 8)]
    assert replayed(*sorted(tables, key=lambda table: table[1])) == [
        *(["a0", "b0.1"], ["a1", "b1.1"], ["a2"], ["a3"], ["a4"], ["a5"]),
        *(["a6", "b6.1"], ["a7", "b7.1"], ["a8", "b8.1"]),
    ]


@pytest.mark.parametrize("apart", [0.0, 0.3, 0.5, 0.74])
def test_replayed_apart(apart: float) -> None:
    """In a recording nodes stay together, however far apart their intervals begin, and if tables come a little late."""
    late = [0.0, 0.01, -0.01, 0.0, 0.005]
    tables = [
        (node, first + number + late[number], 1.0) for number in range(5) for node, first in (("a", 0), ("b", apart))
    ]
    assert [[name[0] for name in each] for each in replayed(*tables)] == [["a", "b"]] * 5


def test_replayed_once() -> None:
    """In a recording of one snapshot all nodes are one table, though a snapshot does not say how long it took."""
    assert replayed(("a", 100.0, 0.0), ("b", 103.0, 0.0)) == [["a100", "b103"]]


def test_replayed_delay() -> None:
    """In a recording one table that took long does not change what the others stand beside."""
    tables = [*each_second("a", 0.0, *range(1, 9)), ("b", 1.0, 1.0), ("b", 6.0, 5.0), ("b", 7.0, 1.0), ("b", 8.0, 1.0)]
    assert replayed(*sorted(tables, key=lambda table: table[1])) == [
        *(["a1", "b1"], ["a2"], ["a3"], ["a4"], ["a5"]),
        *(["a6", "b6"], ["a7", "b7"], ["a8", "b8"]),
    ]


def test_order() -> None:
    """--sort takes several fields, - for the greatest first; what is alike keeps its order; --top cuts."""
    order = read_order(EXECSNOOP, "-pid, comm", 3)
    rows = [(1, "b", 0), (2, "b", 1), (2, "a", 2), (2, "a", 3), (None, "c", 4)]
    assert order.arrange(rows, ["pid", "comm", "at"]) == [(2, "a", 2), (2, "a", 3), (2, "b", 1)]


def test_usual_order() -> None:
    """Without --sort the gadget's own order is used; without that rows stay as they are."""
    usual = replace(EXECSNOOP, sort=["-pid"])
    assert read_order(usual, "", 0).arrange([(1,), (2,)], ["pid"]) == [(2,), (1,)]
    assert read_order(usual, "pid", 0).arrange([(2,), (1,)], ["pid"]) == [(1,), (2,)]
    assert read_order(EXECSNOOP, "", 0).arrange([(2,), (1,)], ["pid"]) == [(2,), (1,)]


@pytest.mark.parametrize(
    ("sort", "said"),
    [("-pidd", "--sort: unknown field 'pidd': did you mean pid?"), ("qqq", "execsnoop has timestamp, node,")],
)
def test_unknown(sort: str, said: str) -> None:
    """A field that does not exist is refused with the one that was meant, or with all that there are."""
    with pytest.raises(UsageError) as refused:
        read_order(EXECSNOOP, sort, 0)
    assert said in str(refused.value)


def test_values_without_order() -> None:
    """Lists and texts, and what an agent of another version does not have, can be sorted by."""
    order = read_order(EXECSNOOP, "args", 0)
    assert order.arrange([(["b"],), (None,), (["a", "c"],)], ["args"]) == [(None,), (["a", "c"],), (["b"],)]
