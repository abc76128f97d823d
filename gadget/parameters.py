"""Parameter values: from what a user typed to the bytes in a program's .rodata."""

from __future__ import annotations

from gadget.errors import UsageError
from gadget.schema import Parameter


def encode(parameter: Parameter, text: str) -> bytes:
    """The bytes for a value as text, parameter.size of them. UsageError if it does not fit the parameter."""
    try:
        return parameter.means.pack(text, parameter.size, signed=parameter.signed)
    except ValueError as error:
        raise UsageError(f"--{parameter.name} {text!r}: {error}") from None
