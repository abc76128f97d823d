"""Decoders: how one argument of a call becomes text, and a value for JSON."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from gadget import syscalls
from gadget.syscalls import Argument, Capture, How
from kubectl_gadget.strace.calls import Call, Captured
from kubectl_gadget.strace.scalars import choice_and_flags, enumeration, hexadecimal, octal, pointer, quote, signed
from kubectl_gadget.strace.structures import Structure, flag_set


class ArgumentDecoder(NamedTuple):
    """text and value of the argument of a call at an index."""

    text: Callable[[Call, int], str]
    value: Callable[[Call, int], Any]


#: Makes the decoder of an argument on a machine.
Meaning = Callable[[str, Argument], ArgumentDecoder]

_WIDTHS = {  # C type: bits, signed
    "int": (32, True),
    "long": (64, True),
    "loff_t": (64, True),
    "off_t": (64, True),
    "pid_t": (32, True),
    "clockid_t": (32, True),
    "key_t": (32, True),
    "key_serial_t": (32, True),
    "timer_t": (32, True),
    "mqd_t": (32, True),
    "__s32": (32, True),
    "size_t": (64, False),
    "unsigned long": (64, False),
    "aio_context_t": (64, False),
    "u64": (64, False),
}


def width(argument: Argument) -> tuple[int, bool]:
    """Bits and sign of a number: a call uses no more of the register, and the rest may hold anything."""
    return _WIDTHS.get(argument.kind, (32, False))


def reader(argument: Argument) -> Callable[[int], int]:
    """Takes an argument's number out of its register."""
    bits, is_signed = width(argument)
    mask = (1 << bits) - 1
    return partial(signed, bits=bits) if is_signed else lambda value: value & mask


def scalar(argument: Argument, show: Callable[[int], str], keep: bool = False) -> ArgumentDecoder:
    """A number that show writes; JSON has the number itself if keep."""
    read = reader(argument)

    def text(call: Call, index: int) -> str:
        return show(read(call.args[index]))

    return ArgumentDecoder(text, (lambda call, index: read(call.args[index])) if keep else text)


def number(machine: str, argument: Argument) -> ArgumentDecoder:
    """A decimal number."""
    return scalar(argument, str, keep=True)


def signed_number(machine: str, argument: Argument) -> ArgumentDecoder:
    """A number that may be -1 though its type is unsigned: files, users."""
    return number(machine, Argument(argument.name, "int"))


def hex_number(machine: str, argument: Argument) -> ArgumentDecoder:
    """A number whose bits matter."""
    return scalar(argument, hexadecimal, keep=True)


def mode(machine: str, argument: Argument) -> ArgumentDecoder:
    """Permission bits."""
    return scalar(Argument(argument.name, "umode_t"), octal)


def address(machine: str, argument: Argument) -> ArgumentDecoder:
    """A pointer without further knowledge."""
    return ArgumentDecoder(lambda call, index: pointer(call.args[index]), lambda call, index: call.args[index])


def directory(machine: str, argument: Argument) -> ArgumentDecoder:
    """A file descriptor of a directory, or the current one."""
    at_fdcwd = -100

    def text(call: Call, index: int) -> str:
        value = signed(call.args[index], 32)
        return "AT_FDCWD" if value == at_fdcwd else str(value)

    def value(call: Call, index: int) -> int | str:
        value = signed(call.args[index], 32)
        return "AT_FDCWD" if value == at_fdcwd else value

    return ArgumentDecoder(text, value)


def names(name: str, unknown: Callable[[int], str] | None = None) -> Meaning:
    """One of a set of names."""
    return lambda machine, argument: scalar(argument, enumeration(syscalls.flags(machine, name), unknown))


def bits(name: str, zero: str = "") -> Meaning:
    """Flags of a set of names."""

    def meaning(machine: str, argument: Argument) -> ArgumentDecoder:
        size = width(argument)[0]
        return scalar(Argument(argument.name, "u64" if size == 64 else "u32"), flag_set(machine, name, zero))

    return meaning


def choice_and_bits(mask: int, choice: str, others: str) -> Meaning:
    """A value of one set in mask, and flags of another."""

    def meaning(machine: str, argument: Argument) -> ArgumentDecoder:
        show = choice_and_flags(mask, syscalls.flags(machine, choice), flag_set(machine, others))
        return scalar(Argument(argument.name, "u32"), show)

    return meaning


def shown(make: Callable[[str], Callable[[int], str]], kind: str = "u32") -> Meaning:
    """What a function of the machine shows, which takes numbers of that C type."""
    return lambda machine, argument: scalar(Argument(argument.name, kind), make(machine))


