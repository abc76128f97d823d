"""Numbers, and those that have names."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from gadget.kinds.base import (
    NONE,
    UNKNOWN,
    Compared,
    Cut,
    Described,
    Encoding,
    Kind,
    ParameterRoom,
    Total,
    nothing,
    same,
)
from gadget.text import escape

_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMG])(?:i?B)?")
#: The real-time signals as the kernel counts them, and strace.
_SIGRTMIN, _SIGRTMAX = 32, 64
#: INVALID_UID of linux/uidgid.h
_NO_ID = (1 << 32) - 1
#: COUNT_UNKNOWN of bpf/include/fields.h
COUNT_UNKNOWN = (1 << 64) - 1
SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class Int(Kind):
    """A plain number."""

    measure = ("", 1.0)
    is_right = True
    encoding = Encoding.PLAIN
    total = Total.SUM

    def digits(self, text: str) -> int:
        """Also with a unit: 4K, 1.5M."""
        size = _SIZE.fullmatch(text)
        return round(float(size[1]) * SIZES[size[2]]) if size else super().digits(text)


class Size(Int):
    """A number of bytes."""

    measure = ("bytes", 1.0)
    usual = tight = 5
    encoding = Encoding.CONVERTED

    def digits(self, text: str) -> int:
        """Also as it is shown: 17B."""
        return int(text[:-1]) if re.fullmatch(r"\d+B", text) else super().digits(text)

    def text(self, column: Described) -> Callable[[Any], str]:
        """In mebibytes; less than one in kibibytes, or in bytes."""
        return short_size


class SomeSize(Size):
    """A number of bytes, where there are any to tell of."""

    def text(self, column: Described) -> Callable[[Any], str]:
        """The same; `-` for none."""
        return lambda value: short_size(value) if value else NONE


class KnownCount(Int):
    """A number that not every kernel tells."""

    encoding = Encoding.CONVERTED
    unknown = COUNT_UNKNOWN
    total = Total.GREATEST

    def text(self, column: Described) -> Callable[[Any], str]:
        """The number; `?` if it is not known."""
        return lambda value: UNKNOWN if value == COUNT_UNKNOWN else str(value)

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """Null if it is not known."""
        return {column.name: lambda value: None if value == COUNT_UNKNOWN else value}


class KnownSize(Size):
    """A number of bytes that not every kernel tells."""

    unknown = COUNT_UNKNOWN
    total = Total.GREATEST

    def text(self, column: Described) -> Callable[[Any], str]:
        """The same; `?` if it is not known."""
        return lambda value: UNKNOWN if value == COUNT_UNKNOWN else short_size(value)

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """Null if it is not known."""
        return {column.name: lambda value: None if value == COUNT_UNKNOWN else value}


class Percent(Kind):
    """A part of a whole, in hundredths of a percent, where the kernel tells it."""

    is_right = True
    unknown = COUNT_UNKNOWN

    def text(self, column: Described) -> Callable[[Any], str]:
        """In percent, with one digit behind the point; `-` if it is not known."""
        return lambda value: NONE if value == COUNT_UNKNOWN else f"{value / 100:.1f}%"

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """In percent; null if it is not known."""
        return {column.name: lambda value: None if value == COUNT_UNKNOWN else value / 100}

    def digits(self, text: str) -> int:
        """In percent, with or without the sign."""
        return round(float(text.removesuffix("%")) * 100)

    def wanted(self, column: Described) -> str:
        """An example."""
        return "12.5%"


class Rate(Kind):
    """How many a second."""

    is_right = True

    def text(self, column: Described) -> Callable[[Any], str]:
        """In two digits or so."""
        return lambda value: f"{value:.0f}" if value >= 10 or not value else f"{value:.1f}"


class Share(Kind):
    """A part of a whole, in percent."""

    in_events = False
    is_right = True
    encoding = Encoding.ANY

    def text(self, column: Described) -> Callable[[Any], str]:
        """With one digit behind the point."""
        return lambda value: f"{value:.1f}%"


class Objects(Kind):
    """A list of objects, which only JSON shows."""

    in_events = False
    is_right = True
    encoding = Encoding.ANY

    def text(self, column: Described) -> Callable[[Any], str]:
        """How many there are."""
        return lambda value: str(len(value))


class Pid(Kind):
    """The id of a process or thread."""

    usual, tight = 7, 6
    encoding = Encoding.PLAIN

    def text(self, column: Described) -> Callable[[Any], str]:
        """The number; `-` if there is no such process, `?` if it is not known."""
        return lambda value: str(value) if value else nothing(column)


class Id(Kind):
    """The id of a user or group."""

    is_few = True
    usual, tight = 5, 3
    encoding = Encoding.PLAIN

    def text(self, column: Described) -> Callable[[Any], str]:
        """The number; `-` if there is none, `?` if it is not known."""
        return lambda value: nothing(column) if value == _NO_ID else str(value)


class CgroupId(Kind):
    """The id of a cgroup."""

    size = 8


class Bool(Kind):
    """Yes or no."""

    is_few = True
    greatest = 1
    shape = "bool"
    encoding = Encoding.DISTINCT
    is_switch = True

    def fits(self, size: int) -> bool:
        """One byte."""
        return size == 1

    def format(self, size: int, *, signed: bool) -> str:
        """Of numpy."""
        return "?"

    def text(self, column: Described) -> Callable[[Any], str]:
        """The words yes and no."""
        return lambda value: "yes" if value else "no"

    def numbers(self, column: Described) -> Mapping[str, int]:
        """The words that people write."""
        return {"true": 1, "false": 0, "yes": 1, "no": 0}

    def wanted(self, column: Described) -> str:
        """Words only, though a number would be taken, too."""
        return ", ".join(self.numbers(column))

    def words(self, column: Described) -> Sequence[str]:
        """As JSON has them."""
        return ("true", "false")

    def _setting(self, text: str) -> int:
        return {"true": 1, "1": 1, "false": 0, "0": 0}[text.lower()]


class Mode(Kind):
    """Permission bits."""

    encoding = Encoding.DISTINCT

    def text(self, column: Described) -> Callable[[Any], str]:
        """In octal."""
        return octal

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """In octal, and the number as NAME_raw."""
        return {column.name: octal, f"{column.name}_raw": same}

    def digits(self, text: str) -> int:
        """Octal."""
        return int(text, 8)

    def wanted(self, column: Described) -> str:
        """An example."""
        return "0644"


class Named(Kind):
    """A number with a name."""

    is_few = True
    encoding = Encoding.DISTINCT

    def names(self, column: Described) -> Callable[[int], str | None]:
        """The name of a number, in the agent's words; the number if it has none."""
        names = {int(value): name for value, name in column.values.items()}
        return lambda value: names.get(value) or str(value)

    def text(self, column: Described) -> Callable[[Any], str]:
        """The name; `-` for none."""
        name = self.names(column)
        return lambda value: escape(name(value) or NONE)

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """The name, and the number as NAME_raw."""
        return {column.name: self.names(column), f"{column.name}_raw": same}

    def name_of(self, column: Described) -> Callable[[int], str] | None:
        """The name."""
        name = self.names(column)
        return lambda value: name(value) or ""


