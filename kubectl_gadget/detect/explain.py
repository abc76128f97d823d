"""`detect explain` and `detect test`: what rules say of single events, and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from gadget.errors import UsageError
from gadget.text import asked, meant
from kubectl_gadget.detect.given import (
    FILE,
    Wrong,
    as_event,
    complete_rule,
    files_argument,
    given_rules,
    option,
    read_event,
    rules_named,
    rules_option,
)
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.tell import tell, write_line

_KEYS = ("case", "event", "fires")


def explain_command() -> click.Command:
    """`detect explain`."""
    options: list[click.Parameter] = [
        rules_option(),
        option("--rule", "name", metavar="NAME", shell_complete=complete_rule, required=True, help="Which rule."),
        option("--event", "path", type=FILE, metavar="FILE", required=True,
               help="An event in JSON: fields and their values, an alert, or a Kubernetes audit event."),
        option("--all", "whole", is_flag=True, help="Also the parts of the condition that did not decide."),
    ]  # fmt: skip
    example = "kubectl gadget detect explain --rule 'Mining program' --event event.json"
    return HeadedCommand(
        "explain", "why a rule fired on an event, or did not", example, options, _explain, verb="Tells"
    )


def _explain(rules: tuple[Path, ...], name: str, path: Path, whole: bool) -> None:
    from gadget.rules.explain import lines
    from gadget.rules.outputs import MISSING

    known = given_rules(rules)
    rule, *_ = rules_named(known, name)
    given = read_event(path)
    if given.source != rule.source:
        told = f"the rule {rule.name!r} is for events of source {rule.source}; {path} is one of {given.source}"
        raise UsageError(told)
    if given.unknown:
        tell(f"warning: {path}: {given.unknown}")
    fires = bool(rule.test(given.event))
    missing: dict[str, None] = {}
    for line in lines(rule.condition, given.event, given.source, whole=whole):
        value = f"   {line.value}" if line.value else ""
        write_line(f"{'  ' * line.depth}{'✓' if line.held else '✗'} {line.text}{value}")
        if line.value == MISSING and not line.held:
            missing[line.text.split()[0]] = None
    write_line(f"{rule.name} {_end(fires, is_alert=given.is_alert, missing=list(missing))}"
               f"{'' if rule.enabled else '; it is off'}")  # fmt: skip
    first = known.matching(given.event, given.source, first=True)
    if fires and first and first[0].name != rule.name:
        write_line(f"Where the first rule alone counts, {first[0].name!r} hides it")


def _end(fires: bool, *, is_alert: bool, missing: list[str]) -> str:
    if fires:
        return "fires"
    if is_alert and missing:
        return f"may have fired: an alert has but the fields of its output, and not {', '.join(missing)}"
    return f"does not fire: the event has no {', '.join(missing)}" if missing else "does not fire"


def test_command() -> click.Command:
    """`detect test`."""
    title = "rules with cases: events, and the rules that have to fire"
    example = "kubectl gadget detect test --rules rules.yaml cases.yaml"
    return HeadedCommand("test", title, example, [files_argument(), rules_option()], _test, verb="Tests")


def _test(files: tuple[Path, ...], rules: tuple[Path, ...]) -> None:
    known, right, wrong = given_rules(rules), 0, 0
    names = {rule.name for rule in known.rules}
    for path in files:
        for place, case in _cases(path):
            given = as_event(case["event"], place)
            if given.unknown:
                raise UsageError(f"{place}: {given.unknown}")
            wanted = case.get("fires", [])
            if unknown := [name for name in wanted if name not in names]:
                text = f"{place}: there is no rule {unknown[0]!r}"
                raise UsageError(asked(text, str(unknown[0]), names))
            fired = [rule.name for rule in known.matching(given.event, given.source)]
            if sorted(fired) == sorted(wanted):
                right += 1
                continue
            wrong += 1
            told = [f"{name} did not fire" for name in wanted if name not in fired]
            told += [f"{name} fired" for name in fired if name not in wanted]
            write_line(f"{place}: {case.get('case', 'a case')}: {', '.join(told)}")
    write_line(f"{right} of {right + wrong} {'case is' if right + wrong == 1 else 'cases are'} right")
    if wrong:
        raise Wrong(f"{wrong} {'case is' if wrong == 1 else 'cases are'} wrong")


def _cases(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    want = "want a list of {case: NAME, event: {…}, fires: [RULE]}"
    if not isinstance(found, list):
        raise UsageError(f"{path} has no cases: {want}")
    for number, case in enumerate(found, 1):
        place = f"{path}: case {number}"
        if not isinstance(case, dict):
            raise UsageError(f"{place}: {want}")
        if unknown := [key for key in case if key not in _KEYS]:
            question = meant(str(unknown[0]), _KEYS) or want
            raise UsageError(f"{place} has a key {unknown[0]}: {question}")
        if "event" not in case or not isinstance(case.get("fires", []), list):
            raise UsageError(f"{place}: {want}")
        yield place, case
