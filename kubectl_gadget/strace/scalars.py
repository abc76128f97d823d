"""Numbers, names and strings as strace writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile

#: From here on the table has bytes with three octal digits each. They are used before another octal digit.
_FULL = 0x100
_ESCAPES = {
    **{code: f"\\{code:o}" for code in range(256) if not 0x20 <= code < 0x7F},
    **{code + _FULL: f"\\{code:03o}" for code in range(256)},
    **str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\v": "\\v", "\f": "\\f"}),
}
_BEFORE_DIGIT = re.compile(r"[^\t-\r -~](?=[0-7])")


def signed(value: int, bits: int) -> int:
    """The low bits of a register as a signed number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def hexadecimal(value: int) -> str:
    """As C's %#x writes it: 0 without 0x."""
    return hex(value) if value else "0"


def pointer(value: int) -> str:
    """An address."""
    return hex(value) if value else "NULL"


def octal(value: int) -> str:
    """Permission bits: at least three digits."""
    return f"0{value:02o}" if value else "000"


def quote(data: bytes, cut: bool = False) -> str:
    """Bytes in double quotes. All but printable ASCII is an octal escape; ... follows if the text was cut."""
    text = data.decode("latin-1")
    if not (text.isascii() and text.isprintable()) or '"' in text or "\\" in text:
        text = _BEFORE_DIGIT.sub(lambda found: chr(ord(found[0]) + _FULL), text).translate(_ESCAPES)
    return f'"{text}"...' if cut else f'"{text}"'


def enumeration(names: Mapping[str, int], unknown: Callable[[int], str] | None = None) -> Callable[[int], str]:
    """Shows the first name of a value.

    A value without a name is a number, with a comment that says what was expected.
    """
    by_value: dict[int, str] = {}
    for name, value in names.items():
        by_value.setdefault(value, name)
    hint = _hint(names)
    otherwise = unknown or (lambda value: f"{hexadecimal(value)} /* {hint} */")
    return lambda value: by_value.get(value) or otherwise(value)


def flags(names: Mapping[str, int], zero: str = "", *, order: Sequence[str] = ()) -> Callable[[int], str]:
    """Shows bits as NAME|NAME; bits without a name are in hexadecimal.

    Names come in the order of their lowest bit. The names in order come last, in that order.
    """
    given = {name: value for name, value in names.items() if value}
    widest_first = sorted(given.items(), key=lambda item: -item[1].bit_count())
    place = {name: (order.index(name) if name in order else -1, value & -value) for name, value in given.items()}
    zero = zero or next((name for name, value in names.items() if not value), "0")
    hint = _hint(names)

    @lru_cache(1024)
    def show(value: int) -> str:
        rest, found = value, []
        for name, bits in widest_first:
            if rest & bits == bits:
                found.append(name)
                rest &= ~bits
        if not found:
            return f"{hex(rest)} /* {hint} */" if rest else zero
        found.sort(key=place.__getitem__)
        return "|".join([*found, hex(rest)] if rest else found)

    return show


def choice_and_flags(mask: int, choices: Mapping[str, int], others: Callable[[int], str]) -> Callable[[int], str]:
    """Shows a word that has one value in the bits of mask, and flags in the other bits."""
    known, choice, hint = set(choices.values()), enumeration(choices), _hint(choices)

    @lru_cache(1024)
    def show(value: int) -> str:
        if value & mask not in known:
            return f"{hexadecimal(value)} /* {hint} */"
        rest = others(value & ~mask) if value & ~mask else ""
        if rest.endswith("*/"):  # if no bit is known
            rest = rest.partition(" ")[0]
        return "|".join(filter(None, (choice(value & mask), rest)))

    return show


def _hint(names: Mapping[str, int]) -> str:
    """What strace says was expected in place of a number: the common beginning of the names."""
    pairs = zip(min(names), max(names), strict=False)
    prefix = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return f"{prefix[: prefix.rfind('_') + 1] or prefix}???"
