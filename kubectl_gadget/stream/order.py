"""The order of a table's rows, as --sort has it or as a tree, and how many of them are shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from gadget.catalog import Gadget, Tree
from gadget.errors import UsageError
from gadget.schema import Column, Row
from gadget.text import meant
from gadget.values import dataclass
from kubectl_gadget.output import all_fields


@dataclass(frozen=True)
class Order:
    """Fields to sort by, the first one first, each with whether the greatest comes first; top 0: all rows.

    tree is how they stand below each other, with the fields that this takes.
    """

    by: tuple[tuple[Column, bool], ...] = ()
    top: int = 0
    tree: Tree | None = None
    of_tree: tuple[Column, ...] = ()

    @property
    def fields(self) -> list[Column]:
        """The fields that it needs of a row."""
        return [*(field for field, _ in self.by), *self.of_tree]

    def arrange(self, rows: Sequence[Row], names: Sequence[str], *, indented: bool = False) -> list[Row]:
        """The first rows in this order, names are those of their values. indented: as people see a tree."""
        arranged = list(rows)
        for field, descending in reversed(self.by):
            at, key = names.index(field.name), _key(field)
            try:
                arranged.sort(key=lambda row, at=at, key=key: key(row[at]), reverse=descending)  # type: ignore[misc]
            except TypeError:  # values that have no order
                arranged.sort(key=lambda row, at=at: repr(row[at]), reverse=descending)  # type: ignore[misc]
        if self.tree:
            arranged = _as_tree(self.tree, arranged, names, indented=indented)
        return arranged[: self.top] if self.top else arranged


def _as_tree(tree: Tree, rows: Sequence[Row], names: Sequence[str], *, indented: bool) -> list[Row]:
    """Each row below its parent on the same node, if the parent is shown. Whatever rows say, each comes once."""
    node, own, *above = (names.index(name) for name in ("node", tree.own, *tree.below))
    below: defaultdict[Any, list[Row]] = defaultdict(list)
    there = {(row[node], row[own]) for row in rows}
    for row in rows:
        other = next((row[at] for at in above if row[at] != row[own]), None)
        below[(row[node], other) if (row[node], other) in there else None].append(row)
    found: list[Row] = []
    at = names.index(tree.indented)

    def take(first: list[Row]) -> None:
        waiting = [(row, 0) for row in reversed(first)]
        while waiting:
            row, depth = waiting.pop()
            cell = "  " * min(depth, MOST_INDENTS) + row[at] if indented and row[at] is not None else row[at]
            found.append((*row[:at], cell, *row[at + 1 :]))
            waiting += [(each, depth + 1) for each in reversed(below.pop((row[node], row[own]), ()))]

    take(below.pop(None, []))
    while below:  # rows that stand below each other in a circle
        take(below.pop(next(iter(below))))
    return found


#: Deeper rows of a tree are indented no further.
MOST_INDENTS = 8
NO_ORDER = Order()


def _key(field: Column) -> Callable[[Any], tuple[bool, Any]]:
    """The sort key for a field's values. A value that an agent of another version lacks comes first."""
    kind = field.means
    return lambda value: (False, 0) if value is None else (True, value if kind.is_key else kind.key(value))


def read_order(gadget: Gadget, sort: str, top: int) -> Order:
    """An order from "-sent,comm", or the gadget's own. UsageError that names the field that was meant."""
    known = all_fields(gadget.schema) | gadget.schema.parts
    by = []
    for item in [part.strip() for part in sort.split(",") if part.strip()] or gadget.sort:
        name = item.lstrip("+-")
        if name not in known:
            hint = meant(name, known) or f"{gadget.command} has {', '.join(known)}"
            raise UsageError(f"--sort: unknown field {name!r}: {hint}")
        by.append((known[name], item[0] == "-"))
    tree = None if sort else gadget.tree
    of_tree = tuple(known[name] for name in ("node", tree.own, *tree.below, tree.indented)) if tree else ()
    return Order(tuple(by), top, tree, of_tree)
