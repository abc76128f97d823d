"""Rows that stand below each other."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gadget import catalog
from gadget.schema import Row
from kubectl_gadget.stream.order import MOST_INDENTS, read_order

NAMES = ["node", "pid", "tid", "ppid", "comm"]
ORDER = read_order(catalog.find("snapshot_process"), "", 0)


def arranged(*rows: tuple[int, int, int, str], node: str = "a") -> list[str]:
    return [row[-1] for row in ORDER.arrange([(node, *row) for row in rows], NAMES, indented=True)]


def test_children_stand_below_their_parent() -> None:
    """Each process stands below its parent, a thread below its process, threads first, then in the order of their ids."""
    assert arranged((9, 9, 2, "other"), (7, 7, 5, "cat"), (5, 8, 1, "worker"), (5, 5, 1, "sh"), (6, 6, 7, "tee")) == [
        "sh",
        "  worker",
        "  cat",
        "    tee",
        "other",
    ]


def test_each_node_has_its_own() -> None:
    """Ids of processes mean nothing on another node."""
    rows = [("a", 5, 5, 1, "sh"), ("b", 7, 7, 5, "cat")]
    assert [row[-1] for row in ORDER.arrange(rows, NAMES, indented=True)] == ["sh", "cat"]


def test_nothing_is_indented_for_programs() -> None:
    """JSON has names as they are, in the same order."""
    rows = [("a", 5, 5, 1, "sh"), ("a", 7, 7, 5, "cat")]
    assert ORDER.arrange(rows, NAMES) == rows


def test_sorted_otherwise_there_is_no_tree() -> None:
    """--sort means what it says."""
    assert read_order(catalog.find("snapshot_process"), "-pid", 0).tree is None


def test_a_long_line_of_ancestors() -> None:
    """However deep processes stand, their names do not leave the screen."""
    deep = arranged(*((pid, pid, pid - 1, "x") for pid in range(2, 5000)))
    assert max(map(len, deep)) == 2 * MOST_INDENTS + 1


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3)))
def test_each_row_once(rows: list[tuple[int, int, int]]) -> None:
    """Whatever an agent says of parents, in a circle or twice, each row is there once."""
    given_rows: list[Row] = [("a", *row, f"c{at}") for at, row in enumerate(rows)]
    found = ORDER.arrange(given_rows, NAMES, indented=True)
    assert Counter((*row[:-1], row[-1].strip()) for row in found) == Counter(given_rows)
