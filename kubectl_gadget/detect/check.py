"""`detect check` and `detect list`: what rule files say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gadget.text import counted
from kubectl_gadget.detect.given import (
    FILE,
    PriorityType,
    complete_rule,
    complete_tag,
    files_argument,
    form_option,
    given_rules,
    narrowed,
    option,
    read_rules,
    rule_texts,
    rules_named,
)
from kubectl_gadget.detect.needs import MANY, RuleNeeds, table, time_text
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.tell import tell, write_json, write_line, write_lines

if TYPE_CHECKING:
    from gadget.rules.files import Defined
    from gadget.rules.ruleset import Rule, Ruleset


def check_command() -> click.Command:
    """`detect check`."""
    rule = option(
        "--rule",
        "name",
        metavar="NAME",
        shell_complete=complete_rule,
        help="One rule: what it means, its macros and lists written out.",
    )
    title = "what rule files say, what changes what, and what can never fire"
    example = "kubectl gadget detect check falco_rules.yaml my_rules.yaml"
    return HeadedCommand("check", title, example, [files_argument(), rule, form_option()], _check, verb="Tells")


def list_command() -> click.Command:
    """`detect list`."""
    options: list[click.Parameter] = [
        click.Argument(["files"], nargs=-1, type=FILE, metavar="[FILE...]"),
        option("--priority", type=PriorityType(), help="Only rules of that priority or a higher one."),
        option(
            "--tag",
            "tags",
            multiple=True,
            metavar="TAG",
            shell_complete=complete_tag,
            help="Only rules with one of these tags.",
        ),
        form_option(),
    ]
    example = "kubectl gadget detect list --priority error"
    return HeadedCommand("list", "rules, the default ones or those of files", example, options, _list, verb="Lists")


def _list(files: tuple[Path, ...], priority: str | None, tags: tuple[str, ...], form: str) -> None:
    rules = narrowed(given_rules(files), priority, tags)
    if form == "json":
        _write_json(rules, list(rules.rules))
        return
    width = max(len(rule.priority) for rule in rules.rules)
    for rule in rules.rules:
        source = "audit" if rule.source == "k8s_audit" else "calls"
        write_line(f"{rule.priority:{width}}  {source:5}  {rule.name}{'' if rule.enabled else ' (off)'}")


def _check(files: tuple[Path, ...], name: str | None, form: str) -> None:
    from gadget.rules.explain import never

    rules = read_rules(files)
    for warning in rules.warnings:
        tell(f"warning: {warning}")
    chosen = rules_named(rules, name) if name else list(rules.rules)
    if form == "json":
        _write_json(rules, chosen)
        return
    if name:
        write_lines("\n\n".join(_shown(rules, rule) for rule in chosen) + "\n")
        return
    if baselines := {str(path): path for path in files if _is_baseline(path)}:
        write_lines("".join(text for name, text in rule_texts(list(baselines.values())) if name in baselines))
    known = rules.files
    on = sum(rule.enabled for rule in chosen)
    write_line(f"{counted(len(chosen), 'rule')} ({on} enabled), {counted(len(known.macros), 'macro')}, "
               f"{counted(len(known.lists), 'list')}")  # fmt: skip
    for rule in chosen:
        if why := never(rule.condition, rule.source):
            write_line(f"{rule.at}: {rule.name} can never fire: {why}")
        elif unseen := _unseen(rules, rule):
            write_line(f"{rule.at}: {rule.name} {unseen}")
    for kind, defined in (("rule", known.rules), ("macro", known.macros), ("list", known.lists)):
        for each in defined.values():
            _tell_changes(kind, each)
    write_lines("".join(f"{line}\n" for line in table(rules, chosen)))


def _unseen(rules: Ruleset, rule: Rule) -> str:
    """The types of events that a rule names and that no agent sees; empty if all are seen."""
    needs = RuleNeeds(rules, [rule])
    if not (needs.of_calls and needs.unseen):
        return ""
    types = " ".join(needs.unseen)
    return (
        f"is never asked of {types}: no agent sees it"
        if needs.calls
        else f"can never fire on a node: no agent sees {types}"
    )


def _is_baseline(path: Path) -> bool:
    from gadget.rules.baseline import is_baseline

    return path.is_file() and is_baseline(path.read_text(errors="replace"))


def _tell_changes(kind: str, each: Defined) -> None:
    before = [str(at) for at in each.history]
    for at in range(1, len(before)):
        write_line(f"{before[at]}: changes the {kind} {each.name} of {', '.join(before[:at])}")


def _write_json(rules: Ruleset, chosen: list[Rule]) -> None:
    import orjson

    for rule in chosen:
        write_json(orjson.dumps(_described(rules, rule)).decode())


def _described(rules: Ruleset, rule: Rule) -> dict[str, Any]:
    from gadget.rules.explain import never, text

    return {
        "rule": rule.name,
        "at": [str(at) for at in rules.files.rules[rule.name].history],
        "enabled": rule.enabled,
        "source": rule.source,
        "priority": rule.priority,
        "tags": sorted(rule.tags),
        "desc": " ".join(rule.desc.split()),
        "event_types": sorted(rule.types) if len(rule.types) <= MANY else None,
        "condition": text(rule.condition),
        "output": rule.output.written,
        "output_fields": list(rule.output.fields),
        "never": never(rule.condition, rule.source) or None,
        **RuleNeeds(rules, [rule]).described(),
    }


def _shown(rules: Ruleset, rule: Rule) -> str:
    from gadget.rules.explain import text
    from gadget.rules.parser import Junction

    told = _described(rules, rule)
    needs = RuleNeeds(rules, [rule])
    types = "all" if told["event_types"] is None else " ".join(told["event_types"]) or "none"
    rows = [
        ("rule", f"{rule.name}{'' if rule.enabled else ' (off)'}"),
        ("means", told["desc"]),
        ("from", ", changed by ".join(told["at"])),
        ("priority", rule.priority),
        ("source", rule.source),
        ("tags", " ".join(told["tags"])),
        ("event types", types if rule.source == "syscall" else ""),
        ("kernel sends", needs.sends if needs.of_calls else ""),
        ("cost", f"{time_text(needs.cost.ns)}{'; ' * bool(needs.parts)}{needs.parts}"),
        ("never fires", told["never"] or _unseen(rules, rule)),
        ("output", rule.output.written),
    ]
    parts = rule.condition.children if isinstance(rule.condition, Junction) else (rule.condition,)
    word = rule.condition.word if isinstance(rule.condition, Junction) else ""
    condition = [f"  {word + ' ' if at else ''}{text(part, inside=True)}" for at, part in enumerate(parts)]
    return "\n".join([*(f"{name + ':':14}{value}" for name, value in rows if value), "condition:", *condition])
