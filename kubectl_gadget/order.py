"""The order of a table's rows, as --sort has it, and how many of them are shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gadget.catalog import Gadget
from gadget.errors import UsageError
from gadget.schema import Column, Row
from gadget.text import meant
from kubectl_gadget.output import all_fields


@dataclass(frozen=True)
class Order:
    """Fields to sort by, the first one first, each with whether the greatest comes first; top 0: all rows."""

    by: tuple[tuple[Column, bool], ...] = ()
    top: int = 0

    @property
    def fields(self) -> list[Column]:
        """What it has to know of a row."""
        return [field for field, _ in self.by]

    def arrange(self, rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
        """The first rows in this order. names are those of their values."""
        arranged = list(rows)
        for field, descending in reversed(self.by):
            at, key = names.index(field.name), _key(field)
            try:
                arranged.sort(key=lambda row, at=at, key=key: key(row[at]), reverse=descending)  # type: ignore[misc]
            except TypeError:  # values that have no order
                arranged.sort(key=lambda row, at=at: repr(row[at]), reverse=descending)  # type: ignore[misc]
        return arranged[: self.top] if self.top else arranged


NO_ORDER = Order()


def _key(field: Column) -> Callable[[Any], tuple[bool, Any]]:
    """What a field's values are sorted by. A value that an agent of another version does not have comes first."""
    kind = field.means
    return lambda value: (False, 0) if value is None else (True, value if kind.is_key else kind.key(value))


def read_order(gadget: Gadget, sort: str, top: int) -> Order:
    """An order from "-sent,comm", or the gadget's own. UsageError that names the field that was meant."""
    known = all_fields(gadget.schema) | gadget.schema.parts
    by = []
    for item in [part.strip() for part in sort.split(",") if part.strip()] or gadget.sort:
        name = item.lstrip("+-")
        if name not in known:
            hint = meant(name, known) or f"{gadget.name} has {', '.join(known)}"
            raise UsageError(f"--sort: unknown field {name!r}: {hint}")
        by.append((known[name], item[0] == "-"))
    return Order(tuple(by), top)
