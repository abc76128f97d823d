"""Causes that a program told by itself in its last words: said.toml has what they mean."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.findings import Finding, plain, quoted
from kubectl_gadget.why.meant import ERROR_LINE

TABLE = Path(__file__).parent / "said.toml"


class Pattern(NamedTuple):
    """What a text means, as said.toml tells it."""

    cause: str
    pattern: re.Pattern[str]
    sentence: str
    weight: float
    certain: bool
    code: int | None
    lines: int


#: A line that is no part of a stack.
_LINE = re.compile(r"^(?!Caused by: )[^\s#}-][^\n]*", re.MULTILINE)


@cache
def table() -> tuple[Pattern, ...]:
    """All of said.toml."""
    return tuple(
        Pattern(
            each["cause"],
            re.compile(each["pattern"], re.MULTILINE),
            each["sentence"],
            float(each["weight"]),
            each.get("certain", False),
            each.get("code"),
            each.get("lines", 5),
        )
        for each in tomllib.loads(TABLE.read_text())["said"]
    )


def find(facts: Facts) -> Iterator[Finding]:
    """Findings in the last words of a container's processes."""
    history = facts.history
    own = history.last_words(history.chain)
    words = own or history.last_words()
    if not words.strip() or (not facts.running and facts.known and not facts.status):
        return
    for each in table():
        if each.code is not None and (facts.signal or facts.code != each.code):
            continue
        *_, match = [None, *each.pattern.finditer(words)]
        if match:
            after = _LINE.findall(words, match.end())
            ends = not history.interrupted and len(after) <= each.lines
            final = ends and not any(map(ERROR_LINE.search, after))
            certain = each.certain and bool(facts.status) and bool(own) and final
            late = 4 * match.end() / len(words)
            weight = each.weight + late - (0 if own else 15) - (0 if ends or facts.running else 25)
            yield Finding(each.cause, _filled(each.sentence, match), weight, certain, told=match[0])
    if last := _last_line(words):
        weight = 42 if ERROR_LINE.search(last) else 12
        yield Finding("nothing", f"it ended, and its last words were {quoted(last)}", weight)


def _filled(sentence: str, match: re.Match[str]) -> str:
    """A sentence with what was said: a name as it is, more than that in quotation marks."""
    groups = {name: (text or "").strip() for name, text in match.groupdict().items()}
    shown = {name: quoted(text) if re.search(r"\s", text) else plain(text) for name, text in groups.items()}
    return sentence.format(**shown).removesuffix(": ")


def _last_line(words: str) -> str:
    """The last line that tells of an error, else the last one."""
    lines = [line for line in words.splitlines() if line.strip()]
    telling = [line for line in lines[-12:] if ERROR_LINE.search(line)]
    return (telling or lines or [""])[-1]
