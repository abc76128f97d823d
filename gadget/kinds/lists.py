"""Several values of one kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gadget.kinds.base import NONE, Compared, Cut, Described, Encoding, Kind, Source

if TYPE_CHECKING:
    from gadget.kinds.base import Mask, Rows


class ListOf(Kind):
    """An array in C. Empty items at its end (0, no text, no address) are left out; filters ask for any item."""

    is_list = True
    is_key = False
    cut = Cut.END
    is_main = True
    usual = tight = 20
    encoding = Encoding.LISTS
    compared = Compared.VALUES

    def __init__(self, each: Kind) -> None:
        """A list of each."""
        super().__init__(each.name)
        self._each = each
        self.parts, self.part_sizes, self.greatest = each.parts, each.part_sizes, each.greatest
        self.shape, self.in_events, self.words_are = each.shape, each.in_events, each.words_are

    @property
    def each(self) -> Kind:
        """What it is a list of."""
        return self._each

    def fits(self, size: int) -> bool:
        """Whether one of them can."""
        return self._each.fits(size)

    def format(self, size: int, *, signed: bool) -> str:
        """Of one of them."""
        return self._each.format(size, signed=signed)

    def decode(self, source: Source, name: str, rows: Rows, mask: Mask) -> list[Any]:
        """A list for each row."""
        columns = [self._each.decode(source, name, rows[:, at], mask) for at in range(rows.shape[1])]
        return [_kept(list(values)) for values in zip(*columns, strict=True)]

    def key(self, value: Any) -> Any:
        """As a tuple."""
        return None if value is None else tuple(map(self._each.key, value))

    def text(self, column: Described) -> Callable[[Any], str]:
        """With commas between them."""
        text = self._each.text(column)
        return lambda values: ", ".join(map(text, values)) or NONE

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """A list for each key."""

        def all_of(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
            return lambda values: [convert(value) for value in values]

        return {key: all_of(convert) for key, convert in self._each.json(column).items()}

    def numbers(self, column: Described) -> Mapping[str, int]:
        """Those of one of them."""
        return self._each.numbers(column)

    def words(self, column: Described) -> Sequence[str]:
        """Those of one of them."""
        return self._each.words(column)

    def explained(self, column: Described) -> Sequence[str]:
        """Those of one of them."""
        return self._each.explained(column)


def _kept(values: list[Any]) -> list[Any]:
    while values and not values[-1]:
        values.pop()
    return values
