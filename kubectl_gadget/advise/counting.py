"""Counts connections that one of several edges had, without knowing which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TypeVar

from kubectl_gadget.advise.observation import Evidence, Shared

_Item = TypeVar("_Item")


def together(items: Iterable[_Item], evidence_of: Callable[[_Item], Evidence]) -> Iterator[list[_Item]]:
    """Group items that may have had the same connections."""
    groups: dict[int, list[_Item]] = {}
    of_shared: dict[Shared, list[_Item]] = {}
    for item in items:
        group = [item]
        shared = evidence_of(item).shared
        if not shared:  # nearly all
            yield group
            continue
        for key in shared:
            other = of_shared.setdefault(key, group)
            if other is not group:
                groups.pop(id(other), None)
                group += other
                of_shared |= {each: group for member in other for each in evidence_of(member).shared or ()}
        groups[id(group)] = group
    yield from groups.values()


def uncertain(together: Collection[Evidence]) -> int:
    """How many connections of a group cannot be told to one edge."""
    shared: dict[Shared, int] = {}
    for each in together:
        shared |= each.shared or {}
    sent = sum(each.sent + each.received_alone for each in together)
    received = sum(each.received + each.sent_alone for each in together)
    sent += sum(count for key, count in shared.items() if key[0] == "egress")
    received += sum(count for key, count in shared.items() if key[0] == "ingress")
    return max(max(sent, received) - sum(each.certain for each in together), 0)


def count(evidence: Iterable[Evidence]) -> int:
    """All connections, each once."""
    groups = together(evidence, lambda each: each)
    return sum(uncertain(group) + sum(each.certain for each in group) for group in groups)
