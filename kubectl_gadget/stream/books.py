"""The books of a session: what its nodes lost, when they were not watched, and how its last lines say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from gadget._generated import gadget_pb2 as pb
from gadget.kinds.times import moment
from gadget.recorded import NOT_KEPT, OVERWRITTEN
from gadget.rows import Decoder, Mask, Table
from gadget.text import counted, duration
from kubectl_gadget.stream.streams import Ended

#: What agents call the loss of events of containers that they could not name.
NOT_KNOWN = "container not known"
#: How many losses, and how many gaps of a target, the last lines name.
MOST_PLACES = 20


@dataclass
class Node:
    """One agent's side of a session. An agent that went away and came again has had several runs."""

    decoder: Decoder
    filter: Callable[[Table], Mask | None]
    losses: list[pb.Loss] = field(default_factory=list)
    earlier: list[pb.Loss] = field(default_factory=list)
    undecided: int = 0
    beat_seconds: float = 0.0
    heard: float = 0.0
    silent: bool = False

    @property
    def all_losses(self) -> list[pb.Loss]:
        """Those of all runs."""
        return [*self.earlier, *self.losses]

    @property
    def lost(self) -> int:
        """How many events it lost in all runs."""
        return sum(loss.count for loss in self.all_losses)


@dataclass(frozen=True)
class Gap:
    """A time in which a target was not watched, and why. when says it in words if the seconds are not known."""

    target: str
    told: str
    seconds: float = 0.0
    when: str = ""


CUT_OFF = Gap(
    "what came after the recording",
    "the recording was cut off: this is what it holds up to there",
    when="was cut off",
)


def open_gap(ended: Ended) -> Gap:
    """The gap of a target that sends no more: why, and since when."""
    if not ended.heard_ns:
        return Gap(ended.target, str(ended.error), when="at all")
    return Gap(ended.target, f"{ended.error}; not seen from {moment(ended.heard_ns)} on", when="in the end")


def unwatched(gaps: Sequence[Gap]) -> str:
    """The targets with gaps, how often and how long, in a few words."""
    told = []
    for target in dict.fromkeys(gap.target for gap in gaps):
        mine = [gap for gap in gaps if gap.target == target]
        closed = [gap.seconds for gap in mine if not gap.when]
        words = [f"{counted(len(closed), 'time')}, {duration(sum(closed))}"] if closed else []
        told.append(f"{target} {' and '.join([*words, *(gap.when for gap in mine if gap.when)])}")
    return "; ".join(told[:5]) + f"; and {len(told) - 5} more" * (len(told) > 5)


def incomplete(gaps: Iterable[Gap]) -> Iterator[str]:
    """A line for each gap, as far as a target does not have too many."""
    of_each: Counter[str] = Counter()
    for gap in gaps:
        of_each[gap.target] += 1
        if of_each[gap.target] <= MOST_PLACES:
            yield f"incomplete: {gap.told}"
    for target, number in of_each.items():
        if number > MOST_PLACES:
            yield f"incomplete: {target}: not seen {number - MOST_PLACES} times more"


def reasons_of(nodes: Iterable[Node]) -> set[str]:
    """Why events were lost."""
    return {loss.reason for node in nodes for loss in node.all_losses}


def advice(reasons: set[str]) -> str:
    """What to do against losses for these reasons."""
    if "ring full" in reasons:
        return " Narrow it down, or raise --buffer."
    if OVERWRITTEN in reasons:
        return " More is kept with --keep."
    return "" if reasons <= {NOT_KNOWN, NOT_KEPT} else " Narrow it down."


def where_lost(nodes: Iterable[tuple[str, Node]]) -> str:
    """The reasons for losses on each node, which has the name that comes with it, and the containers that lost most."""
    places = []
    for name, node in nodes:
        by_reason: dict[str, list[str]] = {}
        counts: Counter[tuple[str, int]] = Counter()
        for loss in node.all_losses:
            counts[loss.reason, loss.cgroup_id] += loss.count
        for (reason, cgroup_id), number in counts.most_common():
            names = node.decoder.names.get(cgroup_id)
            who = (names[2] or names[3][:12]) if names else "other"
            by_reason.setdefault(reason, []).append(f"{who} {number}")
        for reason, losers in by_reason.items():
            places.append(f"{reason} on {name} ({', '.join(losers[:5])}{', …' * (len(losers) > 5)})")
    return "; ".join(places[:MOST_PLACES]) + f"; and {len(places) - MOST_PLACES} more" * (len(places) > MOST_PLACES)


def who_is_not_known(nodes: Iterable[Node]) -> Iterator[str]:
    """What events of containers that are not known are, and why they are left out."""
    nameless = unknown = 0
    for node in nodes:
        for loss in node.all_losses:
            if loss.reason == NOT_KNOWN and loss.cgroup_id in node.decoder.names:
                nameless += loss.count
            elif loss.reason == NOT_KNOWN:
                unknown += loss.count
    if nameless:
        what = "of containers that ended before their names could be read: they may be what was asked for"
        yield f"{counted(nameless, 'event')} {what}; without -n, -p, -c and -l they are shown by id."
    if unknown:
        what = "of cgroups that came and went faster than they could be followed: perhaps containers, perhaps not"
        yield f"{counted(unknown, 'event')} {what}; --host shows them."
