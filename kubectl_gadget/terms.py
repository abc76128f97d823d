"""The grammar of filters of one word a term: [from:|to:][!]KEY=VALUE, or a word that stands in a name.

It is here alone: `observe` reads terms by it, and the page of `map` is given it as data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gadget.errors import UsageError
from gadget.selector import REQUIREMENT, WANT

_BETWEEN, _TERM = r"[\s,]+", r"(!?)(?:(from|to):)?(!?)(?:([a-z]+)=)?(.*)"
SAME = {"ns": "namespace", "svc": "service"}
_OF_END = ("namespace", "workload", "pod", "service", "ip", "label")
#: Of the flow; the first ones are those of the end that was asked.
_ASKED, OF_FLOW = ("dns", "port"), ("protocol", "verdict", "policy")
KEYS = (*_OF_END, *_ASKED, *OF_FLOW)
#: What policies may have said.
SAID = ("allowed", "denied", "may-be-denied", "not-judged")
_UNKNOWN, _EMPTY = f"there is {', '.join(KEYS)}", "say what is wanted"
_NO_END, _NO_BEGINNER = (
    "{key} is of the flow, not of an end",
    "{key} is of the end that was asked: to:{key}={value}",
)
#: What filter.js reads terms by.
GRAMMAR: dict[str, Any] = {
    "between": _BETWEEN, "term": f"^{_TERM}$", "same": SAME, "keys": KEYS, "asked": _ASKED, "flow": OF_FLOW,
    "said": SAID, "unknown": _UNKNOWN, "empty": _EMPTY, "noEnd": _NO_END, "noBeginner": _NO_BEGINNER,
    "label": f"^(?:{REQUIREMENT.pattern.replace('(?P<', '(?<')})$", "wantLabel": WANT,
}  # fmt: skip


@dataclass(frozen=True)
class Term:
    """One term. group: terms of the same group are alternatives."""

    text: str
    side: str
    key: str
    value: str
    is_not: bool

    @property
    def group(self) -> str:
        """Which terms are alternatives to this one."""
        return f"!{self.text}" if self.is_not else f"{self.side}:{self.key or self.text}"

    def check(self) -> None:
        """UsageError if it makes no sense, whatever its value means."""
        if self.key and self.key not in KEYS:
            raise UsageError(_UNKNOWN)
        if not self.value:
            raise UsageError(_EMPTY)
        if self.side and self.key in OF_FLOW:
            raise UsageError(_NO_END.format(key=self.key))
        if self.side == "from" and self.key in _ASKED:
            raise UsageError(_NO_BEGINNER.format(key=self.key, value=self.value))


def terms_of(text: str) -> Iterator[Term]:
    """The terms of a filter, not checked."""
    for term in filter(None, re.split(_BETWEEN, text)):
        found = re.fullmatch(_TERM, term, re.DOTALL)
        assert found
        before, side, after, key, value = found.groups(default="")
        yield Term(term, side, SAME.get(key, key), value, bool(before or after))
