"""Parameter values: from what a user typed to the bytes in a program's .rodata."""

from __future__ import annotations

from gadget.errors import UsageError
from gadget.schema import Parameter

_BOOLS = {"true": 1, "1": 1, "false": 0, "0": 0}


def encode(parameter: Parameter, text: str) -> bytes:
    """The bytes for a value as text, parameter.size of them. UsageError if it does not fit the parameter."""
    if parameter.kind in ("comm", "string"):
        data = text.encode()
        if len(data) >= parameter.size:
            raise UsageError(
                f"--{parameter.name} {text!r}: at most {parameter.size - 1} bytes, as the kernel keeps no more"
            )
        return data.ljust(parameter.size, b"\0")
    try:
        value = _BOOLS[text.lower()] if parameter.kind == "bool" else int(text, 0)
        return value.to_bytes(parameter.size, "little", signed=parameter.signed)
    except (KeyError, ValueError, OverflowError):
        raise UsageError(f"--{parameter.name} {text!r}: not a {parameter.kind}") from None
