"""Rule files: which lists, macros and rules they define, change and switch, in the order in which they are loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from gadget.rules.checks import Compiler
from gadget.rules.documents import Node, Scalar, YamlMapping, read
from gadget.rules.documents import Sequence as Items
from gadget.rules.fields import SOURCES, SYSCALL
from gadget.rules.parser import BARE, EQUALS, MODIFIERS, OPERATORS, WORDS, Parser
from gadget.rules.problems import VALIDATE, YAML_VALIDATE, ConditionError, Position, Problem, RulesError
from gadget.text import asked, meant

#: The version of Falco's engine whose language this is: rules that need a later one are refused.
ENGINE = (0, 63, 0)
PRIORITIES = ("Emergency", "Alert", "Critical", "Error", "Warning", "Notice", "Informational", "Debug")
_YES, _NO = ("y", "yes", "true", "on"), ("n", "no", "false", "off")
_IDENTIFIER = re.compile(r"[a-zA-Z][a-zA-Z0-9_]*")
_APPENDED = frozenset(("condition", "output", "desc", "tags", "exceptions"))
_SWITCHES = ("enabled", "capture", "warn_evttypes", "skip-if-unknown-filter")
_NUMBERS = ("capture_duration", "history")
_REPLACED = _APPENDED | {"priority", *_SWITCHES, *_NUMBERS}
_KEYS = {
    "rule": frozenset(("rule", "source", "override", "append", *_REPLACED)),
    "macro": frozenset(("macro", "condition", "append", "override")),
    "list": frozenset(("list", "items", "append", "override")),
    "required_engine_version": frozenset(("required_engine_version",)),
    "required_plugin_versions": frozenset(("required_plugin_versions",)),
}


_Some = TypeVar("_Some", bound="Defined")


@dataclass
class Defined:
    """A definition in files: index is its place among its kind, visibility the place of its last change."""

    name: str
    at: Position
    index: int = 0
    visibility: int = 0
    history: list[Position] = field(default_factory=list)
    """Where it was defined, and appended to, overridden, switched or defined anew since."""


@dataclass
class DefinedList(Defined):
    """A list."""

    items: list[str] = field(default_factory=list)


@dataclass
class DefinedMacro(Defined):
    """A macro: texts that are joined with a blank."""

    condition: list[Scalar] = field(default_factory=list)


@dataclass
class Entry:
    """A value of an exception: one text, or several."""

    at: Position
    scalar: Scalar | None
    items: list[Entry]

    @property
    def text(self) -> Scalar:
        """The text of a value that is no list.

        Raises:
            RulesError: It is one.

        """
        if self.scalar is None:
            raise RulesError(VALIDATE, "expected a text, not a list", self.at)
        return self.scalar


@dataclass
class Excepted:
    """When a rule does not fire: fields are compared with tuples of values, or one field with a list of them."""

    name: str
    at: Position
    fields: Entry | None
    operators: Entry | None
    values: list[Entry]


@dataclass
class DefinedRule(Defined):
    """A rule as its files say, its texts not yet compiled."""

    condition: list[Scalar] = field(default_factory=list)
    output: list[Scalar] = field(default_factory=list)
    desc: str = ""
    priority: str = ""
    source: str = SYSCALL
    tags: set[str] = field(default_factory=set)
    exceptions: list[Excepted] = field(default_factory=list)
    switches: dict[str, bool] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    @property
    def enabled(self) -> bool:
        """Whether it is switched on."""
        return self.switches.get("enabled", True)


class Files:
    """All that was loaded. warnings are of the file that was loaded last."""

    def __init__(self) -> None:
        self.lists: dict[str, DefinedList] = {}
        self.macros: dict[str, DefinedMacro] = {}
        self.rules: dict[str, DefinedRule] = {}
        self.warnings: list[Problem] = []
        self._count = 0

    def load(self, text: str, name: str) -> None:
        """Take in a file.

        Raises:
            RulesError: It makes no sense.

        """
        self.warnings = []
        for document in read(text, name):
            if isinstance(document, Scalar) and document.is_null:
                continue
            for item in _items(document, "a rule file is a list of rules, macros and lists"):
                if not (isinstance(item, Scalar) and item.is_null):
                    self._item(item)

    def warn(self, code: str, text: str, at: Position) -> None:
        """Note a warning."""
        self.warnings.append(Problem(code, text, at))

    def _item(self, item: Node) -> None:
        if not isinstance(item, YamlMapping):
            raise RulesError(YAML_VALIDATE, "expected a rule, a macro or a list, with its keys", item.at)
        kind = next((kind for kind in ("required_engine_version", "required_plugin_versions", "list", "macro", "rule")
                     if kind in item.pairs), None)  # fmt: skip
        if kind is None:
            self.warn("LOAD_UNKNOWN_ITEM", f"this is neither {' nor '.join(_KEYS)}: it is passed over", item.at)
            return
        {"list": self._list, "macro": self._macro, "rule": self._rule, "required_engine_version": self._engine,
         "required_plugin_versions": self._plugins}[kind](item)  # fmt: skip
        for key, at in item.keys.items():
            if key not in _KEYS[kind]:
                self.warn("LOAD_UNKNOWN_KEY", asked(f"a {kind} has no key {key}", key, _KEYS[kind]), at)

    # versions

    def _engine(self, item: YamlMapping) -> None:
        wanted = _scalar(item, "required_engine_version")
        plain = re.fullmatch("[0-9]{1,9}", wanted.value)
        version = (0, int(wanted.value), 0) if plain else _version(wanted)
        if version is None:
            raise RulesError(YAML_VALIDATE, f"{wanted.value!r} is no version, as 0.57.0", wanted.at)
        if version[0] != ENGINE[0] or version > ENGINE:
            have = ".".join(map(str, ENGINE))
            raise RulesError(VALIDATE, f"these rules need engine version {wanted.value}; this is {have}", wanted.at)

    def _plugins(self, item: YamlMapping) -> None:
        for plugin in _items(item.pairs["required_plugin_versions"], "expected a list of plugins"):
            others = plugin.pairs.get("alternatives") if isinstance(plugin, YamlMapping) else None
            named: set[str] = set()
            for each in [plugin, *(_items(others, "expected a list of plugins") if others else ())]:
                if not isinstance(each, YamlMapping):
                    raise RulesError(YAML_VALIDATE, "expected name and version of a plugin", each.at)
                name, version = _scalar(each, "name"), _scalar(each, "version")
                if _version(version) is None:
                    raise RulesError(VALIDATE, f"{version.value!r} is no version, as 0.4.0", version.at)
                if name.value in named:
                    raise RulesError(VALIDATE, f"{name.value} is an alternative of itself", name.at)
                named.add(name.value)

    # lists and macros

    def _list(self, item: YamlMapping) -> None:
        name = _scalar(item, "list")
        if not BARE.fullmatch(name.value):
            self.warn("LOAD_INVALID_LIST_NAME", f"no condition can name a list {name.value!r}", name.at)
        if "items" not in item.pairs:
            raise RulesError(YAML_VALIDATE, f"the list {name.value} has no items", item.at)
        new = DefinedList(name.value, name.at, items=_texts(item.pairs["items"]))
        if self._appends(item, ("items",)):
            old = self._before(self.lists, new)
            old.items += new.items
            self._changed(old, new.at)
        else:
            self._define(self.lists, new)

    def _macro(self, item: YamlMapping) -> None:
        name = _scalar(item, "macro")
        if not _IDENTIFIER.fullmatch(name.value):
            self.warn("LOAD_INVALID_MACRO_NAME", f"no condition can name a macro {name.value!r}", name.at)
        new = DefinedMacro(name.value, name.at, condition=[_scalar(item, "condition")])
        if self._appends(item, ("condition",)):
            old = self._before(self.macros, new)
            old.condition += new.condition
            self._changed(old, new.at)
        else:
            self._define(self.macros, new)

    def _appends(self, item: YamlMapping, overridable: Sequence[str]) -> bool:
        """Whether an item adds to an earlier one, in today's or in the older syntax."""
        appended = self._old_append(item)
        overrides = _overrides(item, frozenset(overridable), frozenset(overridable))
        if appended and overrides:
            raise RulesError(YAML_VALIDATE, "append and override do not go together: override is enough", item.at)
        return appended or "append" in overrides.values()

    def _old_append(self, item: YamlMapping) -> bool:
        appended = "append" in item.pairs and _switch(item, "append")
        if appended:
            self.warn("LOAD_DEPRECATED_ITEM", "append is deprecated: write override: {condition: append}",
                      item.keys["append"])  # fmt: skip
        return appended

    def _define(self, among: dict[str, _Some], new: _Some) -> None:
        old = among.get(new.name)
        new.index = old.index if old else self._count
        new.visibility, new.history = self._count, [*(old.history if old else ()), new.at]
        among[new.name] = new
        self._count += 1

    def _changed(self, old: Defined, at: Position) -> None:
        old.visibility = self._count
        old.history.append(at)
        self._count += 1

    def _before(self, among: dict[str, _Some], new: _Some) -> _Some:
        if new.name not in among:
            text = f"there is nothing of the name {new.name} to change before this"
            raise RulesError(VALIDATE, asked(text, new.name, among), new.at, is_of_others=True)
        return among[new.name]

    # rules

    def _rule(self, item: YamlMapping) -> None:
        name = _scalar(item, "rule")
        source = _scalar(item, "source", empty=True).value if "source" in item.pairs else ""
        appended = self._old_append(item)
        overrides = _overrides(item, _APPENDED, _REPLACED)
        if appended and overrides:
            raise RulesError(YAML_VALIDATE, "append and override do not go together: override is enough", item.at)
        required = ("condition", "output", "desc", "priority")
        if overrides:
            self._override(item, name, source, overrides)
        elif appended:
            self._change(
                item, name, source, {key: "append" for key in ("condition", "exceptions") if key in item.pairs}
            )
        elif not any(key in item.pairs for key in required):
            enabled = _switch(item, "enabled")
            self.warn("LOAD_DEPRECATED_ITEM", "write also override: {enabled: replace}", item.at)
            old = self._before(self.rules, DefinedRule(name.value, name.at))
            old.switches["enabled"] = enabled
            old.history.append(name.at)
        else:
            for key in required:
                _scalar(item, key)
            new = DefinedRule(name.value, name.at, source=source or SYSCALL)
            if "source" in item.pairs:
                _scalar(item, "source")
            self._same_source(new, source)
            if new.source not in SOURCES:
                question = meant(new.source, SOURCES)
                text = f"there is no source {source}{f', {question}' if question else ''}: the rule is passed over"
                self.warn("LOAD_UNKNOWN_SOURCE", text, name.at)
            for key in _REPLACED & item.pairs.keys():
                self._set(new, item, key)
            self._define(self.rules, new)

    def _override(self, item: YamlMapping, name: Scalar, source: str, overrides: dict[str, str]) -> None:
        given = _REPLACED & item.pairs.keys()
        for key, operation in overrides.items():
            if key not in given:
                raise RulesError(YAML_VALIDATE, f"override says {operation} of {key}, which is not given", item.at)
        for key in sorted(given - overrides.keys()):
            raise RulesError(YAML_VALIDATE, f"{key} is given, and override does not say what it does", item.keys[key])
        for operation in ("append", "replace"):
            if chosen := {key: operation for key, each in overrides.items() if each == operation}:
                self._change(item, name, source, chosen)

    def _change(self, item: YamlMapping, name: Scalar, source: str, keys: dict[str, str]) -> None:
        """Append to a rule, or replace parts of it."""
        new = DefinedRule(name.value, name.at, source=source)
        for key, operation in keys.items():
            self._set(new, item, key, append=operation == "append")
        if "condition" in keys:
            self._same_source(new, source)
        old = self._before(self.rules, new)
        if not keys:
            raise RulesError(VALIDATE, "a rule that is appended to needs a condition or exceptions", name.at)
        for key, operation in keys.items():
            if operation == "append":
                self._append(old, new, key)
            else:
                _replace(old, new, key)
        self._changed(old, name.at)

    def _append(self, old: DefinedRule, new: DefinedRule, key: str) -> None:
        if key == "exceptions":
            for exception in new.exceptions:
                self._append_exception(old, exception)
        elif key == "tags":
            old.tags |= new.tags
        elif key == "desc":
            old.desc += f" {new.desc}"
        else:
            getattr(old, key).extend(getattr(new, key))

    def _append_exception(self, rule: DefinedRule, new: Excepted) -> None:
        old = next((each for each in rule.exceptions if each.name == new.name), None)
        if old is None:
            if not new.fields or not new.values:
                what = "fields" if not new.fields else "values"
                raise RulesError(VALIDATE, f"the rule has no exception {new.name} yet, so this needs {what}", new.at)
            _check_exception(rule, new)
            rule.exceptions.append(new)
        elif new.fields or new.operators:
            raise RulesError(VALIDATE, f"the rule has an exception {new.name}: only values can be appended", new.at)
        else:
            old.values += new.values

    def _same_source(self, new: DefinedRule, source: str) -> None:
        old = self.rules.get(new.name)
        if old and source and old.source != source:
            raise RulesError(VALIDATE, f"the rule {new.name} is of source {old.source} since {old.at}", new.at)
        if old and not source and new.source not in ("", old.source):
            raise RulesError(VALIDATE, f"the rule {new.name} is of source {old.source} since {old.at}", new.at)

    def _set(self, rule: DefinedRule, item: YamlMapping, key: str, *, append: bool = False) -> None:
        """Read one key of a rule."""
        if key in _SWITCHES:
            rule.switches[key] = _switch(item, key)
        elif key in _NUMBERS:
            number = _scalar(item, key)
            if not re.fullmatch(r"\d{1,9}", number.value):
                raise RulesError(YAML_VALIDATE, f"{key} is a number", number.at)
            rule.numbers[key] = int(number.value)
        elif key == "tags":
            rule.tags = set(_texts(item.pairs[key]))
        elif key == "exceptions":
            rule.exceptions = list(self._exceptions(rule, item.pairs[key], append=append))
        elif key == "desc":
            rule.desc = _scalar(item, key).value
        elif key == "priority":
            rule.priority = _priority(_scalar(item, key))
        else:
            setattr(rule, key, [_scalar(item, key)])

    def _exceptions(self, rule: DefinedRule, node: Node, *, append: bool) -> Iterator[Excepted]:
        if isinstance(node, Scalar) and node.is_null:
            return
        names: set[str] = set()
        for item in _items(node, "exceptions are a list"):
            if not isinstance(item, YamlMapping):
                raise RulesError(YAML_VALIDATE, "an exception has a name, fields, comps and values", item.at)
            name = _scalar(item, "name")
            if name.value in names:
                self.warn("LOAD_EXCEPTION_NAME_NOT_UNIQUE", f"a rule has two exceptions {name.value}", name.at)
            names.add(name.value)
            if "fields" not in item.pairs and not append:
                raise RulesError(YAML_VALIDATE, f"the exception {name.value} has no fields", item.at)
            if "values" not in item.pairs and append:
                self.warn("LOAD_APPEND_NO_VALUES", f"nothing is appended to the exception {name.value}", item.at)
            values = _items(item.pairs["values"], "values are a list") if "values" in item.pairs else []
            new = Excepted(name.value, item.at, _entry(item, "fields"), _entry(item, "comps"), list(map(_read, values)))
            if not append:
                if not new.fields:
                    raise RulesError(VALIDATE, f"the exception {name.value} has no fields", item.at)
                _check_exception(rule, new)
            yield new


