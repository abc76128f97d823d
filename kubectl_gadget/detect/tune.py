"""Exceptions proposed from alerts: what most alerts of a rule have in common, as Falco's `exceptions`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

#: What an exception may name, by what it says: who did it, where, and to what. Of each the first that alerts have.
_WHO = ("proc.exepath", "proc.name", "ka.user.name")
_BY = ("proc.pname",)
_WHERE = ("container.image.repository", "k8s.ns.name", "ka.target.namespace")
_WHAT = ("fd.directory", "fd.sip.name", "fd.sip", "fd.name", "ka.target.resource")
_WHAT_TOO = ("ka.verb",)
#: Fewer alerts than that are no noise.
LEAST = 5
#: At most so many proposals for a rule: a person reads them.
MOST = 10


@dataclass(frozen=True)
class Proposal:
    """An exception: fields with their values, and how many of the alerts of a rule it would have removed."""

    rule: str
    priority: str
    values: tuple[tuple[str, str], ...]
    removes: int
    of: int


def read_alerts(lines: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """Alerts in Falco's JSON, a line each.

    Raises:
        ValueError: A line is none.

    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            alert = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"line {number} is no JSON: {error}") from None
        if not (isinstance(alert, dict) and isinstance(alert.get("rule"), str)
                and isinstance(alert.get("output_fields"), dict)):  # fmt: skip
            raise ValueError(f"line {number} is no alert: it has no rule, or no output_fields")
        yield alert


def propose(alerts: Iterable[Mapping[str, Any]], least: int = LEAST) -> tuple[list[Proposal], Counter[str]]:
    """Exceptions that would have removed at least so many alerts each, and how many alerts each rule had.

    An exception has to say who, and one thing more: what names a program alone would hide too much.
    """
    groups: dict[str, Counter[tuple[tuple[str, str], ...]]] = {}
    priorities: dict[str, str] = {}
    counts = Counter[str]()
    for alert in alerts:
        rule = alert["rule"]
        counts[rule] += 1
        priorities[rule] = str(alert.get("priority", ""))
        values = tuple(_values(alert["output_fields"]))
        if len(values) >= 2 and values[0][0] in _WHO:
            groups.setdefault(rule, Counter())[values] += 1
    found = [
        Proposal(rule, priorities[rule], values, removes, counts[rule])
        for rule, group in groups.items()
        for values, removes in group.most_common(MOST) if removes >= least
    ]  # fmt: skip
    return sorted(found, key=lambda each: (-counts[each.rule], each.rule, -each.removes)), counts


def _values(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for names in (_WHO, _BY, _WHERE, _WHAT, _WHAT_TOO):
        for name in names:
            value = fields.get(name)
            if isinstance(value, str) and value not in ("", "<NA>"):
                yield name, value
                break


def overrides(proposals: Iterable[Proposal]) -> str:
    """Proposals as a rule file that comes after those with the rules."""
    lines: list[str] = []
    for number, (rule, fields, own) in enumerate(_grouped(proposals), 1):
        lines += [f"- rule: {_quoted(rule)}", "  exceptions:", f"    - name: tuned_{number}",
                  f"      fields: [{', '.join(fields)}]", f"      comps: [{', '.join('=' for _ in fields)}]",
                  "      values:"]  # fmt: skip
        for each in own:
            values = ", ".join(_quoted(value) for _, value in each.values)
            lines.append(f"        - [{values}]  # {each.removes} of {each.of} alerts")
        lines += ["  override: {exceptions: append}", ""]
    return "\n".join(lines)


def _grouped(proposals: Iterable[Proposal]) -> Iterator[tuple[str, tuple[str, ...], list[Proposal]]]:
    """Proposals of a rule that name the same fields: one exception with several values."""
    found: dict[tuple[str, tuple[str, ...]], list[Proposal]] = {}
    for each in proposals:
        found.setdefault((each.rule, tuple(name for name, _ in each.values)), []).append(each)
    for (rule, fields), own in found.items():
        yield rule, fields, own


def _quoted(text: str) -> str:
    """A text as YAML in double quotes, which JSON's are."""
    return orjson.dumps(text.encode("utf-8", "replace").decode()).decode()
