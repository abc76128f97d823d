"""Narrows a recording to the nodes and containers that the user asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from gadget._generated import gadget_pb2 as pb
from gadget.chosen import Chosen
from gadget.rows import Mask, Table
from gadget.selector import parse_names
from kubectl_gadget.stream.streams import Message

Keep = Callable[[Table], Mask | None]


def within(chosen: Chosen, keep: Keep) -> Keep:
    """What keeps the rows of chosen containers that keep keeps."""

    def both(table: Table) -> Mask | None:
        namespaces, index = table.distinct("namespace")
        names = zip(namespaces, table.distinct("pod")[0], table.distinct("container")[0], strict=True)
        of_each = np.array([chosen.matches(*each, None) is not False for each in names], bool)
        mask = keep(table)
        if of_each.all():
            return mask
        return of_each[index] if mask is None else of_each[index] & mask

    return both


def without(usual: Keep, keep: Keep, left_out: Callable[[int], None]) -> Keep:
    """What keeps the usual rows that keep keeps; left_out is told how many others there were."""

    def both(table: Table) -> Mask | None:
        mask, wanted = keep(table), usual(table)
        if wanted is None:
            return mask
        kept = wanted if mask is None else mask & wanted
        left_out(int((len(wanted) if mask is None else mask.sum()) - kept.sum()))
        return kept

    return both


def of_nodes(
    messages: Iterable[Message], nodes: Sequence[str], known: set[str], called: Callable[[str], str]
) -> Iterator[Message]:
    """The messages of these nodes, of all if there are none; known gets the names of those that there are.

    called is what users call a target.
    """
    wanted, named = parse_names(nodes), {}
    for target, message in messages:
        if isinstance(message, pb.RunReply) and message.node:
            named[target] = message.node
            known.add(message.node)
        if wanted.matches(named.get(target, called(target))):
            yield target, message
