"""Conditions of rules: text to a tree. The grammar is that of libsinsp/filter/parser.h."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gadget.rules.problems import ConditionError

#: How deep a condition may go: a call of Falco's parser each, 5 for a parenthesis (rule_loader_compiler.cpp).
DEPTH, DEPTH_ALONE = 1000, 100
TRANSFORMERS_DEEP = 16
TRANSFORMERS = ("tolower", "toupper", "b64", "basename", "len", "join", "concat", "getopt")
MODIFIERS = ("oneof", "anyof", "allof")
LIST_OPERATORS = ("in", "intersects", "pmatch")
ORDERS = ("<", "<=", ">", ">=")
EQUALS = ("=", "!=")
WORDS = ("glob", "iglob", "contains", "icontains", "bcontains", "startswith", "bstartswith", "endswith", "regex")
OPERATORS = ("exists", *ORDERS, *EQUALS, *WORDS, *LIST_OPERATORS)

_BLANKS = re.compile(r"[ \t\b\r\n]*")
_IDENTIFIER = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")
_FIELD = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*(?:\.[a-zA-Z][a-zA-Z0-9_]*)+")
_ARGUMENT = re.compile(r"[^\]\[\"'\s]+")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[+-]?\d+\.?\d*(?:[eE][+-]\d+)?")
BARE = re.compile(r"[^()\"'\s=,]+")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.DOTALL)
_NOT = re.compile(r"not[ \t\b\r\n\f\v]+")
_TRANSFORMER = re.compile(rf"({'|'.join(TRANSFORMERS)})\(")
_OPERATOR = re.compile(
    rf"<=|<|>=|>|==|=|!=|(?:exists|intersects|in|pmatch)(?![a-zA-Z0-9_.])|(?:{'|'.join(WORDS)})(?=\s)"
)
_MODIFIER = re.compile(rf"[ \t\b\r\n]+({'|'.join(MODIFIERS)})[ \t\b\r\n]+(?=\(|(?!(?:and|or|not)\b)[a-zA-Z])")
_ESCAPES = {" ": b"\\", "b": b"\b", "f": b"\f", "n": b"\n", "r": b"\r", "t": b"\t", "\\": b"\\", "/": b"/"}


@dataclass(frozen=True)
class FieldName:
    """A field, with the argument in brackets behind it; at is where it stands in the text."""

    name: str
    arg: str | None
    at: int


@dataclass(frozen=True)
class Literal:
    """A text or a number."""

    text: str
    at: int


@dataclass(frozen=True)
class Several:
    """A list in parentheses: of literals behind an operator, of anything as an argument of a transformer."""

    items: tuple[Operand, ...]
    at: int


@dataclass(frozen=True)
class Transformed:
    """A transformer and its arguments; name is val where a field stands on the right of an operator as it is."""

    name: str
    args: tuple[Operand, ...]
    arg: str | None
    at: int


Operand = FieldName | Literal | Several | Transformed


@dataclass(frozen=True)
class Check:
    """One comparison; right is nothing for exists."""

    left: Operand
    operator: str
    modifier: str
    right: Operand | None
    at: int


@dataclass(frozen=True)
class MacroName:
    """A macro."""

    name: str
    at: int


@dataclass(frozen=True)
class Not:
    """Negates a condition."""

    child: Node


@dataclass(frozen=True)
class Junction:
    """Joins conditions: all must hold (`and`), or any (`or`)."""

    word: str
    children: tuple[Node, ...]


Node = Check | MacroName | Not | Junction


def _joined(word: str, children: list[Node]) -> Node:
    return children[0] if len(children) == 1 else Junction(word, tuple(children))


def parse(text: str, depth: int = DEPTH_ALONE, base: int = 0) -> Node:
    """The tree of a condition. base is added to each place, so that texts of several files can be told apart.

    Raises:
        ConditionError: It is none, or deeper than it may be.

    """
    parser = Parser(text, depth, base=base)
    node = parser.either(0)
    if parser.at != len(text):
        raise parser.error("expected `and`, `or` or the end")
    return node


class Parser:
    """Reads a condition, or one operand of an output, from left to right."""

    def __init__(self, text: str, depth: int = DEPTH_ALONE, at: int = 0, base: int = 0) -> None:
        self.text, self.at, self._depth, self._base, self._transformers = text, at, depth, base, 0

    def error(self, expected: str, at: int | None = None) -> ConditionError:
        """An error at the place that was reached, which tells what stands there."""
        at = self.at if at is None else at
        there = self.text[at : at + 20].split("\n")[0]
        told = f"{expected}, not {there!r}" if there else f"{expected}, where the text ends"
        return ConditionError(told, self._base + at)

    def either(self, depth: int) -> Node:
        """Alternatives: what `or` joins. depth is how deep it stands."""
        self._deeper(depth + 4)
        alternatives: list[Node] = []
        together: list[Node] = []
        joins = "or"  # what stands before the next operand, and whether a parenthesis touches it
        touched = False
        while joins:
            if joins == "or" and together:
                alternatives.append(_joined("and", together))
                together = []
            together.append(self._operand(depth + (1 if touched and joins == "or" else 2), touched=touched))
            joins = next((word for word in ("and", "or") if self._word(word)), "")
            touched = bool(joins) and not self._blanks()
            if touched and not self.text.startswith("(", self.at):
                raise self.error("expected a blank or a parenthesis")
        return _joined("or", [*alternatives, _joined("and", together)])

    def _operand(self, depth: int, *, touched: bool) -> Node:
        """A check, a macro or a parenthesis, with what negates it; touched: a parenthesis alone."""
        self._blanks()
        negated = False
        while not touched and self._matches(_NOT):
            negated = not negated
        if self._literal("not("):
            negated, inner = not negated, depth + 2
        elif self._literal("("):
            inner = depth + (1 if touched else 3)
        else:
            node = self._check(depth + 2)
            return Not(node) if negated else node
        node = self.either(inner)
        self._blanks()
        if not self._literal(")"):
            raise self.error("expected a closing parenthesis")
        return Not(node) if negated else node

    def _word(self, word: str) -> bool:
        self._blanks()
        return self._literal(word)

    def _check(self, depth: int) -> Node:
        at = self.at
        left = self._field() or self._transformed(depth)
        if left is None:
            if not (name := self._matches(_IDENTIFIER)):
                raise self.error("expected a field, a macro or a parenthesis")
            return MacroName(name, self._base + at)
        self._deeper(depth + 3)
        self._blanks()
        operator = self._matches(_OPERATOR)
        if not operator:
            raise self.error(f"expected an operator (one of {' '.join(OPERATORS)})")
        operator = "=" if operator == "==" else operator
        if operator == "exists":
            return Check(left, operator, "", None, self._base + at)
        if operator in LIST_OPERATORS:
            self._blanks()
            right = self._list() or self._right(depth) or self._bare(_IDENTIFIER)
            if right is None:
                raise self.error("expected a list in parentheses, or a field in val()")
            return Check(left, operator, "", right, self._base + at)
        if operator not in ORDERS and (modifier := _MODIFIER.match(self.text, self.at)):
            self.at = modifier.end()
            return Check(left, operator, modifier[1], self._list() or self._bare(_IDENTIFIER), self._base + at)
        self._blanks()
        right = self._right(depth) or (self._bare(_NUMBER) if operator in ORDERS else self._value())
        if right is None:
            raise self.error(f"expected a {'number' if operator in ORDERS else 'value'}, or a field in val()")
        return Check(left, operator, "", right, self._base + at)

    def operand(self) -> FieldName | Transformed:
        """A field or a transformer alone, as in an output."""
        found = self._field() or self._transformed(0)
        if found is None:
            raise self.error("expected a field")
        return found

    def _field(self) -> FieldName | None:
        at, name = self.at, self._matches(_FIELD)
        return FieldName(name, self._argument(), self._base + at) if name else None

    def _argument(self) -> str | None:
        """What stands in brackets."""
        if not self._literal("["):
            return None
        quoted = self._quoted()
        argument = self._matches(_ARGUMENT) if quoted is None else quoted
        if argument is None:
            raise self.error("expected an argument, bare or quoted")
        if not self._literal("]"):
            raise self.error("expected a closing bracket")
        return argument

    def _transformed(self, depth: int) -> Transformed | None:
        at, found = self.at, _TRANSFORMER.match(self.text, self.at)
        if not found:
            return None
        self._deeper(depth + 2)
        self._transformers += 1
        if self._transformers > TRANSFORMERS_DEEP:
            raise ConditionError(f"at most {TRANSFORMERS_DEEP} transformers stand in one another", self._base + at)
        self.at = found.end()
        args = [self._argument_of(depth + 2)]
        while self._word(","):
            args.append(self._argument_of(depth + 2))
        self._transformers -= 1
        self._blanks()
        if not self._literal(")"):
            raise self.error("expected a closing parenthesis behind the arguments of a transformer")
        return Transformed(found[1], tuple(args), self._argument(), self._base + at)

    def _argument_of(self, depth: int, *, inside: bool = False) -> Operand:
        self._blanks()
        at = self.at
        if (found := self._bare(_NUMBER) or self._literal_text()) is not None:
            return found
        if not inside and self._literal("("):
            items: list[Operand] = []
            self._blanks()
            while not self._literal(")"):
                if items and not self._literal(","):
                    raise self.error("expected a comma or a closing parenthesis")
                items.append(self._argument_of(depth, inside=True))
                self._blanks()
            return Several(tuple(items), self._base + at)
        operand = self._transformed(depth) or self._field()
        if operand is None:
            raise self.error("expected a field, a transformer, a quoted text, a number or a list")
        return operand

    def _right(self, depth: int) -> Transformed | None:
        """A field in val(), or a transformer."""
        at = self.at
        if not self._literal("val("):
            return self._transformed(depth)
        self._blanks()
        field = self._field()
        if field is None:
            raise self.error("expected a field in val()")
        self._blanks()
        if not self._literal(")"):
            raise self.error("expected a closing parenthesis behind val")
        if self._argument() is not None:
            raise self.error("val() takes no argument in brackets", at)
        return Transformed("val", (field,), None, self._base + at)

    def _list(self) -> Several | None:
        at = self.at
        if not self._literal("("):
            return None
        self._blanks()
        items = [first] if (first := self._value()) else []
        self._blanks()
        while items and self._literal(","):
            self._blanks()
            value = self._value()
            if value is None:
                raise self.error("expected a value behind the comma")
            items.append(value)
            self._blanks()
        if not self._literal(")"):
            raise self.error("expected a comma or a closing parenthesis")
        return Several(tuple(items), self._base + at)

    def _value(self) -> Literal | None:
        return self._literal_text() or self._bare(BARE)

    def _literal_text(self) -> Literal | None:
        at, text = self.at, self._quoted()
        return None if text is None else Literal(text, self._base + at)

    def _bare(self, pattern: re.Pattern[str]) -> Literal | None:
        at, text = self.at, self._matches(pattern)
        return None if text is None else Literal(text, self._base + at)

    def _quoted(self) -> str | None:
        at, quoted = self.at, self._matches(_QUOTED)
        if quoted is None:
            if self.text[at : at + 1] in ("'", '"'):
                raise self.error("expected a closing quote behind the text", at)
            return None
        try:
            return unescape(quoted)
        except ValueError as error:
            raise ConditionError(str(error), self._base + at) from None

    def _literal(self, text: str) -> bool:
        if not self.text.startswith(text, self.at):
            return False
        self.at += len(text)
        return True

    def _matches(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.match(self.text, self.at)
        if not found:
            return None
        self.at = found.end()
        return found[0]

    def _blanks(self) -> bool:
        return bool(self._matches(_BLANKS))

    def _deeper(self, depth: int) -> None:
        if depth >= self._depth:
            raise ConditionError("the condition goes too deep: split it into macros", self._base + self.at)


def unescape(quoted: str) -> str:
    r"""A text without its quotes and escapes; the bytes of \xHH are read as UTF-8, as the kernel's are."""
    inner, quote = quoted[1:-1], quoted[0]
    if "\\" not in inner:
        return inner
    out, at = bytearray(), 0
    for found in re.finditer(r"\\(x[0-9a-fA-F]{2}|.)", inner, re.DOTALL):
        out += inner[at : found.start()].encode("utf-8", "surrogateescape")
        at, what = found.end(), found[1]
        if what in _ESCAPES:
            out += _ESCAPES[what]
        elif what == quote:
            out += quote.encode()
        elif len(what) == 3:
            out.append(int(what[1:], 16))
        else:
            raise ValueError(f"there is no escape \\{what} in a text in {quote}")
    return (out + inner[at:].encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")
