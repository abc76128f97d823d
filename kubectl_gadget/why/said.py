"""Causes that a program's last words tell. said.toml says what words mean."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.findings import Finding, plain, quoted
from kubectl_gadget.why.history import CallHistory
from kubectl_gadget.why.last_words import CHAINED, of_errors, outlived
from kubectl_gadget.why.meant import ERROR_LINE
from kubectl_gadget.why.noted import NAME_SERVER

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


#: By how much less an exception weighs that was raised because of another one.
_CHAIN = 15
#: By how much the weight of words is less whose program worked on, and told something else in the end; and of those
#: behind which words of another cause come.
_OUTLIVED, _OUTSAID = 85, 25
#: Words of this weight tell a cause, and not only that something took too long or was closed.
_STATED = 70
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
    found = []
    for each in table():
        if each.code is not None and (facts.signal or facts.code != each.code):
            continue
        *_, match = [None, *each.pattern.finditer(words)]
        if match:
            found.append((each, match))
    chained = bool(CHAINED.search(words))
    for each, match in found:
        later = (kind for kind, other in found if other.start() >= match.end() and not other[0].startswith("Caused by"))
        outsaid = not chained and any(kind.cause != each.cause and kind.weight >= _STATED for kind in later)
        caused = chained and each.cause == "exception"  # what came first is why
        finding = _finding(facts, each, match, words, own=bool(own))
        less = _OUTSAID if outsaid else _CHAIN if caused else 0
        yield replace(finding, weight=finding.weight - less, certain=finding.certain and not caused)
    if last := _last_line(history, of_errors(history, history.chain) or words):
        weight = 42 if ERROR_LINE.search(last) else 12
        state = "runs" if facts.running else "ended"
        yield Finding("nothing", f"it {state}, and its last words were {quoted(last)}", weight)


def _finding(facts: Facts, each: Pattern, match: re.Match[str], words: str, *, own: bool) -> Finding:
    """What words mean; own: they are of the processes whose end it was."""
    history = facts.history
    after = _LINE.findall(words, match.end())
    worked_on = not facts.running and outlived(history, match[0].splitlines()[-1])
    ends = not history.interrupted and len(after) <= each.lines
    final = ends and not any(map(ERROR_LINE.search, after)) and not worked_on and not history.ambiguous
    certain = each.certain and bool(facts.status) and own and final
    late = 4 * match.end() / len(words)
    weight = each.weight + late - (0 if own else 15) - (0 if ends or facts.running else 25)
    sentence = _filled(each.sentence, match)
    if each.cause == "no-answer" and (silent := history.silent()):
        name = plain(facts.names.get(silent[-1], silent[-1]))
        sentence += f"; {name} had not answered" if name not in match[0] else ""
    certain = certain and (each.cause != "dns" or _asked(facts))
    return Finding(each.cause, sentence, weight - (_OUTLIVED if worked_on else 0), certain, told=match[0])


def _asked(facts: Facts) -> bool:
    """Whether a name server was asked, or should have been. Programs also report this for texts that are not names."""
    history = facts.history
    return bool(history.about_names) or any(each.subject.endswith(NAME_SERVER) for each in history.failures)


def _filled(sentence: str, match: re.Match[str]) -> str:
    """A sentence with what was said: a name as it is, more than that in quotation marks."""
    groups = {name: (text or "").strip() for name, text in match.groupdict().items()}
    shown = {name: quoted(text) if re.search(r"\s", text) else plain(text) for name, text in groups.items()}
    return sentence.format(**shown).removesuffix(": ")


def _last_line(history: CallHistory, words: str) -> str:
    """The last line that tells of an error, else the last one."""
    lines = [line for line in words.splitlines() if line.strip()]
    telling = [line for line in lines[-12:] if ERROR_LINE.search(line) and not outlived(history, line)]
    return (telling or lines or [""])[-1]