class Enum(Named):
    """A value of an enum in C, by its name."""

    cut = Cut.MIDDLE
    usual = tight = 16

    def explained(self, column: Described) -> Sequence[str]:
        """All names."""
        return list(column.values.values())


class Words(Enum):
    """A value of an enum, in words: RESULT_TIMED_OUT is "timed out"."""

    is_family = True
    usual = tight = 11
    late = 2

    def longest(self, column: Described) -> int | None:
        """That of the words."""
        return max(map(len, column.values.values()), default=None)

    def word_list(self, words: Mapping[int, str]) -> Mapping[int, str]:
        """In words."""
        return {value: name.partition("_")[2].lower().replace("_", " ") for value, name in words.items()}

    def text(self, column: Described) -> Callable[[Any], str]:
        """The words; `-` for none, `?` for unknown."""
        name = self.names(column)
        marks = {"none": NONE, "unknown": UNKNOWN}
        return lambda value: escape(marks.get(name(value) or "none", name(value) or ""))

    def parse(self, column: Described, text: str) -> int:
        """Also as one word, with underscores, as system calls are written."""
        return super().parse(column, text if text in self.numbers(column) else text.replace("_", " "))


class Set(Words):
    """Some of the words of an enum, for a parameter: the bit of each word's value."""

    in_events = False
    words_are = "some of"

    @property
    def metavar(self) -> str:
        """What help calls it."""
        return "A,B"

    def pack(self, text: str, to: ParameterRoom) -> bytes:
        """The bits of words with commas between them; a word may have underscores, as system calls are written."""
        numbers = self.numbers(to)
        words = [word.strip() for word in text.split(",")]
        wanted = [word if word in numbers else word.replace("_", " ") for word in words]
        if unknown := [word for word, known in zip(words, wanted, strict=True) if known not in numbers]:
            raise ValueError(f"no {unknown[0]!r}: some of {', '.join(numbers)}")
        return sum(1 << numbers[word] for word in {*wanted}).to_bytes(to.size, "little")


