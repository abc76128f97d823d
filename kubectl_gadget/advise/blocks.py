"""The networks that hold given addresses, where those are too many to name each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

#: A network: its first number, and its bits.
Block = tuple[int, int]


def fitting_bits(numbers: Sequence[int], total: int, bits: int, most: int) -> int:
    """The longest prefix, bits at most, with which at most `most` networks hold all numbers of total bits."""
    ordered = sorted(numbers)
    # two neighbours are in one network as long as its prefix ends before the first bit in which they differ
    differing = Counter((one ^ next_one).bit_length() for one, next_one in pairwise(ordered))
    networks = 1 + sum(count for length, count in differing.items() if length > total - bits)
    while networks > most and bits:
        networks -= differing[total - bits + 1]
        bits -= 1
    return bits


def blocks_of(
    numbers: Sequence[int],
    total: int,
    bits: int,
    most: int,
    clear: Callable[[int, int], bool],
    floor: Callable[[int], int],
) -> tuple[Callable[[int], Block], int]:
    """Where each of the numbers is: in a network of bits, or of fewer if there were more than most; and how many bits.

    clear: whether a network has nothing in it that must not be let in. Else, what is asked for becomes single numbers,
    and what is wider than asked for ends where floor says: at the shortest prefix that is clear.
    """
    chosen = fitting_bits(numbers, total, bits, most)
    shift = total - chosen
    known: dict[int, bool] = {}

    def block(number: int) -> Block:
        start = number >> shift
        is_clear = known.get(start)
        if is_clear is None:
            is_clear = known[start] = clear(start << shift, chosen)
        if is_clear:
            return start << shift, chosen
        own = total if chosen == bits else min(max(floor(number), chosen), total)
        return number >> (total - own) << (total - own), own

    return block, chosen
