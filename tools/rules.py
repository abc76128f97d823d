"""The tables of docs/rules.md, made from the rules of gadget/rules/default and the comments there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gadget.rules.default import files
from gadget.rules.ruleset import Rule, load
from tools import DOCS, replaced

PAGE = DOCS / "rules.md"
_LISTS = re.compile(r"((?:^# .*\n)+)- list: (allowed_\w+)$", re.MULTILINE)


def page() -> str:
    """The page, with its generated part as it should be."""
    return replaced(PAGE.read_text(), "rules", "\n".join(_files()).rstrip())


def _files() -> Iterator[str]:
    """The lines of the sections, one for each file that has rules."""
    rules = load(files()).rules
    for name, text in files():
        own = [rule for rule in rules if rule.at.file == name]
        if not own:
            continue
        head = re.match(r"(?:# .*\n)+", text)
        yield from (f"## {name.removeprefix('default/').removesuffix('.yaml')}", "")
        yield from (_comment(head[0]) if head else "", "", "| rule | priority | what it means |", "|---|---|---|")
        yield from map(_row, own)
        yield from ("", "| list | what you may add |", "|---|---|")
        yield from (f"| `{each[2]}` | {_comment(each[1]).removesuffix('.')} |" for each in _LISTS.finditer(text))
        yield ""


def _row(rule: Rule) -> str:
    off = "" if rule.enabled else " (off by default)"
    return f"| {rule.name}{off} | {rule.priority} | {' '.join(rule.desc.split())} |"


def _comment(text: str) -> str:
    return " ".join(line.removeprefix("# ") for line in text.splitlines())