def _check_exception(rule: DefinedRule, exception: Excepted) -> None:
    """Check fields and operators of an exception, and fill in the operators that are not given."""
    own = exception.fields
    assert own is not None
    names = own.items or [own]
    exception.operators = _operators(exception, own, names)
    if rule.source in SOURCES:
        for scalar in (entry.text for entry in names):
            try:
                parser = Parser(scalar.value)
                Compiler(rule.source).extractor(parser.operand())
                if parser.at != len(scalar.value):
                    raise parser.error("expected nothing behind a field")
            except ConditionError as error:
                raise RulesError(VALIDATE, error.text, scalar.at) from None


def _operators(exception: Excepted, own: Entry, names: list[Entry]) -> Entry:
    """The operators of an exception: given, or = for each of several fields, `in` for one."""
    one, given = own.scalar is not None, exception.operators
    if given is None:
        defaults = [Entry(each.at, replace(each.text, value="in" if one else "="), []) for each in names]
        return defaults[0] if one else Entry(own.at, None, defaults)
    if (given.scalar is not None) != one or len(given.items) != len(own.items):
        raise RulesError(VALIDATE, "there are as many comps as fields: a text for one, a list for a list", given.at)
    for entry in given.items or [given]:
        text = " ".join(entry.text.value.split())
        first, _, modifier = text.partition(" ")
        modified = modifier in MODIFIERS and first in (*EQUALS, "==", *WORDS)
        allowed = ("in", "pmatch", "intersects") if one else (*OPERATORS, "==")
        if text not in allowed and not modified:
            some = f"{', '.join(allowed)}, or one with anyof, allof or oneof"
            raise RulesError(VALIDATE, f"{text!r} is no comparison of an exception; there are {some}", entry.at)
        entry.scalar = replace(entry.text, value=text)
    return given


