"""Parameter values: from what a user typed to the bytes in a program's .rodata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from gadget.errors import UsageError
from gadget.schema import Parameter

if TYPE_CHECKING:
    from gadget.catalog import Gadget


def encode_all(gadget: Gadget, settings: Mapping[str, str]) -> Iterator[tuple[Parameter, bytes]]:
    """Each parameter that is set, with the bytes for its value. UsageError if gadget has no such parameter or value."""
    known = {parameter.name: parameter for parameter in gadget.parameters}
    for name, value in settings.items():
        if name not in known:
            raise UsageError(f"{gadget.name} has no parameter {name!r}: it has {', '.join(known)}")
        yield known[name], encode(known[name], value)


def encode(parameter: Parameter, text: str) -> bytes:
    """The bytes for a value as text, parameter.size of them. UsageError if it does not fit the parameter."""
    try:
        return parameter.means.pack(text, parameter)
    except ValueError as error:
        raise UsageError(f"--{parameter.name} {text!r}: {error}") from None
