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

TABLE = Path(__file__).parent / "said.toml"


class Said(NamedTuple):
    """What a text means, as said.toml tells it."""

    cause: str
    pattern: re.Pattern[str]
    sentence: str
    weight: float
    certain: bool
    code: int | None


_ERROR_LINE = re.compile(
    r"(?i)\b(error|fatal|fail(ed|ure)?|panic|cannot|can't|could not|couldn't|unable|invalid|denied|missing|refused|"
    r"required|not set|abort|exception|must|no such)\b"
)


@cache
def table() -> tuple[Said, ...]:
    """All of said.toml."""
    return tuple(
        Said(
            each["cause"],
            re.compile(each["pattern"], re.MULTILINE),
            each["sentence"],
            float(each["weight"]),
            each.get("certain", False),
            each.get("code"),
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
            late = 4 * match.end() / len(words)
            certain = each.certain and bool(facts.status) and bool(own)
            weight = each.weight + late - (0 if own else 15)
            yield Finding(each.cause, _filled(each.sentence, match), weight, certain, told=match[0])
    if last := _last_line(words):
        weight = 42 if _ERROR_LINE.search(last) else 12
        yield Finding("nothing", f"it ended, and its last words were {quoted(last)}", weight)


def _filled(sentence: str, match: re.Match[str]) -> str:
    groups = {name: plain((text or "").strip()) for name, text in match.groupdict().items()}
    return sentence.format(**groups).removesuffix(": ")


def _last_line(words: str) -> str:
    """The last line that tells of an error, else the last one."""
    lines = [line for line in words.splitlines() if line.strip()]
    telling = [line for line in lines[-12:] if _ERROR_LINE.search(line)]
    return (telling or lines or [""])[-1]
