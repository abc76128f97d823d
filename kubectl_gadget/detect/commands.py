"""`detect` and its commands. None of them needs an agent: they read rules, and events from files or a webhook."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gadget.errors import GadgetError, UsageError
from gadget.text import meant
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import Option
from kubectl_gadget.tell import tell, write_line, write_lines

if TYPE_CHECKING:
    from gadget.rules.checks import Event
    from gadget.rules.ruleset import Rule, Ruleset

FILE = click.Path(path_type=Path)
_TLS = {
    "ca": "Whom to trust at https:// places, in PEM.",
    "cert": "Our own certificate for them.",
    "key": "Its key.",
}
FORMS = ("columns", "text", "json")
#: What stands for the rules that come with it, in the place of a path.
DEFAULT = Path("default")


class Wrong(GadgetError):
    """Facts or cases are not as they say: the exit code tells a script."""


def _option(*names: str, heading: str = "Options", **settings: Any) -> Option:
    return Option([*names], heading=heading, **settings)


def _files(*, required: bool = True) -> click.Argument:
    return click.Argument(["files"], nargs=-1, type=FILE, required=required, metavar="FILE...")


def _rules() -> Option:
    help_ = (
        "Rules: a file, a folder of them, or `default`, which judge where none are named. Again: those "
        "that change or add to the ones before."
    )
    return _option("--rules", "rules", type=FILE, multiple=True, metavar="PATH", help=help_)


def _form() -> Option:
    return _option("-o", "--output", "form", heading="Output", type=click.Choice(["text", "json"]), default="text",
                   help="Format.")  # fmt: skip


class DetectCommand(HeadedCommand, click.Group):
    """`detect`: what rules say of events."""

    def __init__(self) -> None:
        """Make the group."""
        options: list[click.Parameter] = [
            _option("--k8s-audit", "where", metavar="FILE|DIR|-|URL",
                    help="Audit events of Kubernetes: a file, a folder, standard input, or a URL to serve as the API "
                    "server's webhook, such as http://127.0.0.1:9765/k8s-audit."),
            _option("-f", "--follow", is_flag=True, help="Also what is written to the file from now on."),
            *_chosen(),
            _option("-o", "--output", "form", heading="Output", type=click.Choice(FORMS), default="columns",
                    help="columns; text: Falco's line; json: Falco's JSON."),
            _option("--to", heading="Output", multiple=True, metavar="PLACE",
                    help="Also there: file:PATH, https://HOST/PATH, slack:URL, otlp:URL, program:COMMAND, "
                    "syslog[:HOST:PORT]."),
            *(_option(f"--to-{name}", f"to_{name}", heading="Output", type=FILE, metavar="FILE", help=text)
              for name, text in _TLS.items()),
        ]  # fmt: skip
        title = "what rules in Falco's language say of events"
        example = "kubectl gadget detect --k8s-audit audit.log"
        super().__init__("detect", title, example, options, _detect)
        self.invoke_without_command = True
        for command in (_check_command(), _explain_command(), _test_command(), _tune_command(), _verify_command()):
            self.add_command(command)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """And what else can be done with rules."""
        super().format_help(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(90)) for name, command in self.commands.items()])


def _chosen() -> list[click.Parameter]:
    from gadget.rules.files import PRIORITIES

    return [
        _rules(),
        _option("--priority", type=click.Choice(PRIORITIES, case_sensitive=False),
                help="Only rules of that priority or a higher one."),
        _option("--tag", "tags", multiple=True, metavar="TAG", help="Only rules with one of these tags."),
        _option("--rule", "names", multiple=True, metavar="NAME", help="Only these rules, also disabled ones."),
        _option("--rule-matching", "matching", type=click.Choice(["all", "first"]), default="all",
                help="Whether all rules count that fire on an event, or the first alone, as in Falco. [default: all]"),
    ]  # fmt: skip


def _detect(
    where: str | None,
    follow: bool,
    rules: tuple[Path, ...],
    priority: str | None,
    tags: tuple[str, ...],
    names: tuple[str, ...],
    matching: str,
    form: str,
    to: tuple[str, ...],
    **tls: Path | None,
) -> None:
    if click.get_current_context().invoked_subcommand:
        return
    if not where:
        raise UsageError("say what to judge: --k8s-audit audit.log")
    from gadget.rules.channels import Channels, Patience, Tls, make
    from kubectl_gadget.detect.judge import judge, own_name

    known = _given(rules)
    for warning in known.warnings:
        tell(f"warning: {warning}")
    chosen, patience = _narrowed(known, priority, tags, names), Patience()
    keys = Tls(tls["to_ca"], tls["to_cert"], tls["to_key"])
    channels = Channels((make(place, own_name(), keys, patience) for place in to), patience.drain)
    judge(where, chosen, form, channels, follow=follow, first=matching == "first")


def _narrowed(rules: Ruleset, priority: str | None, tags: tuple[str, ...], names: tuple[str, ...]) -> Ruleset:
    """The rules that were chosen."""
    from dataclasses import replace

    from gadget.rules.alerts import at_least
    from gadget.rules.files import PRIORITIES

    chosen = [replace(_rule(rules, name), enabled=True) for name in names] or [*rules.rules]
    if tags and not any(rule.tags & set(tags) for rule in chosen):
        question = meant(tags[0], {tag for rule in chosen for tag in rule.tags})
        raise UsageError(f"no rule has the tag {tags[0]}{f': {question}' if question else ''}")
    wanted = at_least(priority) if priority else frozenset(PRIORITIES)
    kept = (rule for rule in chosen if rule.priority in wanted and (not tags or rule.tags & set(tags)))
    return replace(rules, rules=tuple(kept))


def read_rules(paths: Sequence[Path]) -> Ruleset:
    """Load rule files; of a folder its .yaml and .yml files by name; `default` is those that come with it.

    Raises:
        UsageError: One cannot be read, or makes no sense.

    """
    from gadget.rules.ruleset import load

    return load(list(_texts(paths)))


def _texts(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    from gadget.rules import default

    for path in paths:
        if path == DEFAULT and not path.exists():
            yield from default.files()
            continue
        found = sorted(each for each in path.iterdir() if each.suffix in (".yaml", ".yml")) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"{path} has no .yaml file in it")
        for each in found:
            try:
                yield str(each), each.read_text()
            except UnicodeDecodeError as error:
                raise UsageError(f"{each} is no text: byte {error.start} is not UTF-8") from None


def _rule(rules: Ruleset, name: str) -> Rule:
    """The rule of a name, in any case."""
    for rule in rules.rules:
        if rule.name.lower() == name.lower():
            return rule
    question = meant(name, [rule.name for rule in rules.rules])
    raise UsageError(f"there is no rule {name!r}{f': {question}' if question else ''}")


# check


def _check_command() -> click.Command:
    rule = _option("--rule", "name", metavar="NAME", help="One rule, with its macros and lists written out.")
    title = "what rule files say: errors with their place, what changes what, what can never fire"
    example = "kubectl gadget detect check falco_rules.yaml my_rules.yaml"
    return HeadedCommand("check", title, example, [_files(), rule, _form()], _check, verb="Tells")


def _check(files: tuple[Path, ...], name: str | None, form: str) -> None:
    from gadget.rules.explain import never

    rules = read_rules(files)
    for warning in rules.warnings:
        tell(f"warning: {warning}")
    chosen = [_rule(rules, name)] if name else rules.rules
    if form == "json":
        import orjson

        for rule in chosen:
            write_line(orjson.dumps(_described(rules, rule)).decode())
        return
    if name:
        write_lines(f"{_shown(rules, chosen[0])}\n")
        return
    enabled = sum(rule.enabled for rule in chosen)
    known = rules.files
    write_line(f"{len(chosen)} rules ({enabled} enabled), {len(known.macros)} macros, {len(known.lists)} lists")
    for rule in chosen:
        if why := never(rule.condition, rule.source):
            write_line(f"{rule.at}: {rule.name} can never fire: {why}")
        for at in known.rules[rule.name].changed:
            write_line(f"{at}: {rule.name} is changed, which is of {rule.at}")


def _described(rules: Ruleset, rule: Rule) -> dict[str, Any]:
    from gadget.rules.explain import never, text

    return {
        "rule": rule.name,
        "at": str(rule.at),
        "changed_at": [str(at) for at in rules.files.rules[rule.name].changed],
        "enabled": rule.enabled,
        "source": rule.source,
        "priority": rule.priority,
        "tags": sorted(rule.tags),
        "desc": rule.desc.strip(),
        "event_types": sorted(rule.types) if len(rule.types) <= _MANY else None,
        "condition": text(rule.condition),
        "output_fields": list(rule.output.fields),
        "never": never(rule.condition, rule.source) or None,
    }


#: A rule with more types of events has in fact none.
_MANY = 100


def _shown(rules: Ruleset, rule: Rule) -> str:
    from gadget.rules.explain import text
    from gadget.rules.parser import Both

    told = _described(rules, rule)
    types = "all" if told["event_types"] is None else " ".join(told["event_types"]) or "none"
    rows = [
        ("rule", f"{rule.name}{'' if rule.enabled else ' (disabled)'}"),
        ("from", ", ".join([told["at"], *(f"changed by {at}" for at in told["changed_at"])])),
        ("priority", rule.priority),
        ("source", rule.source),
        ("tags", " ".join(told["tags"])),
        ("event types", types if rule.source == "syscall" else ""),
        ("never fires", told["never"] or ""),
    ]
    parts = rule.condition.children if isinstance(rule.condition, Both) else (rule.condition,)
    word = rule.condition.word if isinstance(rule.condition, Both) else ""
    condition = [f"  {word + ' ' if at else ''}{text(part, inside=True)}" for at, part in enumerate(parts)]
    return "\n".join([*(f"{name + ':':13}{value}" for name, value in rows if value), "condition:",
                      *condition])  # fmt: skip


# explain


def _explain_command() -> click.Command:
    options: list[click.Parameter] = [
        _rules(),
        _option("--rule", "name", metavar="NAME", required=True, help="Which rule."),
        _option("--event", "path", type=FILE, metavar="FILE", required=True,
                help="An event in JSON: a field and its value each, an alert, or a Kubernetes audit event."),
        _option("--all", "whole", is_flag=True, help="Also the parts of the condition that did not decide."),
    ]  # fmt: skip
    title = "why a rule fired on an event, or did not"
    example = "kubectl gadget detect explain --rules rules.yaml --rule 'Shell in a container' --event event.json"
    return HeadedCommand("explain", title, example, options, _explain, verb="Tells")


def _explain(rules: tuple[Path, ...], name: str, path: Path, whole: bool) -> None:
    from gadget.rules.explain import lines

    known = _given(rules)
    rule = _rule(known, name)
    event, source = read_event(path)
    if source != rule.source:
        raise UsageError(f"{rule.name} is a rule for events of source {rule.source}; {path} is one of {source}")
    fires = bool(rule.test(event))
    for line in lines(rule.condition, event, source, whole=whole):
        mark = "✓" if line.held else "✗"
        value = f"   {line.value}" if line.value else ""
        write_line(f"{'  ' * line.depth}{mark} {line.text}{value}")
    first = known.matching(event, source, first=True)
    told = f"{rule.name} {'fires' if fires else 'does not fire'}{'' if rule.enabled else ', and is disabled'}"
    if fires and first and first[0].name != rule.name:
        told += f"; where the first rule alone counts, {first[0].name} hides it"
    write_line(told)


def _given(rules: tuple[Path, ...]) -> Ruleset:
    """The rules that were named, or the default ones."""
    return read_rules(rules or (DEFAULT,))


def read_event(path: Path) -> tuple[Event, str]:
    """An event of a file, and its source.

    Raises:
        UsageError: The file has none.

    """
    import orjson

    try:
        found = orjson.loads(path.read_bytes() if str(path) != "-" else sys.stdin.buffer.read())
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{path} has no event in JSON: {error}") from None
    return as_event(found, str(path))


def as_event(found: Any, where: str) -> tuple[Event, str]:
    """An event as it was written: fields, an alert of Falco or ours, a line of a corpus, or an audit event.

    Raises:
        UsageError: It is none.

    """
    from gadget.rules.audit import AuditEvent
    from gadget.rules.verify import typed

    if isinstance(found, dict) and isinstance(found.get("audit"), dict):
        found = found["audit"]
    if isinstance(found, dict) and "auditID" in found:
        return AuditEvent(found), "k8s_audit"
    source = found.get("source", "syscall") if isinstance(found, dict) else ""
    for key in ("event", "output_fields"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not any("." in key for key in found):
        raise UsageError(f'{where} has no event: an object with fields, as {{"evt.type": "execve"}}')
    try:
        return typed(found, source), source
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where} has an event whose value makes no sense: {error}") from None


# test


def _test_command() -> click.Command:
    title = "rules with the cases of files: an event each, and the rules that have to fire on it"
    example = "kubectl gadget detect test --rules rules.yaml cases.yaml"
    return HeadedCommand("test", title, example, [_files(), _rules()], _test, verb="Tests")


def _test(files: tuple[Path, ...], rules: tuple[Path, ...]) -> None:
    known, right, wrong = _given(rules), 0, 0
    for path in files:
        for place, case in _cases(path):
            event, source = as_event(case.get("event"), place)
            fired = [rule.name for rule in known.matching(event, source)]
            wanted = case.get("fires", [])
            if sorted(fired) == sorted(wanted):
                right += 1
                continue
            wrong += 1
            told = [f"{name} did not fire" for name in wanted if name not in fired]
            told += [f"{name} fired" for name in fired if name not in wanted]
            write_line(f"{place}: {case.get('case', 'a case')}: {', '.join(told)}")
    write_line(f"{right} of {right + wrong} cases are right")
    if wrong:
        raise Wrong(f"{wrong} cases are wrong")


def _cases(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, list) or not all(isinstance(case, dict) and "event" in case for case in found):
        raise UsageError(f"{path} has no cases: a list of {{case: NAME, event: {{…}}, fires: [RULE]}}")
    for number, case in enumerate(found, 1):
        if not isinstance(case.get("fires", []), list):
            raise UsageError(f"{path}: case {number} says fires, which is a list of names of rules")
        yield f"{path}: case {number}", case


# tune


def _tune_command() -> click.Command:
    options: list[click.Parameter] = [
        _files(),
        _rules(),
        _option("--least", type=click.IntRange(1), default=5, metavar="N",
                help="Only exceptions that would have removed so many alerts. [default: 5]"),
    ]  # fmt: skip
    title = "exceptions for rules whose alerts are many and alike, from alerts in JSON"
    example = "kubectl gadget detect tune --rules rules.yaml alerts.jsonl > exceptions.yaml"
    return HeadedCommand("tune", title, example, options, _tune, verb="Proposes")


def _tune(files: tuple[Path, ...], rules: tuple[Path, ...], least: int) -> None:
    from gadget.rules.ruleset import load
    from kubectl_gadget.detect.tune import overrides, propose, read_alerts

    alerts: list[Any] = []
    for path in files:
        with path.open("rb") as file:
            try:
                alerts += read_alerts(file)
            except ValueError as error:
                raise UsageError(f"{path}: {error}") from None
    proposals, counts = propose(alerts, least)
    text = overrides(proposals)
    if rules:
        load([*_texts(rules), ("the exceptions that are proposed", text)])
    if text:
        write_lines(f"{text}\n" if not text.endswith("\n") else text)
    removed = Counter[str]()
    for each in proposals:
        removed[each.rule] += each.removes
    for name, number in counts.most_common():
        left = number - removed[name]
        why = "" if removed[name] else ": none is like enough others to be excepted"
        tell(f"{name}: {left} of {number} alert{'' if number == 1 else 's'} left{why}")


# verify


def _verify_command() -> click.Command:
    title = "files of facts about Falco's language: how many are right, and each that is not"
    example = "kubectl gadget detect verify --rules falco_rules.yaml cases.yaml corpus.jsonl"
    return HeadedCommand("verify", title, example, [_files(), _rules(), _form()], _verify, verb="Judges")


def _verify(files: tuple[Path, ...], rules: tuple[Path, ...], form: str) -> None:
    from gadget.rules.verify import verify

    known = read_rules(rules)
    wrong = 0
    for path in files:
        verdict = verify(path, known)
        wrong += len(verdict.wrong)
        if form == "json":
            import orjson

            told = {"file": str(path), "right": verdict.right, "of": verdict.right + len(verdict.wrong)}
            write_line(orjson.dumps({**told, "wrong": verdict.wrong}).decode())
            continue
        for each in verdict.wrong:
            write_line(each)
        write_line(f"{path}: {verdict.right} of {verdict.right + len(verdict.wrong)} are right")
    if wrong:
        raise Wrong(f"{wrong} facts are not as they should be")
