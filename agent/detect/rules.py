"""The rules that a client sent, or a folder has."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from gadget.errors import UsageError

if TYPE_CHECKING:
    from gadget.rules.ruleset import Ruleset


def load(files: Iterable[tuple[str, str]], names: Collection[str] = (), *, source: str = "syscall") -> Ruleset:
    """The rules of a source of files, given as name and text: those of the names, which are on, else all.

    Raises:
        UsageError: They are too long, make no sense, or there is no such rule.

    """
    from gadget.rules import ruleset
    from gadget.rules.fields import AUDIT, SYSCALL
    from gadget.rules.messages import MOST_RULE_BYTES
    from gadget.rules.problems import RulesError

    on = {SYSCALL: "system calls", AUDIT: "audit events"}[source]
    found = list(files)
    if sum(len(text.encode()) for _, text in found) > MOST_RULE_BYTES:
        raise UsageError(f"these rules are too long: {MOST_RULE_BYTES >> 20} MiB at most")
    try:
        rules = ruleset.load(found)
    except RulesError as error:
        raise UsageError(str(error)) from None
    known = {rule.name: rule for rule in rules.rules if rule.source == source}
    if missing := sorted({*names} - known.keys()):
        raise UsageError(f"there is no rule on {on} {missing[0]!r}")
    wanted = {*names}
    kept = [replace(rule, enabled=rule.enabled or name in wanted) for name, rule in known.items()]
    kept = [rule for rule in kept if rule.enabled and (not wanted or rule.name in wanted)]
    if not kept:
        raise UsageError(f"there is no rule on {on} (source: {source}) that is enabled")
    return replace(rules, rules=tuple(kept))
