"""The fields of events that rules name: fields.tsv and events.tsv have their names and types.

They are Falco's, but for proc.container.: the ancestors of a process that are in its container.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from gadget import syscalls
from gadget.rules.problems import ConditionError
from gadget.text import asked

SYSCALL, AUDIT = "syscall", "k8s_audit"
SOURCES = (SYSCALL, AUDIT)
#: Whose fields events of every source have (sinsp_filtercheck_gen_event.cpp); the others of evt. are of system calls.
_GENERIC = re.compile(
    r"evt\.(num|time|datetime|rawtime|reltime|pluginname|plugininfo|source|is_async|asynctype|hostname)(\.|$)"
)
TEXTS = frozenset(("CHARBUF", "FSPATH", "FSRELPATH"))
#: Of numbers the bits, negative for signed ones.
NUMBERS = {
    "INT16": -16, "INT32": -32, "INT64": -64, "FD": -64, "PID": -64, "ERRNO": -64, "DOUBLE": -32,
    "UINT8": 8, "UINT16": 16, "UINT32": 32, "UINT64": 64, "FLAGS16": 16, "FLAGS32": 32, "ENUMFLAGS16": 16,
    "ENUMFLAGS32": 32, "MODE": 32, "UID": 32, "GID": 32, "RELTIME": 64, "ABSTIME": 64,
}  # fmt: skip


@dataclass(frozen=True)
class RuleField:
    """A field as a rule names it: key is that text, with an argument in brackets if it has one."""

    key: str
    name: str
    type: str
    properties: frozenset[str]
    arg: str | None = None

    @property
    def is_list(self) -> bool:
        """Whether it has several values by nature."""
        return "list" in self.properties

    @property
    def any_of(self) -> bool:
        """Whether a check holds if it does for one of several values: ancestors, or the ends of a connection."""
        return "any" in self.properties and self.arg is None


def _rows(name: str) -> list[list[str]]:
    text = (files("gadget.rules") / name).read_text()
    return [line.split("\t") for line in text.splitlines() if not line.startswith("#")]


@cache
def known() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and properties of each field by name."""
    return {row[0]: (row[1], frozenset(row[2].split(",") if row[2:] else ())) for row in _rows("fields.tsv")}


@cache
def arguments() -> dict[str, dict[str, str]]:
    """Arguments and their types, by event."""
    rows = (row for row in _rows("events.tsv") if row[0] not in "-*")
    return {name: dict(pair.split(":") for pair in pairs.split()) for name, pairs in rows}


@cache
def _argument_types() -> dict[str, str]:
    others = next(row[1] for row in _rows("events.tsv") if row[0] == "*")
    of_events = (pair for pairs in reversed(arguments().values()) for pair in pairs.items())
    return {**dict.fromkeys(others.split(), "CHARBUF"), **dict(of_events)}


@cache
def event_types() -> frozenset[str]:
    """All that evt.type may be."""
    others = next(row[1] for row in _rows("events.tsv") if row[0] == "-")
    calls = (name for machine in ("x86_64", "aarch64") for name in syscalls.numbers(machine))
    return frozenset((*calls, *others.split()))


def has_source(name: str, source: str) -> bool:
    """Whether events of a source have a field of that name."""
    return bool(_GENERIC.match(name)) or (source == AUDIT) == name.startswith(("ka.", "jevt.", "json."))


def find(name: str, arg: str | None, source: str, at: int = 0, *, ask: bool = True) -> RuleField:
    """The field with that name and argument. ask: an error suggests the name that was meant, which takes a millisecond.

    Raises:
        ConditionError: There is none, or it takes no such argument.

    """
    key = name if arg is None else f"{name}[{arg}]"
    for prefix in ("evt.arg.", "evt.rawarg."):
        if name.startswith(prefix) and arg is None and source == SYSCALL:
            return _argument(key, prefix[:-1], name.removeprefix(prefix), at, ask=ask)
    if name.startswith("thread.cgroup.") and arg is None and source == SYSCALL:
        return RuleField(key, "thread.cgroup", *known()["thread.cgroup"], arg=name.removeprefix("thread.cgroup."))
    plain = "evt.abspath" if name in ("evt.abspath.src", "evt.abspath.dst") else name
    if plain not in known() or not has_source(plain, source):
        text = f"no event of source {source} has a field {name}"
        if plain in known():
            text += f": for events of Kubernetes a rule says source: {AUDIT}" if source == SYSCALL else ""
        elif ask:
            text = asked(text, name, [each for each in known() if has_source(each, source)])
        raise ConditionError(text, at, unknown=True)
    kind, properties = known()[plain]
    if arg is not None and not properties & {"arg", "needs_arg"}:
        raise ConditionError(f"{name} takes no argument in brackets", at, unknown=True)
    if arg is None and "needs_arg" in properties and plain != "evt.abspath":
        raise ConditionError(f"{name} needs an argument, as {name}[0]", at, unknown=True)
    if arg is not None and "index" in properties and not re.fullmatch(r"[+-]?\d{1,9}", arg):
        raise ConditionError(f"{name} takes a number in brackets, not {arg!r}", at, unknown=True)
    if plain == "evt.rawarg":
        kind = "CHARBUF"
    return RuleField(key, plain, kind, properties, arg)


def _argument(key: str, field: str, name: str, at: int, *, ask: bool) -> RuleField:
    """An argument of an event by its name: evt.arg has its text, evt.rawarg its value."""
    types = _argument_types()
    if name not in types:
        text = f"no event has an argument {name}"
        raise ConditionError(asked(text, name, types) if ask else text, at, unknown=True)
    kind, properties = known()[field]
    if field == "evt.rawarg":
        kind = "CHARBUF" if types[name] in ("DYN", "SOCKADDR", "SOCKTUPLE") else types[name]
    return RuleField(key, field, kind, properties, name)
