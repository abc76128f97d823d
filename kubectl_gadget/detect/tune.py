"""`detect tune`: exceptions proposed from alerts, by what many alerts of a rule have in common."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
import orjson

from gadget.errors import UsageError
from kubectl_gadget.detect.given import files_argument, option, read_rules, rule_texts, rules_option
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.tell import tell, write_lines

#: What an exception may name, by what it says: who did it, where, and to what. Of each the first that alerts have.
_WHO = ("proc.exepath", "proc.name", "ka.user.name")
_BY = ("proc.pname",)
_WHERE = ("container.image.repository", "k8s.ns.name", "ka.target.namespace")
_WHAT = ("fd.directory", "fd.sip.name", "fd.sip", "fd.name", "ka.target.resource")
#: Fewer alerts than that are no noise.
LEAST = 5
#: At most so many proposals for a rule: a person reads them.
MOST = 10
#: Rules of these priorities are seldom noise, whoever it was.
URGENT = ("Emergency", "Alert", "Critical", "Error")
HEAD = "# Each of these is silence: read it before it goes behind the rules, as --rules default --rules FILE."


@dataclass(frozen=True)
class Proposal:
    """An exception: fields with their values, and how many of the alerts of a rule it would have removed."""

    rule: str
    priority: str
    values: tuple[tuple[str, str], ...]
    removes: int
    of: int


class FalcoAlert(msgspec.Struct):
    """An alert in Falco's JSON, as far as it says what to except."""

    rule: str
    output_fields: dict[str, Any]
    priority: Any = ""
    count: Any = None


def read_alerts(lines: Iterable[bytes]) -> Iterator[FalcoAlert]:
    """Alerts in Falco's JSON, a line each.

    Raises:
        ValueError: A line is none.

    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield msgspec.convert(orjson.loads(line), FalcoAlert)
        except msgspec.ValidationError:
            raise ValueError(f"line {number} is no alert: it has no rule, or no output_fields") from None
        except orjson.JSONDecodeError as error:
            raise ValueError(f"line {number} is no JSON, which alerts are with -o json: {error}") from None


def propose(alerts: Iterable[FalcoAlert], least: int = LEAST) -> tuple[list[Proposal], Counter[str]]:
    """Exceptions that would have removed at least so many alerts each, and how many alerts each rule had.

    An exception has to say who, and one thing more: what names a program alone would hide too much.
    """
    groups: dict[str, Counter[tuple[tuple[str, str], ...]]] = {}
    priorities: dict[str, str] = {}
    counts = Counter[str]()
    for alert in alerts:
        rule, times = alert.rule, _times(alert)
        counts[rule] += times
        priorities[rule] = str(alert.priority)
        values = tuple(_values(alert.output_fields))
        if len(values) >= 2 and values[0][0] in _WHO:
            groups.setdefault(rule, Counter())[values] += times
    found = [
        Proposal(rule, priorities[rule], values, removes, counts[rule])
        for rule, group in groups.items()
        for values, removes in group.most_common(MOST) if removes >= least
    ]  # fmt: skip
    return sorted(found, key=lambda each: (-counts[each.rule], each.rule, -each.removes)), counts


def _times(alert: FalcoAlert) -> int:
    """For how many events an alert stands."""
    count = alert.output_fields.get("evt.count") if alert.count is None else alert.count
    return count if type(count) is int and 0 < count < 1 << 53 else 1


def _values(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for names in (_WHO, _BY, _WHERE, _WHAT):
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
            values = ", ".join(_value(value) for _, value in each.values)
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
    """A text as YAML in double quotes, with what is not printable as escapes."""
    return json.dumps(text).replace("\x7f", "\\x7f")


def _value(text: str) -> str:
    """A value of an exception. Quotes of its own make it a text, whatever a process calls itself: no field, no list."""
    own = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "'" + own.replace("'", "''") + "'" if own.isprintable() else _quoted(own)


# the command


def tune_command() -> click.Command:
    """`detect tune`."""
    options: list[click.Parameter] = [
        files_argument(),
        rules_option("Rules that the exceptions are for: they are tried on them, and alerts of others are left out."),
        option("--least", type=click.IntRange(1), default=LEAST, metavar="N",
               help=f"Only exceptions that would have removed so many alerts. [default: {LEAST}]"),
        option("--urgent", is_flag=True, help="Also for rules of priority Error and higher ones."),
    ]  # fmt: skip
    title = "exceptions for rules whose alerts are many and alike"
    example = "kubectl gadget alerts -o json | kubectl gadget detect tune --rules default -"
    return HeadedCommand("tune", title, example, options, _tune, verb="Proposes")


def _tune(files: tuple[Path, ...], rules: tuple[Path, ...], least: int, urgent: bool) -> None:
    from gadget.rules.ruleset import load

    proposals, counts = propose([alert for path in files for alert in _alerts(path)], least)
    notes: dict[str, str] = {}
    if rules:
        known = {rule.name for rule in read_rules(rules).rules}
        notes |= {each.rule: "none of these rules" for each in proposals if each.rule not in known}
    if not urgent:
        notes |= {each.rule: f"{each.priority}: --urgent proposes for it too" for each in proposals
                  if each.priority in URGENT}  # fmt: skip
    kept = [each for each in proposals if each.rule not in notes]
    text = overrides(kept)
    if rules and text:
        load([*rule_texts(rules), ("the exceptions", text)])
    if text:
        write_lines(f"{HEAD}\n{text}")
    removed = Counter[str]()
    for each in kept:
        removed[each.rule] += each.removes
    if not counts:
        tell("there are no alerts: `kubectl gadget alerts -o json` and `detect -o json` print them")
    few = f"--least {least} asks for more"
    for name, number in counts.most_common():
        why = notes.get(name, "" if removed[name] else few if number < least else "no exception fits enough of them")
        tell(f"{name}: {number - removed[name]} of {number} {'alert' if number == 1 else 'alerts'} left"
             f"{f' ({why})' if why else ''}")  # fmt: skip


def _alerts(path: Path) -> Iterator[FalcoAlert]:
    file = sys.stdin.buffer if str(path) == "-" else path.open("rb")
    with file:
        try:
            yield from read_alerts(file)
        except ValueError as error:
            raise UsageError(f"{path}: {error}") from None
