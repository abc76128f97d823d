"""A finding: something that may have ended a container, in a sentence, with what shows it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gadget.text import escape
from kubectl_gadget.traceloop.calls import Entry

#: Letters of a quotation of what a process said.
LONGEST = 160
#: Findings of less weight are no news where there are others.
BACKGROUND = 30.0


@dataclass(frozen=True)
class Finding:
    """One cause. sentence is about the container, "it"; certain only if what was seen leaves no other.

    weight orders findings: above 80 it is the cause unless something speaks against it, below BACKGROUND it is none.
    evidence are the entries that show it. details are lines of their own below the sentence. told is the output that it
    rests on, by which findings that tell the same are known. benign: nobody has to do anything about it.
    """

    cause: str
    sentence: str
    weight: float
    certain: bool = False
    evidence: tuple[Entry, ...] = ()
    details: tuple[str, ...] = ()
    told: str = ""
    benign: bool = False


def quoted(text: str, most: int = LONGEST) -> str:
    """What a process said, on one line, escaped and cut."""
    line = re.sub(r"\s+", " ", text).strip()
    shown = line if len(line) <= most else f"{line[: most - 1]}…"
    return f'"{escape(shown)}"'


def plain(text: str, most: int = LONGEST) -> str:
    """A name, a path or the like on one line, escaped and cut in its middle."""
    shown = escape(text)
    half = (most - 1) // 2
    return shown if len(shown) <= most else f"{shown[:half]}…{shown[-half:]}"
