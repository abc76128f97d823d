"""Conditions of rules: checked by the types of fields, and made functions of an event.

An event is a mapping from the text of a field, as conditions name it, to its value: texts, numbers, booleans, addresses
as 4 or 16 bytes, tuples for fields of several values. What an event does not have is missing: a check of it is false,
whatever its operator (sinsp_filtercheck.cpp, compare_nocache).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from gadget.rules import fields, values
from gadget.rules.fields import TEXTS
from gadget.rules.parser import (
    EQUALS,
    TRANSFORMERS,
    Check,
    FieldName,
    Junction,
    Literal,
    Node,
    Not,
    Operand,
    Several,
    Transformed,
)
from gadget.rules.problems import ConditionError
from gadget.text import asked

_TYPES = frozenset(("evt.type", "syscall.type"))
#: Python's compiler wants a place of each part.
_PLACE = {"lineno": 1, "col_offset": 0}
#: Python compares with some at once.
_OF_SOME = frozenset(("startswith", "endswith", "bstartswith"))
#: With more values than that a loop is as fast as an expression that has them all, and made 20 times as fast.
_WRITTEN_OUT = 64


class Event(Protocol):
    """Gives the values of fields, by the text with which conditions name them."""

    def get(self, key: str, /) -> Any:
        """The value; None if it is missing."""


Test = Callable[[Event], Any]


@dataclass(frozen=True)
class Side:
    """One side of a comparison: the Python expression for its value, with its type."""

    code: str
    kind: str
    is_list: bool = False
    any_of: bool = False
    name: str = ""
    properties: frozenset[str] = frozenset()


@dataclass
class Compiler:
    """Makes conditions functions, for events of one source. warnings: what is allowed, and likely a mistake."""

    source: str
    #: what each pattern may take
    pattern_bytes: int = values.MOST_BYTES
    warnings: list[tuple[str, int]] = field(default_factory=list)
    _names: dict[str, Any] = field(default_factory=dict)

    def test(self, node: Node) -> Test:
        """The function of a condition.

        Raises:
            ConditionError: A field, an operator or a value makes no sense.

        """
        texts = [f"({self._check(check)})" for check in checks(node)]
        whole = ast.parse(f"lambda get: [{', '.join(texts)}]", mode="eval")  # all at once: each alone takes 40 µs
        assert isinstance(whole.body, ast.Lambda) and isinstance(whole.body.body, ast.List)
        whole.body.body = self._tree(node, iter(whole.body.body.elts))
        function = eval(compile(whole, "<condition>", "eval"), self._names)  # built from checks alone, each made below
        return lambda event: function(event.get)

    def extractor(self, operand: Operand) -> tuple[Callable[[Event], Any], Side]:
        """The function that gives the value of a field or a transformer, or None."""
        side = self._side(operand)
        function = eval(f"lambda get: {side.code}", self._names)
        return (lambda event: function(event.get)), side

    def _tree(self, node: Node, made: Iterator[ast.expr]) -> ast.expr:
        """The expression of a condition whose checks have been made, in their order."""
        if isinstance(node, Check):
            return next(made)
        if isinstance(node, Not):
            return ast.UnaryOp(ast.Not(), self._tree(node.child, made), **_PLACE)
        if isinstance(node, Junction):
            word = ast.And() if node.word == "and" else ast.Or()
            return ast.BoolOp(word, [self._tree(child, made) for child in node.children], **_PLACE)
        raise ConditionError(f"there is no macro {node.name}", node.at)

    def _constant(self, what: Any) -> str:
        name = f"k{len(self._names)}"
        self._names[name] = what
        return name

    # a check

    def _check(self, check: Check) -> str:
        left = self._side(check.left)
        if not values.allows(left.kind, check.operator, is_list=left.is_list):
            what = "a list" if left.is_list else f"of type {left.kind}"
            raise ConditionError(f"{left.name} is {what}, which {check.operator} does not compare", check.at)
        if check.operator == "exists":
            return f"({left.code}) is not None"
        right = check.right
        if check.operator in (*EQUALS, "in"):
            computed = isinstance(right, Transformed) and _plain(check.left) in _TYPES
            if computed or (isinstance(check.left, Transformed) and _TYPES & set(names(check.left))):
                raise ConditionError("evt.type is compared with names of types alone, without a transformer", check.at)
        if isinstance(right, Transformed | FieldName):
            return self._against(check, left, self._side(right))
        if right is None:
            raise ConditionError(f"{check.operator} has nothing to compare with", check.at)
        items = right.items if isinstance(right, Several) else (right,)
        literals = [item for item in items if isinstance(item, Literal)]
        for literal in literals:
            self._warn(check, literal)
        constants = [self._value(left, check, literal) for literal in literals]
        if left.is_list:
            return self._of_list(left.code, check.operator, self._constant(frozenset(constants)))
        if left.any_of:
            test = self._test("one", check, left.kind, constants)
            which = "all" if check.operator == "!=" and left.name.startswith("fd.") else "any"
            return f"bool(many := {left.code}) and {which}({test} for one in many)"
        return self._test(left.code, check, left.kind, constants)

    def _test(self, code: str, check: Check, kind: str, constants: list[Any]) -> str:
        """The expression of a check of one value."""
        operator, modifier = check.operator, check.modifier
        if not constants:
            return "False"
        if operator in ("in", "intersects") or (operator == "=" and modifier == "anyof"):
            if kind == "IPNET":
                return f"(v := {code}) is not None and any(net(v) for net in {self._constant(tuple(constants))})"
            return f"({code}) in {self._constant(frozenset(constants))}"
        if operator == "pmatch":
            return f"(v := {code}) is not None and {self._constant(values.prefixes(constants, self.pattern_bytes))}(v)"
        ready = [self._ready(operator, constant) for constant in constants]
        if len(ready) == 1 and operator == "=" and kind != "IPNET":
            return f"({code}) == {self._constant(ready[0])}"
        there = f"(v := {code}) is not None"
        if modifier == "anyof" and operator in _OF_SOME:
            return f"{there} and {_compared('v', operator, self._constant(tuple(ready)))}"
        if len(ready) > _WRITTEN_OUT:
            each = f"{self._single('v', operator, kind, 'k')} for k in {self._constant(tuple(ready))}"
            if modifier == "oneof":
                return f"{there} and sum(bool(t) for t in ({each})) == 1"
            return f"{there} and {'any' if modifier == 'anyof' else 'all'}({each})"
        tests = [self._single("v", operator, kind, self._constant(each)) for each in ready]
        if modifier == "oneof":
            return f"{there} and sum(map(bool, ({', '.join(tests)},))) == 1"
        return f"{there} and ({(' or ' if modifier == 'anyof' else ' and ').join(tests)})"

    def _pattern(self, operator: str, text: str) -> values.Pattern:
        if operator == "regex":
            return values.regex(text, self.pattern_bytes)
        return values.glob(text, self.pattern_bytes, fold=operator == "iglob")

    def _ready(self, operator: str, constant: Any) -> Any:
        """What a value that is there is compared with: patterns as their tests."""
        if operator in ("regex", "glob", "iglob"):
            return self._pattern(operator, constant)
        return values.lower(constant) if operator == "icontains" else constant

    def _single(self, one: str, operator: str, kind: str, ready: str) -> str:
        """The expression that compares a value that is there with what is called ready."""
        if kind == "IPNET":
            return f"{'not ' if operator == '!=' else ''}{ready}({one})"
        if operator in ("regex", "glob", "iglob"):
            return f"{ready}({one})"
        if operator == "icontains":
            return f"{ready} in {self._constant(values.lower)}({one})"
        return _compared(one, operator, ready)

    def _of_list(self, code: str, operator: str, wanted: str) -> str:
        if operator == "in":
            return f"bool(v := {code}) and {wanted}.issuperset(v)"
        return f"bool(v := {code}) and not {wanted}.isdisjoint(v)"

    def _against(self, check: Check, left: Side, right: Side) -> str:
        """The expression of a comparison of two sides that events have."""
        operator = check.operator
        if operator in ("pmatch", "regex"):
            raise ConditionError(f"{operator} does not compare with a field", check.at)
        for side in (left, right):
            if "no_right" in side.properties or side.any_of or side.kind == "IPNET":
                raise ConditionError(f"{side.name} is not compared with another field", check.at)
        if (left.kind, left.is_list) != (right.kind, right.is_list):
            told = [f"{side.name} ({'list of ' if side.is_list else ''}{side.kind})" for side in (left, right)]
            raise ConditionError(f"{told[0]} and {told[1]} are of different types", check.at)
        if left.is_list:
            return f"(w := {right.code}) is not None and {self._of_list(left.code, operator, 'frozenset(w)')}"
        both = f"(v := {left.code}) is not None and (w := {right.code}) is not None"
        if operator in ("glob", "iglob"):
            return f"{both} and {self._constant(values.glob_of_event)}(w, fold={operator == 'iglob'})(v)"
        if operator == "icontains":
            low = self._constant(values.lower)
            return f"{both} and {low}(w) in {low}(v)"
        return f"{both} and {_compared('v', '=' if operator in ('in', 'intersects') else operator, 'w')}"

    def _value(self, left: Side, check: Check, literal: Literal) -> Any:
        try:
            found = values.value(literal.text, left.kind, check.operator)
            for pattern in values.patterns(check.operator, literal.text):
                self._pattern(check.operator, pattern)
        except ValueError as error:
            raise ConditionError(f"{left.name} {check.operator}: {error}", literal.at) from None
        if left.name == "evt.type" and found not in fields.event_types():
            text = asked(f"there is no event type {found}", found, fields.event_types())
            raise ConditionError(text, literal.at, unknown=True)
        return found

    def _warn(self, check: Check, literal: Literal) -> None:
        """Warn of what libsinsp warns of (filter.cpp, check_value_and_add_warnings)."""
        bare = "".join(literal.text.split())
        if check.operator == "regex" and not _needs_regex(literal.text):
            self.warnings.append((f"{literal.text!r} needs no regex: =, contains, startswith or endswith", literal.at))
        if _names_field(bare, self.source):
            self.warnings.append((f"{literal.text} is a text here, and also a field: val({bare})", literal.at))
        if re.fullmatch(rf"({'|'.join((*TRANSFORMERS, 'val'))})\(.*\)", bare):
            self.warnings.append((f"{literal.text} is a text here, and looks like a transformer", literal.at))

    # its sides

    def _side(self, operand: Operand) -> Side:
        if isinstance(operand, FieldName):
            found = fields.find(operand.name, operand.arg, self.source, operand.at)
            code = f"get({found.key!r})"
            return Side(code, found.type, found.is_list, found.any_of, found.key, found.properties)
        if isinstance(operand, Literal):
            return Side(self._constant(operand.text), "CHARBUF", name=repr(operand.text))
        if isinstance(operand, Several):
            sides = [self._side(item) for item in operand.items]
            texts = ", ".join(side.code for side in sides)
            return Side(f"{self._constant(_listed)}([{texts}])", "CHARBUF", is_list=True, name="a list")
        if operand.name == "val":
            return self._side(operand.args[0])
        sides = [self._side(arg) for arg in operand.args]
        for side in sides:
            if "no_transform" in side.properties:
                raise ConditionError(f"{side.name} takes no transformer", operand.at)
        if len(sides) > 1 or operand.name in ("join", "concat", "getopt"):
            return self._of_several(operand, sides)
        if operand.arg is not None:
            raise ConditionError(f"{operand.name}() takes no argument in brackets", operand.at)
        return self._of_one(operand, sides[0])

    def _of_one(self, operand: Transformed, side: Side) -> Side:
        name, told = operand.name, f"{operand.name}({side.name})"
        takes = TEXTS | {"BYTEBUF"} if name in ("b64", "len") else TEXTS
        if not (side.kind in takes or (name == "len" and side.is_list)):
            raise ConditionError(f"{name}() takes no {side.kind}, as {side.name} is", operand.at)
        if name == "len":
            return Side(
                f"None if (t := {side.code}) is None else {self._constant(values.length)}(t)", "UINT64", name=told
            )
        function = self._constant(_TRANSFORMS[name])
        once = f"{function}(t)" if not side.is_list else f"tuple(map({function}, t))"
        return Side(f"(None if (t := {side.code}) is None else {once})", side.kind, side.is_list, name=told)

    def _of_several(self, operand: Transformed, sides: list[Side]) -> Side:
        name, lists = operand.name, [side.is_list for side in sides]
        wanted = {"join": [False, True], "getopt": [True, False]}.get(name, [False] * max(2, len(sides)))
        if name not in ("join", "concat", "getopt"):
            raise ConditionError(f"{name}() takes one argument", operand.at)
        if lists != wanted:
            raise ConditionError(f"{_TAKES[name]}", operand.at)
        if name != "join" and any(side.kind != "CHARBUF" for side in sides):
            raise ConditionError(f"{name}() takes texts", operand.at)
        if operand.arg is not None and (name != "getopt" or len(operand.arg) != 1):
            why = "takes one letter in brackets" if name == "getopt" else "takes no argument in brackets"
            raise ConditionError(f"{name}() {why}", operand.at)
        texts = ", ".join(side.code for side in sides)
        function = self._constant(_GATHER[name])
        extra = f", {operand.arg!r}" if name == "getopt" else ""
        is_list = name == "getopt" and operand.arg is None
        return Side(f"{function}([{texts}]{extra})", "CHARBUF", is_list, name=f"{name}(…)")


def _compared(one: str, operator: str, other: str) -> str:
    """The expression that compares two values that are there."""
    if operator in ("contains", "bcontains"):
        return f"{other} in {one}"
    if operator.lstrip("b") in ("startswith", "endswith"):
        return f"{one}.{operator.lstrip('b')}({other})"
    return f"{one} {'==' if operator == '=' else operator} {other}"


_TRANSFORMS: dict[str, Callable[[Any], Any]] = {
    "tolower": values.lower,
    "toupper": values.upper,
    "b64": values.decoded,
    "basename": values.basename,
}
_TAKES = {
    "join": "join() takes a separator and a list",
    "concat": "concat() takes two texts or more",
    "getopt": "getopt() takes a list of arguments and the letters of options",
}


def _listed(found: list[Any]) -> Any:
    """The texts of a list in parentheses; nothing if one is missing."""
    if None in found:
        return None
    flat: list[str] = []
    for each in found:
        flat += map(str, each) if isinstance(each, tuple) else [each if isinstance(each, str) else str(each)]
    return tuple(flat)


def _join(found: list[Any]) -> Any:
    separator, items = found
    return None if separator is None or items is None else separator.join(map(str, items))


def _concat(found: list[Any]) -> Any:
    return None if None in found else "".join(found)


def _getopt(found: list[Any], wanted: str | None) -> Any:
    return None if None in found else values.options_of(found[0], found[1], wanted)


_GATHER: dict[str, Callable[..., Any]] = {"join": _join, "concat": _concat, "getopt": _getopt}


def _needs_regex(pattern: str) -> bool:
    """Whether a pattern says more than =, contains, startswith and endswith can."""
    inner = re.sub(r"^\^|\$$", "", pattern)
    inner = re.sub(r"^\.[+*?](?=.)|\.[+*?]$", "", inner)
    return bool(re.search(r"[.+*?^$()\[\]{}|\\]", inner))


def _names_field(text: str, source: str) -> bool:
    found = re.fullmatch(r"([a-zA-Z]\w*(?:\.[a-zA-Z]\w*)+)(?:\[([^\]]*)\])?", text, re.ASCII)
    if not found:
        return False
    try:
        fields.find(found[1], found[2], source, ask=False)
    except ConditionError:
        return False
    return True


# what is known of conditions before there is an event


def names(operand: Operand) -> Iterator[str]:
    """The fields that an operand names."""
    if isinstance(operand, FieldName):
        yield operand.name
    elif isinstance(operand, Transformed | Several):
        for each in operand.args if isinstance(operand, Transformed) else operand.items:
            yield from names(each)


def checks(node: Node) -> Iterator[Check]:
    """All checks of a tree."""
    if isinstance(node, Check):
        yield node
    elif isinstance(node, Not):
        yield from checks(node.child)
    elif isinstance(node, Junction):
        for child in node.children:
            yield from checks(child)


def event_types(node: Node, *, negated: bool = False) -> frozenset[str]:
    """The types of events of which a condition may hold (libsinsp/filter/ppm_codes.cpp)."""
    every = fields.event_types()
    if isinstance(node, Not):
        return event_types(node.child, negated=not negated)
    if isinstance(node, Junction):
        found = [event_types(child, negated=negated) for child in node.children]
        return frozenset.intersection(*found) if (node.word == "and") != negated else frozenset.union(*found)
    if not isinstance(node, Check):
        return every
    own = _never(node)
    if own is None and not node.modifier and _plain(node.left) in _TYPES and node.operator in ("=", "!=", "in"):
        right = node.right.items if isinstance(node.right, Several) else (node.right,)
        own = frozenset(item.text for item in right if isinstance(item, Literal))
        own = every - own if node.operator == "!=" else own
    if own is None:
        return every
    return every - own if negated else own


def folded(node: Node) -> Node | bool:
    """A condition without the parts that hold always or never: those are how rule files switch something off."""
    if isinstance(node, Not):
        inner = folded(node.child)
        return not inner if isinstance(inner, bool) else Not(inner)
    if isinstance(node, Junction):
        children = [folded(child) for child in node.children]
        if (decides := node.word == "or") in [child for child in children if isinstance(child, bool)]:
            return decides
        rest = tuple(child for child in children if not isinstance(child, bool))
        return Junction(node.word, rest) if len(rest) > 1 else rest[0] if rest else not decides
    if isinstance(node, Check):
        if isinstance(node.right, Several) and not node.right.items:
            return False
        if (types := _never(node)) is not None:
            return bool(types)
    return node


def _plain(operand: Operand) -> str:
    """The name of a field that stands alone, without an argument."""
    return operand.name if isinstance(operand, FieldName) and operand.arg is None else ""


def _never(check: Check) -> frozenset[str] | None:
    """No type for a check of the number of an event that never holds, as it is at least 1; all if it always does."""
    right = check.right
    if _plain(check.left) != "evt.num" or check.modifier or not isinstance(right, Literal | Several):
        return None
    texts = [
        item.text for item in (right.items if isinstance(right, Several) else (right,)) if isinstance(item, Literal)
    ]
    if not texts or not all(re.fullmatch(r"\+?[0-9]{1,20}", text) for text in texts):
        return None
    numbers, every = list(map(int, texts)), fields.event_types()
    if check.operator == "in":
        return frozenset() if not any(numbers) else None
    never = {"=": (0,), "<": (0, 1), "<=": (0,)}.get(check.operator, ())
    always = {"!=": (0,), ">": (0,), ">=": (0, 1)}.get(check.operator, ())
    return frozenset() if numbers[0] in never else every if numbers[0] in always else None
