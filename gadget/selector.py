"""Kubernetes' label selectors, and name lists with exclusions.

Grammar: k8s.io/apimachinery/pkg/labels, "a=b", "a==b", "a!=b", "a in (b,c)", "a notin (b,c)", "a", "!a", joined by
commas. As there, != and notin hold for an object without the label too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gadget.errors import UsageError

LABEL_KEY = r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-\w.]*[A-Za-z0-9])?"
LABEL_VALUE = r"(?:[A-Za-z0-9](?:[-\w.]*[A-Za-z0-9])?)?"
_REQUIREMENT = re.compile(
    rf"\s*(?:(?P<absent>!)\s*)?(?P<key>{LABEL_KEY})"
    rf"(?:\s*(?P<op>==|=|!=)\s*(?P<value>{LABEL_VALUE})|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?\s*(?:,|$)"
)


@dataclass(frozen=True)
class Requirement:
    """One condition: the label's value is one of values, or, if values is None, the label exists.

    negated: it is not so.
    """

    key: str
    values: frozenset[str] | None
    negated: bool

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels meets it."""
        if self.values is None:
            return (self.key in labels) != self.negated
        return (labels.get(self.key) in self.values) != self.negated


def parse_labels(text: str) -> list[Requirement]:
    """The requirements of a selector, all of which must hold. UsageError if it is not one."""
    requirements = []
    at = 0
    while at < len(text):
        found = _REQUIREMENT.match(text, at)
        values: frozenset[str] | None = None
        if found and found["set"]:
            values = frozenset(part.strip() for part in found["values"].split(","))
        elif found and found["op"]:
            values = frozenset([found["value"]])
        wrong_value = any(not re.fullmatch(LABEL_VALUE, value) for value in values or ())
        if not found or wrong_value or (found["absent"] and values is not None):
            raise UsageError(f"-l {text!r}: at {text[at:]!r}: want k=v, k!=v, k in (a,b), k notin (a,b), k or !k")
        negated = bool(found["absent"]) or found["op"] == "!=" or found["set"] == "notin"
        requirements.append(Requirement(found["key"], values, negated))
        at = found.end()
    if text.rstrip().endswith(","):
        raise UsageError(f"-l {text!r}: nothing after the last comma: want k=v, k in (a,b), k or !k")
    return requirements


@dataclass(frozen=True)
class Names:
    """Names that are wanted (all, if none is given), and names that are not wanted."""

    wanted: frozenset[str]
    unwanted: frozenset[str]

    def matches(self, name: str) -> bool:
        """Whether name is wanted."""
        return name not in self.unwanted and (not self.wanted or name in self.wanted)


def parse_names(items: Sequence[str]) -> Names:
    """Names from lists such as "a,b" and "!c". UsageError for a list without a name: it would mean all of them."""
    for item in items:
        if not item.replace("!", "").replace(",", "").strip():
            raise UsageError(f"{item!r}: an empty name")
    names = [name for item in items for name in map(str.strip, item.split(",")) if name.lstrip("!")]
    unwanted = frozenset(name[1:] for name in names if name.startswith("!"))
    return Names(frozenset(names) - {f"!{name}" for name in unwanted}, unwanted)


def parse_recorded(text: str) -> frozenset[str] | None:
    """The namespaces of --traceloop; empty means the whole machine, None means off. UsageError if it makes no sense."""
    names = frozenset(part.strip() for part in text.split(","))
    if names in ({"all"}, {"off"}):
        return frozenset() if "all" in names else None
    for name in sorted(names):
        if name in ("all", "off") or not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
            raise UsageError(f"--traceloop {text!r}: {name!r} is no namespace: want all, off, or names with commas")
    return names