def _replace(old: DefinedRule, new: DefinedRule, key: str) -> None:
    if key in _SWITCHES:
        old.switches[key] = new.switches[key]
    elif key in _NUMBERS:
        old.numbers[key] = new.numbers[key]
    else:
        setattr(old, key, getattr(new, key))


def _overrides(item: YamlMapping, appended: frozenset[str], replaced: frozenset[str]) -> dict[str, str]:
    """What `override` says of each key."""
    node = item.pairs.get("override")
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return {}
    if not isinstance(node, YamlMapping):
        raise RulesError(YAML_VALIDATE, "override has a key for each part, as {condition: append}", node.at)
    found = {}
    for key, operation in node.pairs.items():
        allowed = [word for word, keys in (("append", appended), ("replace", replaced)) if key in keys]
        if not isinstance(operation, Scalar) or operation.value not in allowed:
            can = f"can be told {' or '.join(allowed)}" if allowed else "is not to be overridden"
            raise RulesError(YAML_VALIDATE, f"{key} {can}", operation.at)
        found[key] = operation.value
    return found


def _items(node: Node, wanted: str) -> list[Node]:
    if not isinstance(node, Items):
        raise RulesError(YAML_VALIDATE, wanted, node.at)
    return node.items


def _scalar(item: YamlMapping, key: str, *, empty: bool = False) -> Scalar:
    """The text of a key, which has to be there and to say something."""
    if key not in item.pairs:
        near = [each for each in item.pairs if key in meant(each, [key])]
        raise RulesError(YAML_VALIDATE, f"there is no {key} here{f', but {near[0]}' if near else ''}", item.at)
    node = item.pairs[key]
    if not isinstance(node, Scalar):
        raise RulesError(YAML_VALIDATE, f"{key} is a text", node.at)
    if (node.is_null or not node.value) and not empty:
        raise RulesError(YAML_VALIDATE, f"{key} says nothing", node.at)
    return node


