"""Texts of conditions and outputs, joined from several places of rule files, with lists written out."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from gadget.rules.documents import Scalar
from gadget.rules.parser import BARE
from gadget.rules.problems import VALIDATE, Position, RulesError

#: A condition whose lists are written out is no longer than that.
LONGEST = 4 << 20
_WORD = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^ \t\n\r(),=\"']+", re.DOTALL)


@dataclass(frozen=True)
class Piece:
    """A part of a text: value, and where it comes from."""

    value: str
    scalar: Scalar
    offset: int | None = 0
    """Where in the scalar it begins; None if it is not written there, but stands for the whole of it."""


class PiecedText:
    """A text made of pieces, which knows where in the files each part stands."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.pieces = [piece for piece in pieces if piece.value]
        self.value = "".join(piece.value for piece in self.pieces)
        self._starts: list[int] = []
        start = 0
        for piece in self.pieces:
            self._starts.append(start)
            start += len(piece.value)

    def position(self, at: int) -> Position:
        """Where the character at an offset stands."""
        index = bisect_right(self._starts, min(at, len(self.value) - 1)) - 1
        piece = self.pieces[max(index, 0)]
        if piece.offset is None:
            return piece.scalar.at
        return piece.scalar.position(piece.offset + at - self._starts[max(index, 0)])

    @classmethod
    def joined(cls, scalars: Sequence[Scalar]) -> PiecedText:
        """The texts of several scalars with a blank between, as an append joins them."""
        pieces: list[Piece] = []
        for scalar in scalars:
            pieces += [Piece(" ", scalar, None)] if pieces else []
            pieces.append(Piece(scalar.value, scalar))
        return cls(pieces)

    def expanded(self, lists: Mapping[str, Sequence[str]], used: Callable[[str], None]) -> PiecedText:
        """The same with the items of lists in the place of their names; used is told each that occurs.

        Raises:
            RulesError: It becomes too long.

        """
        found: list[Piece] = []
        length = 0
        word = _words(lists)
        for piece in self.pieces:
            at = 0
            for name in word.finditer(piece.value):
                if name[0] not in lists:
                    continue
                used(name[0])
                start, end, items = name.start(), name.end(), ", ".join(map(quoted, lists[name[0]]))
                before = piece.value[at:start]
                if not items:  # the comma on one of its sides goes with it
                    if before.rstrip().endswith(","):
                        before = before.rstrip()[:-1]
                    elif comma := re.match(r"[ \t\n\r]*,", piece.value[end:]):
                        end += comma.end()
                here = None if piece.offset is None else piece.offset + at
                found += [Piece(before, piece.scalar, here), Piece(f" {items} ", piece.scalar, None)]
                at = end
                length += len(items)
                if length > LONGEST:
                    raise RulesError(VALIDATE, "with its lists written out this is too long", piece.scalar.at)
            found.append(Piece(piece.value[at:], piece.scalar, None if piece.offset is None else piece.offset + at))
        return PiecedText(found)


def _words(lists: Mapping[str, Sequence[str]]) -> re.Pattern[str]:
    """What may be the name of a list: a word, and names that are more than one; those are warned of, and work."""
    odd = sorted((name for name in lists if not BARE.fullmatch(name)), key=len, reverse=True)
    names = "|".join(rf"(?<![^ \t\n\r(),=]){re.escape(name)}(?![^ \t\n\r(),=])" for name in odd)
    return re.compile(f"{names}|{_WORD.pattern}", re.DOTALL) if odd else _WORD


def quoted(item: str) -> str:
    """An item of a list as it stands in a condition: in quotes if it needs them and has none."""
    if BARE.fullmatch(item) or (item[:1] in "\"'" and len(item) > 1 and item[-1] == item[0]):
        return item
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
