"""Rows are found by their bytes: equal ones are one, others are not, however they were chosen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gadget.rules.keys import MOST_WORDS, Keys, Words


def maker() -> tuple[Callable[[int], int], list[int]]:
    """Gives ids in turn, and notes for which rows."""
    made: list[int] = []

    def make(place: int) -> int:
        made.append(place)
        return len(made) - 1

    return make, made


def words(*rows: bytes, width: int) -> Words:
    """Rows of some bytes, filled up."""
    return np.frombuffer(b"".join(row.ljust(width * 8, b"\0") for row in rows), np.uint64).reshape(len(rows), width)


def like_a_dict(keys: Keys, batches: list[list[bytes]], widths: list[int]) -> None:
    """Equal rows get one id, others another one, in each batch; and each is made once, in a place where it is."""
    make, made = maker()
    known: dict[bytes, int] = {}
    for rows, width in zip(batches, widths, strict=True):
        before = len(made)
        for row, number in zip(rows, keys.ids(words(*rows, width=width), make).tolist(), strict=True):
            assert known.setdefault(row, number) == number
        assert len(set(known.values())) == len(known) == len(made)
        assert all(known[rows[place]] == before + at for at, place in enumerate(made[before:]))


@pytest.mark.parametrize("weak", [False, True], ids=["as it is", "many with equal sums"])
def test_like_a_dict(weak: bool) -> None:
    """Rows are told apart by all of their bytes, in batches of any width, also where their sums are equal."""
    choose, keys = np.random.default_rng(7), Keys()
    if weak:
        keys._odd[:] = 1 << 61
    some = [bytes([1 + at % 250, at // 250]) + b"x" * int(choose.integers(0, 700)) + b"%d" % at for at in range(5_000)]
    batches, widths = [], []
    for count in (1, 3, 40, 700, 700, 2_500, 5_000, 100, 100):
        rows = [some[at] for at in choose.integers(0, count, 800).tolist()]
        batches.append(rows)
        widths.append(max(map(len, rows)) // 8 + 1)
    like_a_dict(keys, batches, widths)


def test_chosen_sums() -> None:
    """Paths that a container chose so that they look alike in sums are told from each other, and again later."""
    rows = [b"a".ljust(8, b"\0") + bytes(first) + bytes(second) for first, second in (
        ((0, 0, 0, 0, 0, 0, 0, 1), (0, 0, 0, 0, 0, 0, 0, 129)), ((0, 0, 0, 0, 0, 0, 0, 129), (0, 0, 0, 0, 0, 0, 0, 1)),
    )]  # fmt: skip
    like_a_dict(Keys(), [rows, rows[::-1], rows * 9], [3, 4, 3])


def test_long_rows() -> None:
    """A row that is longer than what is compared at once is one in a batch of any width, beside short ones."""
    long, short = b"y" * (MOST_WORDS * 8 + 1), b"y" * (MOST_WORDS * 8)
    like_a_dict(Keys(), [[short], [long, short], [short, long + b"z", long], [long]], [48, 49, 1000, 60])


def test_forgotten() -> None:
    """A row that is forgotten is made anew, however many others there are."""
    for weak in (False, True):
        make, made = maker()
        keys = Keys()
        if weak:
            keys._odd[:] = 1 << 61
        batch = words(*(b"%d" % at for at in range(3_000)), width=2)
        assert keys.ids(batch, make).tolist() == list(range(3_000))
        for number in (0, 7, 2_999):
            keys.forget(number)
        assert keys.ids(batch[:8], make).tolist() == [3_000, 1, 2, 3, 4, 5, 6, 3_001]
        keys.forget(3_001)
        assert keys.ids(batch[:8], make).tolist() == [3_000, 1, 2, 3, 4, 5, 6, 3_002]
        assert made[3_000:] == [0, 7, 7]


def test_cleared() -> None:
    """What is cleared is made anew."""
    make, _ = maker()
    keys = Keys()
    batch = words(b"a", b"b", width=1)
    keys.ids(batch, make)
    keys.clear()
    assert keys.ids(batch, make).tolist() == [2, 3]


def test_failure() -> None:
    """What was made before something could not be made is known, and can be forgotten."""
    keys, made = Keys(), list[int]()

    def make(place: int) -> int:
        if place == 2 and len(made) == 2:
            raise OSError
        made.append(place)
        return len(made) - 1

    batch = words(b"a", b"b", b"c", width=1)
    with pytest.raises(OSError):
        keys.ids(batch, make)
    keys.forget(0)
    made.append(9)
    assert keys.ids(batch, make).tolist() == [3, 1, 4]


def test_room() -> None:
    """What keys take is known, so that it can be bounded: one long key makes room for as much in each row."""
    keys, (make, _) = Keys(), maker()
    short = [b"%d" % at for at in range(1_500)]
    keys.ids(words(*short, width=1), make)
    few = keys.size
    keys.ids(words(b"x" * 8 * MOST_WORDS, width=MOST_WORDS), make)
    assert keys.size - few == len(keys._keys) * 8 * (MOST_WORDS - 1)
    keys.clear()
    assert keys.size == 0


def test_made_up_rows() -> None:
    """A row of a recording that somebody made up, with all bits of a number set, is one like others."""
    like_a_dict(Keys(), [[b"\xff" * 8, b"a"], [b"\xff" * 16, b"\xff" * 8]], [1, 2])


def test_forgotten_again_and_again() -> None:
    """A process that changes its folder all the time is found as fast as others: each of its rows has a sum's slot."""
    keys, (make, made) = Keys(), maker()
    batch = words(b"shell", b"other", width=1)
    keys.ids(batch, make)
    for _ in range(100):
        keys.forget(len(made) - 1 if len(made) > 2 else 0)
        assert keys.ids(batch, make).tolist() == [len(made) - 1, 1]
        assert not keys._others