def _texts(node: Node) -> list[str]:
    texts = []
    for item in _items(node, "expected a list of texts"):
        if not isinstance(item, Scalar) or item.is_null:
            raise RulesError(YAML_VALIDATE, "expected a text", item.at)
        texts.append(item.value)
    return texts


def _switch(item: YamlMapping, key: str) -> bool:
    node = _scalar(item, key)
    if node.value.lower() not in (*_YES, *_NO):
        raise RulesError(YAML_VALIDATE, f"{key} is true or false", node.at)
    return node.value.lower() in _YES


def _priority(node: Scalar) -> str:
    small = {each.lower(): each for each in PRIORITIES} | {"info": "Informational"}
    if node.value.lower() not in small:
        raise RulesError(YAML_VALIDATE, f"{node.value!r} is no priority: {', '.join(PRIORITIES)}", node.at)
    return small[node.value.lower()]


def _version(node: Scalar) -> tuple[int, ...] | None:
    found = re.fullmatch(r"([0-9]{1,9})\.([0-9]{1,9})\.([0-9]{1,9})(?![0-9.]).*", node.value)
    return tuple(map(int, found.groups())) if found else None


def _entry(item: YamlMapping, key: str) -> Entry | None:
    node = item.pairs.get(key)
    if node is None or (isinstance(node, Scalar) and node.is_null):
        return None
    entry = _read(node)
    return None if entry.scalar is None and not entry.items else entry


def _read(node: Node) -> Entry:
    if isinstance(node, Items):
        return Entry(node.at, None, [_read(item) for item in node.items])
    if not isinstance(node, Scalar):
        raise RulesError(YAML_VALIDATE, "expected a text or a list", node.at)
    if not node.value:
        raise RulesError(YAML_VALIDATE, "this says nothing", node.at)
    return Entry(node.at, node, [])
