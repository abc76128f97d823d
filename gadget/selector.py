"""Kubernetes' label selectors, and name lists with exclusions.

Grammar: k8s.io/apimachinery/pkg/labels, "a=b", "a==b", "a!=b", "a in (b,c)", "a notin (b,c)", "a", "!a", "a<1", "a>1",
joined by commas. As there, != and notin hold for an object without the label too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from gadget.errors import UsageError
from gadget.values import dataclass

LABEL_KEY = r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-\w.]*[A-Za-z0-9])?"
LABEL_VALUE = r"(?:[A-Za-z0-9](?:[-\w.]*[A-Za-z0-9])?)?"
REQUIREMENT = re.compile(
    rf"\s*(?:(?P<absent>!)\s*)?(?P<key>{LABEL_KEY})"
    rf"(?:\s*(?P<op>==|=|!=|[<>])\s*(?P<value>{LABEL_VALUE})|\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\))?\s*(?:,|$)"
)
WANT = "want k=v, k!=v, k in (a,b), k notin (a,b), k<1, k>1, k or !k"
_VALUE = re.compile(LABEL_VALUE)
#: Of a label's name and value, and of the prefix that a name may have.
MOST_NAME, MOST_PREFIX = 63, 253
_INTEGER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Requirement:
    """One condition: the label's value is one of values, or, if values is None, the label exists.

    negated: it is not so. order: < or >, the value is a number, and less or more than the only one of values.
    """

    key: str
    values: frozenset[str] | None
    negated: bool
    order: str = ""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels meets it."""
        if self.order:
            (than,), own = self.values or ("",), labels.get(self.key, "")
            return bool(_INTEGER.fullmatch(own)) and (
                int(own) < int(than) if self.order == "<" else int(own) > int(than)
            )
        if self.values is None:
            return (self.key in labels) != self.negated
        return (labels.get(self.key) in self.values) != self.negated


def parse_labels(text: str) -> list[Requirement]:
    """The requirements of a selector; all must hold. UsageError if the text is no selector."""
    requirements = []
    at = 0
    while at < len(text):
        found = REQUIREMENT.match(text, at)
        values: frozenset[str] | None = None
        if found and found["set"]:
            values = frozenset(part.strip() for part in found["values"].split(","))
        elif found and found["op"]:
            values = frozenset([found["value"]])
        order = found["op"] if found and found["op"] in ("<", ">") else ""
        form = _INTEGER if order else _VALUE
        wrong_value = any(not form.fullmatch(value) or len(value) > MOST_NAME for value in values or ())
        if not found or wrong_value or _is_long(found["key"]) or (found["absent"] and values is not None):
            raise UsageError(f"-l {text!r}: at {text[at:]!r}: {WANT}")
        negated = bool(found["absent"]) or found["op"] == "!=" or found["set"] == "notin"
        requirements.append(Requirement(found["key"], values, negated, order))
        at = found.end()
    if text.rstrip().endswith(","):
        raise UsageError(f"-l {text!r}: nothing after the last comma: want k=v, k in (a,b), k or !k")
    return requirements


def _is_long(key: str) -> bool:
    prefix, _, name = key.rpartition("/")
    return len(name) > MOST_NAME or len(prefix) > MOST_PREFIX


@dataclass(frozen=True)
class WantedNames:
    """Names that are wanted (all, if none is given), and names that are not wanted."""

    wanted: frozenset[str]
    unwanted: frozenset[str]

    def matches(self, name: str) -> bool:
        """Whether name is wanted."""
        return name not in self.unwanted and (not self.wanted or name in self.wanted)


def parse_names(items: Sequence[str]) -> WantedNames:
    """Names from lists such as "a,b" and "!c". UsageError for a list without a name: it would mean all of them."""
    for item in items:
        if not item.replace("!", "").replace(",", "").strip():
            raise UsageError(f"{item!r}: an empty name")
    names = [name for item in items for name in map(str.strip, item.split(",")) if name.lstrip("!")]
    unwanted = frozenset(name[1:] for name in names if name.startswith("!"))
    return WantedNames(frozenset(names) - {f"!{name}" for name in unwanted}, unwanted)


def parse_recorded(text: str) -> frozenset[str] | None:
    """The namespaces of --traceloop; empty means the whole machine, None means off. UsageError if it makes no sense."""
    names = frozenset(part.strip() for part in text.split(","))
    if names in ({"all"}, {"off"}):
        return frozenset() if "all" in names else None
    for name in sorted(names):
        if name in ("all", "off") or not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
            raise UsageError(f"--traceloop {text!r}: {name!r} is no namespace: want all, off, or names with commas")
    return names
