"""What several nodes have kept comes in the order of its time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubectl_gadget.stream.backlog import Backlog
from kubectl_gadget.stream.merge import TimedRow


def rows(*times: int) -> list[TimedRow]:
    return [(time, (time,), "c") for time in times]


kept = st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(1, 1000), max_size=30).map(sorted), min_size=1)


@given(kept, st.randoms(use_true_random=False), st.integers(0, 20))
def test_in_order(nodes: dict[str, list[int]], chance: object, last: int) -> None:
    """However fast each node sends what it kept, I see all of it by time, or the last N of it."""
    backlog, shown = Backlog(nodes, last), []
    left = {name: list(times) for name, times in nodes.items()}
    while left:
        name = chance.choice(sorted(left))  # type: ignore[attr-defined]
        if left[name]:
            part = [left[name].pop(0) for _ in range(min(3, len(left[name])))]
            backlog.add(name, rows(*part))
        else:
            del left[name]
            backlog.done(name)
        shown += backlog.ripe()
    every = sorted(time for times in nodes.values() for time in times)
    assert [row[0] for row in shown] == (every[-last:] if last else every)
    assert backlog.is_done


def test_one_goes_away() -> None:
    """A node that goes away in the middle holds up nothing; nor do those that never answer when the command ends."""
    backlog = Backlog(["a", "b"])
    backlog.add("a", rows(1, 5))
    assert backlog.ripe() == []
    backlog.add("b", rows(2, 3))
    assert [row[0] for row in backlog.ripe()] == [1, 2, 3]
    backlog.done("b")
    assert [row[0] for row in backlog.ripe()] == [5]
    backlog.add("a", rows(7))
    assert [row[0] for row in backlog.rest()] == [7]
