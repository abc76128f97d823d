"""A set of rules, ready to judge events: files are loaded, lists and macros written out, conditions compiled."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from gadget.memory import no_collections
from gadget.rules import values
from gadget.rules.checks import Compiler, Event, Test, checks, event_types, names
from gadget.rules.fields import SOURCES, SYSCALL
from gadget.rules.files import DefinedMacro, DefinedRule, Entry, Excepted, Files
from gadget.rules.outputs import RuleOutput
from gadget.rules.parser import (
    DEPTH,
    LIST_OPERATORS,
    MODIFIERS,
    TRANSFORMERS,
    Check,
    Junction,
    Literal,
    MacroName,
    Node,
    Not,
    Several,
    parse,
)
from gadget.rules.problems import (
    COMPILE_CONDITION,
    COMPILE_OUTPUT,
    VALIDATE,
    ConditionError,
    Position,
    Problem,
    RulesError,
)
from gadget.rules.texts import Piece, PiecedText, quoted
from gadget.text import asked

#: Of all rules with macros written out the checks, and of one the levels. Falco's 141 have 1,711 checks in 12 levels.
#: 30,000 are compiled in 2 s.
CHECKS, LEVELS = 30_000, 400
#: Characters of all conditions with their lists written out. Falco's have 83,126.
LENGTH = 8 << 20
ITEMS = 1_000_000
#: Different patterns of all rules: what they may take in memory is shared among them (values.py).
PATTERNS = 1000
#: A rule that runs on more types of events is told of: it costs something for nearly each.
MANY_TYPES = 100
#: A value of an exception that is no text but a field or a transformer, as rule_loader_compiler.cpp lets it be.
_COMPUTED = re.compile(rf"(val|{'|'.join(TRANSFORMERS)})\(\S*\)")
_DEPRECATED = ("evt.dir", "evt.latency", "evt.latency.s", "evt.latency.ns", "evt.latency.human", "evt.wait_latency")
_INFO = "%container.info"


@dataclass(frozen=True)
class Rule:
    """A rule that is ready: condition has its macros written out, test is its function."""

    name: str
    at: Position
    source: str
    priority: str
    desc: str
    tags: frozenset[str]
    enabled: bool
    history: int
    condition: Node
    test: Test
    types: frozenset[str]
    output: RuleOutput


@dataclass(frozen=True)
class Ruleset:
    """Rules in the order in which they are asked."""

    rules: tuple[Rule, ...]
    warnings: tuple[Problem, ...]
    files: Files
    #: what each of their patterns may take
    pattern_bytes: int = values.MOST_BYTES

    def matching(self, event: Event, source: str = SYSCALL, *, first: bool = False) -> list[Rule]:
        """The rules that fire on an event; first stops at one, as Falco does unless it is told otherwise."""
        found = []
        for rule in self.rules:
            if rule.enabled and rule.source == source and rule.test(event):
                found.append(rule)
                if first:
                    break
        return found


def load(files: Iterable[tuple[str, str]]) -> Ruleset:
    """Load files, given as name and text, one after the other: each has to make sense with those before it.

    Raises:
        RulesError: One does not.

    """
    known, warnings, rules = Files(), [], ()  # type: Files, list[Problem], tuple[Rule, ...]
    compiled: list[Problem] = []
    pattern_bytes = values.MOST_BYTES
    with no_collections():
        for name, text in files:
            known.load(text, name)
            warnings += known.warnings
            known.warnings = []
            compiling = _Compiling(known)
            rules = tuple(compiling.rules())
            compiled, pattern_bytes = known.warnings, compiling.pattern_bytes
    return Ruleset(rules, (*warnings, *compiled), known, pattern_bytes)


class _Places:
    """Where each character of the texts of all conditions stands in the files."""

    def __init__(self) -> None:
        self._texts: list[PiecedText] = []
        self._bases: list[int] = []
        self._end = 0

    def add(self, text: PiecedText) -> int:
        """Take in a text; gives what to add to a place in it."""
        self._texts.append(text)
        self._bases.append(self._end)
        self._end += len(text.value) + 1
        return self._bases[-1]

    def position(self, at: int) -> Position:
        """Where a place is."""
        index = bisect_right(self._bases, at) - 1
        return self._texts[index].position(at - self._bases[index])


@dataclass(frozen=True)
class _Resolved:
    """A tree without macros, and how large it is."""

    node: Node
    checks: int
    levels: int


class _Compiling:
    """Makes rules of what files define."""

    def __init__(self, files: Files) -> None:
        self._files, self._places, self._used = files, _Places(), set[str]()
        self._lists = dict(self._written_out())
        self._length = 0  # of all conditions so far
        self.pattern_bytes = values.MOST_BYTES  # of each
        self._trees: dict[str, _Resolved] = {}
        self._macros: dict[str, _Resolved] = {}

    def rules(self) -> Iterator[Rule]:
        """All rules.

        Raises:
            RulesError: One makes no sense.

        """
        macros = sorted(self._files.macros.values(), key=lambda each: each.index)
        trees = {macro.name: self._parsed(PiecedText.joined(macro.condition)) for macro in macros}
        used: set[str] = set()
        for macro in macros:
            visible = {each.name: trees[each.name] for each in macros if each.index < macro.visibility}
            self._macros[macro.name] = self._resolved(trees[macro.name], visible, used, (macro.name,))
        rules = [
            rule for rule in sorted(self._files.rules.values(), key=lambda each: each.index) if rule.source in SOURCES
        ]
        self._measure(rules, used)
        for rule in rules:
            if made := self._rule(rule, used):
                yield made
        self._warn_unused(used, macros)

    def _measure(self, rules: list[DefinedRule], used: set[str]) -> None:
        """Refuse what would be too much before anything is compiled, which takes 0.1 ms a check.

        Raises:
            RulesError: It would.

        """
        total, patterns = 0, set[tuple[str, str]]()
        with suppress(RulesError):  # told in its turn
            for rule in rules:
                self._trees[rule.name] = self._tree(rule, used)
                total += self._trees[rule.name].checks
                if total > CHECKS:
                    break
                patterns.update(_patterns(self._trees[rule.name].node))
        if total > CHECKS:
            raise RulesError(VALIDATE, f"with macros written out these rules have more than {CHECKS:,} checks", rule.at)
        if len(patterns) > PATTERNS:
            raise RulesError(VALIDATE, f"these rules have more than {PATTERNS:,} different patterns", rule.at)
        self.pattern_bytes = values.bytes_of_each(len(patterns))

    def _tree(self, rule: DefinedRule, used: set[str]) -> _Resolved:
        """The condition of a rule with its exceptions, lists and macros."""
        macros = {name: each.node for name, each in self._macros.items()}
        resolved = self._resolved(self._parsed(PiecedText(self._pieces(rule))), macros, used, ())
        if resolved.levels > LEVELS:
            raise RulesError(VALIDATE, f"the condition of {rule.name} becomes too large", rule.at)
        return resolved

    def _warn_unused(self, used: set[str], macros: Iterable[DefinedMacro]) -> None:
        for macro in macros:
            if macro.name not in used:
                self._files.warn("LOAD_UNUSED_MACRO", f"nothing uses the macro {macro.name}", macro.at)
        for each in self._files.lists.values():
            if each.name not in self._used:
                self._files.warn("LOAD_UNUSED_LIST", f"nothing uses the list {each.name}", each.at)

    # lists and macros

    def _written_out(self) -> Iterator[tuple[str, list[str]]]:
        """Lists with the items of lists in them; one that is in itself is a text there."""
        lists = self._files.lists

        total = 0

        def items(name: str, path: tuple[str, ...]) -> Iterator[str]:
            nonlocal total
            for item in lists[name].items:
                total += 1
                if total > ITEMS or len(path) > LEVELS:
                    raise RulesError(VALIDATE, f"lists have more than {ITEMS:,} items in all", lists[name].at)
                if item in lists and item not in path:
                    self._used.add(item)
                    yield from items(item, (*path, item))
                else:
                    yield item

        for name in lists:
            yield name, list(items(name, (name,)))

    def _parsed(self, text: PiecedText) -> Node:
        written = text.expanded(self._lists, self._used.add)
        self._length += len(written.value)
        if self._length > LENGTH:
            raise RulesError(VALIDATE, "with their lists written out these rules are too long", text.position(0))
        base = self._places.add(written)
        if not written.value.strip():
            raise RulesError(COMPILE_CONDITION, "the condition says nothing", text.position(0))
        try:
            return parse(written.value, DEPTH, base)
        except ConditionError as error:
            raise RulesError(COMPILE_CONDITION, error.text, self._places.position(error.at)) from None

    def _resolved(self, node: Node, macros: Mapping[str, Node], used: set[str], path: tuple[str, ...]) -> _Resolved:
        """A tree with the macros that it may use written out."""
        if isinstance(node, MacroName):
            return self._macro(node, macros, used, path)
        if isinstance(node, Check):
            return _Resolved(node, 1, 1)
        if isinstance(node, Not):
            inner = self._resolved(node.child, macros, used, path)
            return _Resolved(Not(inner.node), inner.checks, inner.levels + 1)
        children = [self._resolved(child, macros, used, path) for child in node.children]
        whole = Junction(node.word, tuple(child.node for child in children))
        return _Resolved(whole, sum(each.checks for each in children), max(each.levels for each in children) + 1)

    def _macro(self, name: MacroName, macros: Mapping[str, Node], used: set[str], path: tuple[str, ...]) -> _Resolved:
        if name.name not in macros:
            late = self._files.macros.get(name.name)
            text = f"there is no macro {name.name}"
            text = f"{text} before this: it is defined at {late.at}" if late else asked(text, name.name, macros)
            raise RulesError(VALIDATE, text, self._places.position(name.at), is_of_others=not late)
        if name.name in path:
            raise RulesError(VALIDATE, f"the macro {name.name} is made of itself", self._places.position(name.at))
        used.add(name.name)
        found = self._macros.get(name.name)
        if found is None:
            found = self._resolved(macros[name.name], macros, used, (*path, name.name))
        if found.checks > CHECKS or found.levels > LEVELS or len(path) > LEVELS:
            raise RulesError(VALIDATE, f"the macro {name.name} becomes too large", self._places.position(name.at))
        return found

    # rules

    def _rule(self, rule: DefinedRule, used: set[str]) -> Rule | None:
        """A rule, ready; nothing if it names what does not exist and says that it may be skipped for that."""
        skips = rule.switches.get("skip-if-unknown-filter", False)
        text = PiecedText.joined(rule.output)
        start = len(text.value) - len(text.value.lstrip())
        try:
            output = RuleOutput(text.value.strip().replace(_INFO, ""), rule.source)
        except ConditionError as error:
            self._skip(error, text.position(start + error.at), COMPILE_OUTPUT, skips=skips)
            return None
        self._warn_output(text)
        resolved = self._trees.get(rule.name) or self._tree(rule, used)
        self._warn_condition(rule, resolved.node)
        compiler = Compiler(rule.source, self.pattern_bytes)
        try:
            test = compiler.test(resolved.node)
        except ConditionError as error:
            self._skip(error, self._places.position(error.at), COMPILE_CONDITION, skips=skips)
            return None
        for warning, at in compiler.warnings:
            self._files.warn("LOAD_COMPILE_CONDITION", warning, self._places.position(at))
        types = event_types(resolved.node) if rule.source == SYSCALL else frozenset[str]()
        if len(types) > MANY_TYPES and rule.switches.get("warn_evttypes", True):
            why = f"{rule.name} runs on {len(types)} types of events: say which, as evt.type in (execve, execveat)"
            self._files.warn("LOAD_NO_EVTTYPE", why, rule.at)
        return Rule(
            rule.name, rule.at, rule.source, rule.priority, rule.desc, frozenset(rule.tags), rule.enabled,
            rule.numbers.get("history", 0), resolved.node, test, types, output,
        )  # fmt: skip

    def _skip(self, error: ConditionError, at: Position, code: str, *, skips: bool) -> None:
        if not (error.unknown and skips):
            raise RulesError(code, error.text, at) from None
        self._files.warn("LOAD_UNKNOWN_FILTER", f"{error.text}: the rule is skipped", at)

    def _warn_output(self, text: PiecedText) -> None:
        for name in (_INFO, *_DEPRECATED):
            if (at := text.value.find(name)) >= 0:
                self._files.warn("LOAD_DEPRECATED_ITEM", f"{name} is deprecated", text.position(at))

    def _warn_condition(self, rule: DefinedRule, node: Node) -> None:
        """Warn of a text for missing values, which audit events do not have, and of fields that are out of use."""
        for check in checks(node):
            own = list(names(check.left))
            right = check.right.items if isinstance(check.right, Several) else (check.right,)
            equal = check.operator in ("=", "!=", "in", "intersects", "pmatch")
            name = next((each for each in own if each.startswith(("ka.", "jevt."))), "")
            unsafe = bool(name) and equal and not check.modifier
            if unsafe and any(isinstance(each, Literal) and each.text == "<NA>" for each in right):
                text = f"{name} is never the text <NA>: ask with exists"
                self._files.warn("LOAD_UNSAFE_NA_CHECK", text, self._places.position(check.at))
            for name in set(own) & set(_DEPRECATED):
                self._files.warn("LOAD_DEPRECATED_ITEM", f"{name} is deprecated", self._places.position(check.at))

    def _pieces(self, rule: DefinedRule) -> Iterator[Piece]:
        """The condition of a rule with its exceptions: (condition) and not (tuple or tuple …) and not …."""
        first, whole = rule.condition[0], PiecedText.joined(rule.condition)
        if not rule.exceptions:
            yield from whole.pieces
            return
        yield Piece("(", first, None)
        yield from whole.pieces
        yield Piece(")", first, None)
        for exception in rule.exceptions:
            if exception.values:
                yield from _excepted(exception)


def _patterns(node: Node) -> Iterator[tuple[str, str]]:
    """The patterns of a condition, each with its operator."""
    for check in checks(node):
        right = check.right.items if isinstance(check.right, Several) else (check.right,)
        texts = (each.text for each in right if isinstance(each, Literal))
        yield from ((check.operator, part) for text in texts for part in values.patterns(check.operator, text))


def _excepted(exception: Excepted) -> Iterator[Piece]:
    own, operators = exception.fields, exception.operators
    assert own and operators
    if own.scalar:
        values = ", ".join(quoted(value.text.value) for value in exception.values)
        yield Piece(f" and not ({own.scalar.value} {operators.text.value} ({values}))", own.scalar, None)
        return
    word = " and not ("
    for value in exception.values:
        if len(value.items) != len(own.items):
            raise RulesError(VALIDATE, "each value of an exception has one part for each field", value.at)
        yield Piece(f"{word}(", own.items[0].text, None)
        for at, (name, operator, part) in enumerate(zip(own.items, operators.items, value.items, strict=True)):
            yield Piece(f"{' and ' if at else ''}{name.text.value} ", name.text, None)
            yield Piece(f"{operator.text.value} ", operator.text, None)
            yield Piece(_right(operator, part), part.scalar or name.text, None)
        yield Piece(")", own.items[0].text, None)
        word = " or "
    yield Piece(")", own.items[0].text, None)


def _right(operator: Entry, value: Entry) -> str:
    """The right side of one comparison of an exception."""
    words = operator.text.value.split()
    if words[0] == "exists":
        return ""
    if value.scalar is None:
        return f"({', '.join(quoted(each.text.value) for each in value.items)})"
    text = value.scalar.value
    if words[0] in LIST_OPERATORS or words[-1] in MODIFIERS:
        return text if text.startswith("(") else f"({quoted(text)})"
    return text if _COMPUTED.fullmatch(text) else quoted(text)
