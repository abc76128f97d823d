"""How `story` shows a gadget's events: the table [story] of its gadget.toml."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import NamedTuple

from gadget.values import dataclass

#: {FIELD}, or {BEFORE|FIELD} and {BEFORE|FIELD|BEHIND}, which are left out as a whole where the field says nothing.
_FIELD = re.compile(r"\{(?:([^{}|]*)\|)?([\w.]+)(?:\|([^{}|]*))?\}")
_KIND = re.compile(r"[a-z]{2,8}")


class Part(NamedTuple):
    """A piece of a line: text, or a field with the text around it. may_go: not shown if the field says nothing."""

    before: str
    field: str = ""
    behind: str = ""
    may_go: bool = False


@dataclass(frozen=True)
class Story:
    """A gadget's part in a story: the word for its events, and the form of a line.

    failed is the form of a line for a failure, if it is another. silent has the words of a field that say nothing.
    is_failure: each event is one. Unless the user names the kind, the gadget runs with parameters, or not at all if it
    is optional; said tells in words what is left then. If the user does, it runs with the parameters of whole.
    runtime tells which events are no news of a container's runtime, which prepares a container: those that "failed", or
    those that went "well".
    """

    kind: str
    line: str
    silent: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    said: str = ""
    optional: bool = False
    is_failure: bool = False
    failed: str = ""
    whole: Mapping[str, str] = field(default_factory=dict)
    runtime: str = ""

    @property
    def fields(self) -> list[str]:
        """The fields that its lines name. ValueError if a line is malformed."""
        lines = [read_line(line) for line in (self.line, self.failed or self.line)]
        return [*(part.field for parts in lines for part in parts if part.field), *self.silent]

    def check(self) -> None:
        """ValueError unless it makes sense, whatever fields there are."""
        if not _KIND.fullmatch(self.kind) or self.kind == "all":
            raise ValueError(f"kind {self.kind!r}: want a word of 2 to 8 small letters")
        if self.runtime not in ("", "failed", "well"):
            raise ValueError(f'runtime {self.runtime!r}: want "failed" or "well"')
        if bool(self.parameters or self.whole) != bool(self.said):
            raise ValueError("said has to tell what parameters leave, or what is less than the whole")


def read_line(line: str) -> list[Part]:
    """The pieces of a line. ValueError if the line is malformed."""
    parts, end = [], 0
    for found in _FIELD.finditer(line):
        before, name, behind = found.groups()
        parts += [Part(line[end : found.start()]), Part(before or "", name, behind or "", before is not None)]
        end = found.end()
    parts.append(Part(line[end:]))
    if any(brace in part.before for part in parts if not part.field for brace in "{}"):
        raise ValueError(f"{line!r}: want {{FIELD}} or {{BEFORE|FIELD|BEHIND}}")
    if len(parts) == 1 or not line.isprintable():
        raise ValueError(f"{line!r}: want a line with a field")
    return [part for part in parts if part.field or part.before]
