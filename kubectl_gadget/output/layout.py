"""Which columns of a table a terminal has room for, and how wide each of them is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gadget.kinds import Kind

GAP = "  "
#: What says most of a row, as a path or the other end of a connection, gets so many cells of a terminal, or half of it.
MAIN_LEAST = 30
#: Where all values are known it gets half of a wide terminal but for so many cells before long names are whole.
MAIN_SPARES = 10
#: Where two columns say most of a row, as the two ends of a mount, each gets so many where there is no room for more.
SHARED_LEAST = 20
#: A name that is cut still says who it is in so many.
NAME_LEAST = 12


@dataclass
class Measured:
    """One column: title is the cells of its title, need what that and the values have needed so far.

    longest is what the longest of its values needs, if all are known before.
    """

    name: str
    kind: Kind
    title: int
    need: int
    longest: int | None = None

    @property
    def usual(self) -> int:
        """Its usual width, with room for later values."""
        return self._with_room(self.kind.usual)

    @property
    def tight(self) -> int:
        """Its width with the least room for later values."""
        return self._with_room(self.kind.tight)

    def _with_room(self, cells: int) -> int:
        return max(self.need, cells if self.longest is None else min(cells, self.longest))

    @property
    def considered(self) -> int:
        """The cells that it may take before other columns are left out for it."""
        return min(self.tight, self.kind.considered) if self.kind.cut else self.tight

    @property
    def least(self) -> int:
        """The least cells that it takes."""
        return min(self.need, max(self.kind.least, self.title)) if self.kind.cut else self.tight


def main_of(columns: Sequence[Measured], silent: Collection[str] = ()) -> int | None:
    """Which column says most of a row; None if none does. Those that are silent say nothing."""
    found = [at for at, column in enumerate(columns) if column.kind.is_main and column.name not in silent]
    if found or not columns:
        return found[-1] if found else None
    return len(columns) - 1 if columns[-1].kind.cut else None


def arrange(
    columns: Sequence[Measured], total: int, first_out: Sequence[str], then_out: Sequence[str], *, complete: bool
) -> dict[int, int]:
    """The columns that are shown in total cells, and the cells of each.

    first_out are those that say nothing here, then_out those that say least, in the order in which they are left out.
    complete: no value is longer than those that columns know of.
    """
    silent = {*first_out}
    has_empty = any(column.kind.is_main and column.name in silent for column in columns)
    while True:
        main = main_of(columns, silent)
        shown, wish = _choose(columns, total, first_out, then_out, main, complete=complete)
        if main is None or main in shown or not has_empty or columns[main].name in silent:
            return widths({at: columns[at] for at in shown}, total, main, wish)
        silent.add(columns[main].name)  # it has gone, so the room of the one that is empty is another one's


def _choose(
    columns: Sequence[Measured],
    total: int,
    first_out: Sequence[str],
    then_out: Sequence[str],
    main: int | None,
    *,
    complete: bool,
) -> tuple[list[int], int]:
    """The columns that are shown where main says most, and the cells that it is to have."""
    wish = min(MAIN_LEAST, total // 2)
    if main is not None and complete:
        wish = min(max(wish, total // 2 - MAIN_SPARES), columns[main].need)
    elif main is not None and not columns[main].kind.is_main:
        wish = min(wish, columns[main].considered)
    elif main is not None and main != len(columns) - 1:
        wish = min(wish, columns[main].usual)  # the rest is for its neighbours until it needs it
    if main is not None:
        wish = max(wish, columns[main].least)
    shown = list(range(len(columns)))

    def taken(measure: str) -> int:
        cells = (wish if at == main else getattr(columns[at], measure) for at in shown)
        return sum(cells) + len(GAP) * (len(shown) - 1)

    def named(names: Iterable[str]) -> list[int]:
        return [at for name in names for at in shown if columns[at].name == name]

    for measure, out in (
        ("usual", named(first_out)),
        ("considered", named(then_out)),
        ("least", _last_out(columns, main)),
    ):
        for at in out:
            if taken(measure) <= total or len(shown) == 1:
                break
            if at in shown:
                shown.remove(at)
        several = sum(columns[at].kind.is_main for at in shown) > 1
        if main is not None and several and measure == "considered" and taken(measure) > total:
            wish = max(min(wish, SHARED_LEAST), columns[main].least)
    return shown, wish


def _last_out(columns: Sequence[Measured], main: int | None) -> list[int]:
    """The order in which columns go where there is no room at all: why and who it was stay longest, a count always."""
    ranked = [(_late(column), -at) for at, column in enumerate(columns) if at != main and column.name != "count"]
    return [-negative for _, negative in sorted(ranked)]


def _late(column: Measured) -> int:
    if column.name == "pod":
        return 3
    late = column.kind.late
    return int(column.name not in ("node", "namespace", "container")) if late is None else late


def squeezed(columns: Sequence[Measured], shown: Sequence[int], total: int) -> dict[int, int] | None:
    """The cells of the columns that are shown already; None if one would be cut to so few that it says nothing."""
    least = {at: min(columns[at].tight, max(columns[at].least, NAME_LEAST)) for at in shown}
    main = main_of([columns[at] for at in shown])
    spare = total - len(GAP) * (len(shown) - 1) - sum(least.values())
    if spare < 0:
        return None
    if main is None:
        return widths({at: columns[at] for at in shown}, total, None, 0)
    wish = min(max(MAIN_LEAST, least[shown[main]]), least[shown[main]] + spare)
    return widths({at: columns[at] for at in shown}, total, shown[main], wish)


def widths(columns: Mapping[int, Measured], total: int, main: int | None, wish: int) -> dict[int, int]:
    """The cells of each column in total cells: the widest are cut first; main gets what is left, and at least wish."""
    room = total - len(GAP) * (len(columns) - 1)
    others = {at: column for at, column in columns.items() if at != main}
    left = room - (wish if main in columns else 0)
    found = {at: column.usual for at, column in others.items()}
    if sum(found.values()) > left:
        found = {at: column.tight for at, column in others.items()}
    _cut(found, {at: column.least for at, column in others.items() if column.kind.cut}, left)
    for at, column in others.items():  # where there is room, a name of a pod is not to move the table when it comes
        if column.kind.room and sum(found.values()) + column.kind.room - found[at] <= left:
            found[at] = max(found[at], column.kind.room)
    if main is not None and main in columns:
        rest = max(room - sum(found.values()), min(columns[main].least, room))
        found[main] = rest if main == max(columns) else min(rest, max(columns[main].usual, columns[main].kind.room))
    return {at: found[at] for at in columns}


def _cut(found: dict[int, int], least: Mapping[int, int], total: int) -> None:
    """Take from the widest, down to its least, until all have no more than total."""
    while (over := sum(found.values()) - total) > 0:
        wide = [at for at, cells in least.items() if found[at] > cells]
        if not wide:
            return
        first = max(wide, key=lambda at: found[at])
        second = max((found[at] for at in wide if at != first), default=0)
        step = max(min(over, found[first] - max(second, least[first])), 1)
        found[first] -= step
