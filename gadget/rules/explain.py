"""Rules for people: conditions as text, whether one can ever hold, and why it held or did not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gadget.rules.checks import Compiler, Event, event_types
from gadget.rules.fields import SYSCALL
from gadget.rules.outputs import shown
from gadget.rules.parser import BARE, Check, FieldName, Junction, Literal, MacroName, Node, Not, Operand, Several


def text(node: Node, *, inside: bool = False) -> str:
    """A condition as a rule file has it, in one line; inside: in parentheses where it has alternatives."""
    if isinstance(node, Check):
        return check_text(node)
    if isinstance(node, MacroName):
        return node.name
    if isinstance(node, Not):
        return f"not {text(node.child, inside=True)}"
    joined = f" {node.word} ".join(text(child, inside=True) for child in node.children)
    return f"({joined})" if inside else joined


def check_text(check: Check) -> str:
    """One comparison."""
    words = [_operand(check.left), check.operator, check.modifier, _operand(check.right) if check.right else ""]
    return " ".join(word for word in words if word)


def _operand(operand: Operand) -> str:
    if isinstance(operand, FieldName):
        return operand.name if operand.arg is None else f"{operand.name}[{operand.arg}]"
    if isinstance(operand, Literal):
        bare = BARE.fullmatch(operand.text) and operand.text.isprintable()
        return operand.text if bare else '"' + operand.text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(operand, Several):
        return f"({', '.join(map(_operand, operand.items))})"
    arg = "" if operand.arg is None else f"[{operand.arg}]"
    return f"{operand.name}({', '.join(map(_operand, operand.args))}){arg}"


def never(node: Node, source: str = SYSCALL) -> str:
    """Why a condition can never hold, as far as its text shows; empty if it can."""
    if why := _never(node):
        return why
    return "" if source != SYSCALL or event_types(node) else "no type of event takes all of it"


def _never(node: Node) -> str:
    if isinstance(node, Check):
        nothing = isinstance(node.right, Several) and not node.right.items
        return f"{check_text(node)} compares with nothing" if nothing else ""
    if not isinstance(node, Junction):
        return ""
    whys = [_never(child) for child in node.children]
    if node.word == "or":
        return whys[0] if all(whys) else ""
    there = {_operand(child.left) for child in node.children if isinstance(child, Check)}
    for child in node.children:
        if isinstance(child, Not) and isinstance(child.child, Check) and child.child.operator == "exists":
            field = _operand(child.child.left)
            if field in there:
                return f"not {field} exists, where another part asks for its value"
    return next((why for why in whys if why), "")


@dataclass(frozen=True)
class Line:
    """A part of a condition and whether it held: how deep it stands, and for a check the value that it saw."""

    depth: int
    text: str
    held: bool
    value: str = ""


def lines(node: Node, event: Event, source: str, *, whole: bool = False) -> Iterator[Line]:
    """The parts of a condition that decided, each with its result; whole: also the other parts."""
    yield from _lines(node, event, Compiler(source), 0, whole=whole)


def _lines(node: Node, event: Event, compiler: Compiler, depth: int, *, whole: bool) -> Iterator[Line]:
    held = bool(compiler.test(node)(event))
    if isinstance(node, Not) and not isinstance(node.child, Check):
        yield Line(depth, "not", held)
        yield from _lines(node.child, event, compiler, depth + 1, whole=whole)
    elif isinstance(node, Junction):
        yield Line(depth, "all of" if node.word == "and" else "any of", held)
        for child in node.children:
            # one part decides what is false of all, or true of any
            if whole or held == (node.word == "and") or bool(compiler.test(child)(event)) == held:
                yield from _lines(child, event, compiler, depth + 1, whole=whole)
    else:
        check: Any = node.child if isinstance(node, Not) else node
        value, side = compiler.extractor(check.left)
        yield Line(depth, text(node), held, shown(value(event), side.kind))
