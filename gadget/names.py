"""What the numbers in a field are called, by the schema that they came with."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from gadget.schema import Field


def named(field: Field) -> Callable[[int], str | None]:
    """The name of an errno or enum value, in the agent's words; None for errno 0, the number if it has no name."""
    names = {int(value): name for value, name in field.values.items()}
    return lambda value: names.get(value) or (str(value) if value or field.kind != "errno" else None)


def flag_names(field: Field) -> Callable[[int], str]:
    """A set of bits as NAME|NAME, with what has no name in hexadecimal."""
    names = sorted((int(value), name) for value, name in field.values.items() if value != "0")
    widest_first = sorted(names, key=lambda item: -item[0].bit_count())  # O_SYNC holds O_DSYNC's bit
    zero = field.values.get("0")

    @lru_cache(1024)
    def show(value: int) -> str:
        rest, found = value, set()
        for bits, name in widest_first:
            if rest & bits == bits:
                found.add(name)
                rest &= ~bits
        shown = [zero] if zero and not value & 3 else []
        shown += [name for _, name in names if name in found]
        return "|".join([*shown, hex(rest)] if rest or not shown else shown)

    return show


def name_of(field: Field) -> Callable[[int], str] | None:
    """What a number of the field is called, as JSON has it, empty for none; None if its numbers have no names."""
    if field.kind == "flags":
        return flag_names(field)
    if field.kind in ("errno", "enum", "words"):
        name = named(field)
        return lambda value: name(value) or ""
    return None
