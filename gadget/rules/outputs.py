"""Outputs of rules: a text with fields in it, as `%proc.name`, and the values of those fields."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from gadget.rules import fields
from gadget.rules.checks import Compiler, Event, Side
from gadget.rules.parser import FieldName, Operand, Parser, Several, Transformed
from gadget.rules.problems import ConditionError

MISSING = "<NA>"
_WIDTH = re.compile("[0-9]*")
_NAME = re.compile(r"[a-zA-Z][\w.]*", re.ASCII)


@dataclass(frozen=True)
class _Token:
    """A placeholder in an output. width pads and cuts its text; 0 does neither."""

    value: Callable[[Event], Any]
    kind: str
    width: int

    def text(self, event: Event) -> str:
        found = shown(self.value(event), self.kind)
        return found.ljust(self.width)[: self.width] if self.width else found


class RuleOutput:
    """What a rule says of an event.

    Raises:
        ConditionError: A field does not exist, or a % has none.

    """

    def __init__(self, text: str, source: str) -> None:
        self.written, self._compiler = text, Compiler(source)
        self._parts: list[str | _Token] = []
        self.fields: dict[str, tuple[Callable[[Event], Any], str]] = {}
        at = 0
        while (sign := text.find("%", at)) >= 0:
            self._parts.append(text[at:sign])
            at = self._token(text, sign + 1)
        self._parts.append(text[at:])

    def text(self, event: Event) -> str:
        """The text of an event."""
        return "".join(part if isinstance(part, str) else part.text(event) for part in self._parts)

    def values(self, event: Event) -> dict[str, Any]:
        """The fields of an event that the text names, as JSON has them: None for what is missing."""
        return {name: plain(value(event), kind) for name, (value, kind) in self.fields.items()}

    def _token(self, text: str, at: int) -> int:
        """Read one field behind a %; gives where the text goes on."""
        digits = _WIDTH.match(text, at)
        start = digits.end() if digits else at
        if start - at > 4:
            raise ConditionError("a width has at most 4 digits", at)
        if start == len(text):
            raise ConditionError("a % at the end has no field behind it", at)
        operand, end = self._operand(text, start)
        value, side = self._extractor(operand)
        self._parts.append(_Token(value, side.kind, int(text[at:start] or 0)))
        for field in _fields(operand):
            own, own_side = self._extractor(field)
            self.fields[own_side.name] = own, own_side.kind
        return end

    def _extractor(self, operand: Operand) -> tuple[Callable[[Event], Any], Side]:
        value, side = self._compiler.extractor(operand)
        if side.any_of:
            many = value
            hidden = "condition" in side.properties
            return (lambda event: None if hidden else next(iter(many(event) or ()), None)), side
        return value, side

    def _operand(self, text: str, at: int) -> tuple[Operand, int]:
        """The longest field that stands there, or a transformer."""
        name = _NAME.match(text, at)
        if not name:
            raise ConditionError("a % has a field behind it, as %proc.name", at, unknown=True)
        if text[name.end() : name.end() + 1] == "(":
            return self._transformer(text, at)
        for end in range(name.end(), at, -1):
            whole = text if text[end : end + 1] == "[" else text[:end]
            if (found := self._field(whole, at, end) or self._field(text[:end], at, end)) is not None:
                return found
        self._compiler.extractor(Parser(text, at=at).operand())  # its error says why there is none
        raise ConditionError(f"there is no field {name[0]}", at, unknown=True)

    def _transformer(self, text: str, at: int) -> tuple[Operand, int]:
        """A transformer; brackets behind it that it does not take are text."""
        parser = Parser(text, at=at)
        try:
            found = parser.operand()
            if isinstance(found, Transformed) and found.arg is not None and found.name != "getopt":
                found, parser.at = replace(found, arg=None), text.rindex("[", at, parser.at)
            self._compiler.extractor(found)
        except ConditionError as error:
            raise ConditionError(error.text, error.at, unknown=True) from None
        return found, parser.at

    def _field(self, text: str, at: int, end: int) -> tuple[Operand, int] | None:
        parser = Parser(text, at=at)
        try:
            operand = parser.operand()
            if not isinstance(operand, FieldName) or at + len(operand.name) != end:
                return None
            fields.find(operand.name, operand.arg, self._compiler.source, at, ask=False)
        except ConditionError:
            return None
        return operand, parser.at


def _fields(operand: Operand) -> list[FieldName]:
    if isinstance(operand, FieldName):
        return [operand]
    if isinstance(operand, Transformed):
        return [field for arg in operand.args for field in _fields(arg)]
    if isinstance(operand, Several):
        return [field for item in operand.items for field in _fields(item)]
    return []


def plain(value: Any, kind: str) -> Any:
    """A value as JSON has it."""
    if isinstance(value, tuple | list):
        return [plain(each, kind) for each in value]
    return _text(value, kind) if isinstance(value, bytes) else value


def shown(value: Any, kind: str) -> str:
    """A value as a text has it."""
    if value is None:
        return MISSING
    if isinstance(value, tuple | list):
        return f"({','.join(shown(each, kind) for each in value)})"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _text(value, kind) if isinstance(value, bytes) else str(value)


def _text(value: bytes, kind: str) -> str:
    if kind in ("IPADDR", "IPNET"):
        return str(ip_address(value))
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in value)