#: Decodes the memory that was copied for an argument.
Show = Callable[[Call, int, Captured], Any]


def captured(show: Show, value: Show | None = None) -> ArgumentDecoder:
    """What was copied; the pointer if nothing was, or if it makes no sense. JSON has the same text, or value."""

    def decode(show: Show, otherwise: Callable[[int], Any], call: Call, index: int) -> Any:
        found = call.captured.get(index)
        if found is None:
            return otherwise(call.args[index])
        try:
            return show(call, index, found)
        except (struct.error, ValueError):
            return otherwise(call.args[index])

    return ArgumentDecoder(partial(decode, show, pointer), partial(decode, value or show, int))


def structure(show: Structure) -> Meaning:
    """A structure in user memory."""
    return lambda machine, argument: captured(lambda call, index, found: show(found.data, call.machine))


def text_of(data: bytes) -> str | dict[str, str]:
    """A string for JSON. Bytes that are no UTF-8 are an object: of them, and of a text in which they are escaped.

    By the text alone the byte 0xff would be as the four characters of its escape.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"text": data.decode("utf-8", "backslashreplace"), "base64": b64encode(data).decode()}


def _text(call: Call, index: int, found: Captured) -> str | dict[str, str]:
    return text_of(found.data)


def string(machine: str, argument: Argument) -> ArgumentDecoder:
    """A path or a name, in full."""
    return captured(
        lambda call, index, found: quote(found.data, found.size > len(found.data)),
        _text,
    )


def strings(limit: int) -> Meaning:
    """An array of strings, which end with NUL."""

    def items(found: Captured) -> list[bytes]:
        return found.data.removesuffix(b"\0").split(b"\0") if found.data else []

    def text(call: Call, index: int, found: Captured) -> str:
        cut = found.size > len(found.data)
        shown = [quote(item[:limit], len(item) > limit or at in found.cut) for at, item in enumerate(items(found))]
        return f"[{', '.join([*shown, '...'] if cut else shown)}]"

    return lambda machine, argument: captured(text, lambda call, index, found: list(map(text_of, items(found))))


def buffer_text(found: Captured, limit: int) -> str:
    """Bytes of a buffer, with dots if there were more."""
    data = found.data[:limit]
    return quote(data, found.size > len(data))


def buffer(limit: int, length: int, *, by_result: bool = False) -> Meaning:
    """Bytes that args[length] limits, and the result if by_result: text or not, written as a string."""

    def meaning(machine: str, argument: Argument) -> ArgumentDecoder:
        inner = captured(
            lambda call, index, found: buffer_text(found, limit),
            _text,
        )

        def text(call: Call, index: int) -> str:
            length_now = call.result if by_result else call.args[length]
            empty = not length_now and call.args[index] and index not in call.captured
            return '""' if empty else inner.text(call, index)

        return ArgumentDecoder(text, inner.value)

    return meaning


def used(call: Call, capture: Capture | None, found: Captured) -> int:
    """How many bytes of what was copied the call filled or took."""
    reads = capture and capture.after_success and capture.how in (How.VECTOR, How.MESSAGE)
    return min(found.size, call.result or 0) if reads else found.size


def after_success(decoder: ArgumentDecoder) -> ArgumentDecoder:
    """Memory that the call writes: decoded only if the call succeeded."""
    plain = address("", Argument("", ""))

    def text(call: Call, index: int) -> str:
        return (plain if call.result is None or call.failed else decoder).text(call, index)

    def value(call: Call, index: int) -> Any:
        return (plain if call.result is None or call.failed else decoder).value(call, index)

    return ArgumentDecoder(text, value)


def length_of(pointed: int) -> Meaning:
    """A pointer to the length of another argument's memory."""

    def text(call: Call, index: int) -> str:
        found = call.captured.get(pointed)
        return f"[{found.size}]" if found else pointer(call.args[index])

    def value(call: Call, index: int) -> int:
        found = call.captured.get(pointed)
        return found.size if found else call.args[index]

    return lambda machine, argument: ArgumentDecoder(text, value)


def of_capture(capture: Capture, limit: int) -> Meaning | None:
    """The decoder for memory that the plan copies, from the form of the copy."""
    return {
        How.STRING: string,
        How.BYTES_ARG: buffer(limit, capture.size),
        How.BYTES_RESULT: buffer(limit, capture.size, by_result=True),
        How.BYTES_POINTED: buffer(limit, capture.size),
        How.STRINGS: strings(limit),
    }.get(capture.how)