class Errno(Named):
    """Why something failed; 0 if it did not."""

    usual = tight = 6
    late = 2
    is_failure = True

    def names(self, column: Described) -> Callable[[int], str | None]:
        """None for 0."""
        names = {int(value): name for value, name in column.values.items()}
        return lambda value: names.get(value) or (str(value) if value else None)

    def word_list(self, words: Mapping[int, str]) -> Mapping[int, str]:
        """The same on every machine we trace (asm-generic), but not where the command line may run."""
        return errno.errorcode

    def digits(self, text: str) -> int:
        """As kernels give them, and as people know them."""
        return abs(super().digits(text))


class Signal(Named):
    """A signal; 0 if there is none."""

    usual = tight = 7
    late = 2

    def names(self, column: Described) -> Callable[[int], str | None]:
        """None for 0; real-time signals as SIGRT_1."""
        names = {_SIGRTMIN + number: f"SIGRT_{number}" for number in range(_SIGRTMAX - _SIGRTMIN + 1)}
        names |= {_SIGRTMIN: "SIGRTMIN"} | {int(value): name for value, name in column.values.items()}
        return lambda value: names.get(value) or (str(value) if value else None)


class Call(Named):
    """A system call by its number: bit 16 is set for one of a 32-bit program, bit 17 on arm64; none if all bits are."""

    usual = tight = 10
    compared = Compared.TEXTS

    def names(self, column: Described) -> Callable[[int], str | None]:
        """The name; None outside calls."""
        return _call_name

    def plain(self, value: Any) -> str:
        """The name."""
        return _call_name(value) or ""


@lru_cache(1024)
def _call_name(value: int) -> str | None:
    from gadget import syscalls

    number = value & 0xFFFF
    if number == 0xFFFF:
        return None
    machine = "aarch64" if value >> 17 & 1 else "x86_64"
    return syscalls.find(machine, number | (syscalls.COMPAT if value >> 16 & 1 else 0)).name


class Flags(Enum):
    """A set of bits, each with a name."""

    is_family = True
    usual = tight = considered = 18
    words_are = "of"

    def names(self, column: Described) -> Callable[[int], str]:
        """NAME|NAME; bits without a name are in hexadecimal, no bits are 0."""
        names = sorted((int(value), name) for value, name in column.values.items() if value != "0")
        widest_first = sorted(names, key=lambda item: -item[0].bit_count())  # O_SYNC holds O_DSYNC's bit
        zero = column.values.get("0")

        @lru_cache(1024)
        def show(value: int) -> str:
            rest, found = value, set()
            for bits, name in widest_first:
                if rest & bits == bits:
                    found.add(name)
                    rest &= ~bits
            shown = [zero] if zero and not value & 3 else []
            shown += [name for _, name in names if name in found]
            return "|".join([*shown, hex(rest)] if rest else shown) or "0"

        return show

    def text(self, column: Described) -> Callable[[Any], str]:
        """The names with | between them; `-` for no bits."""
        name = self.names(column)
        return lambda value: NONE if name(value) == "0" else escape(name(value) or NONE)

    def several(self, text: str) -> Sequence[str]:
        """NAME|NAME."""
        return [part.strip() for part in text.split("|")] if "|" in text else [text]


def octal(mode: int) -> str:
    """Permission bits as people write them."""
    return f"{mode:04o}"


def short_size(value: int) -> str:
    """Bytes in three digits or so, in the unit that suits them."""
    if value < 1 << 10:
        return f"{value}B" if value else "0"
    return f"{value / (1 << 20):.0f}M" if value >= 1 << 20 else f"{value >> 10}K"
