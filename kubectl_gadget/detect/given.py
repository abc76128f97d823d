"""The arguments of `detect`'s commands: rules, and events in files."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from gadget.errors import GadgetError, UsageError
from gadget.text import meant
from kubectl_gadget.options import Option

if TYPE_CHECKING:
    from gadget.rules.baseline import Baseline
    from gadget.rules.checks import Event
    from gadget.rules.ruleset import Rule, Ruleset

FILE = click.Path(path_type=Path)
#: How alerts are written (kubectl_gadget/detect/written.py).
FORMS = ("columns", "text", "json")
#: The word for the rules that come with it.
DEFAULT = Path("default")
#: Letters of an alert's id, as agents make them.
ID_LETTERS = 7


class Wrong(GadgetError):
    """Something is not as it should be: the exit code tells a script."""


#: What rules of a source are asked of, and where those of the other one are.
_ABOUT = {
    "k8s_audit": ("audit events", "those on system calls judge live, without --k8s-audit"),
    "syscall": ("system calls", "those on audit events need --k8s-audit"),
}
_SHORT = {"info": "Informational", "warn": "Warning", "crit": "Critical", "err": "Error", "emerg": "Emergency"}


class PriorityType(click.Choice[str]):
    """A priority, in any case, also as people shorten it."""

    def __init__(self) -> None:
        from gadget.rules.files import PRIORITIES

        super().__init__(PRIORITIES, case_sensitive=False)

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """Short: help has a line for it."""
        return "PRIORITY"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the value."""
        return str(super().convert(_SHORT.get(str(value).lower(), value), param, ctx))


def option(*names: str, heading: str = "Options", **settings: Any) -> Option:
    """An option of these commands."""
    return Option([*names], heading=heading, **settings)


def is_id(text: str) -> bool:
    """Whether a text may be the id of an alert."""
    return len(text) == ID_LETTERS and text.isascii() and text.isalnum()


def files_argument() -> click.Argument:
    """One file or more."""
    return click.Argument(["files"], nargs=-1, type=FILE, required=True, metavar="FILE...")


def rules_option(help_: str = "") -> Option:
    """--rules."""
    usual = (
        "Rules: a file, a folder, or `default`, which come with it and are taken where none are named. Can be given "
        "again: later ones change and add to those before."
    )
    return option("--rules", "rules", type=FILE, multiple=True, metavar="PATH", help=help_ or usual,
                  shell_complete=_complete_rules)  # fmt: skip


def falco_rules_option() -> Option:
    """--falco-rules."""
    text = "Rules, with --rule-matching first unless that is given, as Falco has it. They go before those of --rules."
    return option("--falco-rules", "falco_rules", type=FILE, multiple=True, metavar="PATH", help=text)


def form_option() -> Option:
    """-o of the commands that tell of rules."""
    return option("-o", "--output", "form", heading="Output", type=click.Choice(["text", "json"]), default="text",
                  help="Format. [default: text]")  # fmt: skip


def _complete_rules(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    word = [CompletionItem("default", help="the rules that come with it")] if "default".startswith(incomplete) else []
    return [*word, CompletionItem(incomplete, type="file")]


def complete_rule(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of the rules that are given, with what each is about."""
    start = incomplete.lower()
    found = [each for each in _known(ctx) if each.name.lower().startswith(start)]
    return [CompletionItem(each.name, help=each.desc.split(". ")[0].strip()) for each in found]


def complete_tag(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Tags of the rules that are given."""
    tags = {tag for each in _known(ctx) for tag in each.tags}
    return [CompletionItem(each) for each in sorted(tags) if each.startswith(incomplete)]


def _known(ctx: click.Context) -> Sequence[Rule]:
    paths = [*(ctx.params.get("falco_rules") or ()), *(ctx.params.get("rules") or ctx.params.get("files") or ())]
    try:
        return given_rules(paths).rules
    except (GadgetError, OSError):
        return ()


# rules


def given_rules(paths: Sequence[Path]) -> Ruleset:
    """The rules that were named, or the default ones.

    Raises:
        UsageError: One cannot be read, or makes no sense.

    """
    return read_rules(paths or (DEFAULT,))


def read_rules(paths: Sequence[Path]) -> Ruleset:
    """Load rule files; of a folder its .yaml and .yml files by name; `default` is those that come with it.

    Raises:
        UsageError: One cannot be read, or makes no sense.

    """
    from gadget.rules.problems import RulesError
    from gadget.rules.ruleset import load

    try:
        return load(list(rule_texts(paths)))
    except RulesError as error:
        if error.is_of_others and DEFAULT not in paths:
            raise UsageError(f"{error}. If it is of the default rules: --rules default --rules {paths[0]}") from None
        raise


def rule_texts(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Names and texts of rule files; of a baseline the rules that it means.

    Raises:
        UsageError: One is no text or no baseline, or a folder has none.

    """
    from gadget.rules import default

    for path in paths:
        if path == DEFAULT and not path.exists():
            yield from default.files()
            continue
        if (question := meant(str(path), [str(DEFAULT)])) and not path.exists():
            raise UsageError(f"{path}: No such file or directory: {question}")
        found = sorted(each for each in path.iterdir() if each.suffix in (".yaml", ".yml")) if path.is_dir() else [path]
        if not found:
            raise UsageError(f"{path} has no .yaml file in it")
        for each in found:
            try:
                yield str(each), _rules_of(each.read_text(), str(each))
            except UnicodeDecodeError as error:
                raise UsageError(f"{each} is no text: byte {error.start} is not UTF-8") from None


def _rules_of(text: str, name: str) -> str:
    from gadget.rules import baseline

    return baseline.texts(text, name) if baseline.is_baseline(text) else text


def read_baselines(paths: Sequence[Path]) -> Baseline:
    """What baselines say, all together.

    Raises:
        UsageError: One is none, or cannot be read.

    """
    from gadget.rules import baseline

    found: Baseline = {}
    for path in paths:
        text = path.read_text(errors="replace")
        if not baseline.is_baseline(text):
            raise UsageError(f"{path} is no baseline: `detect learn` writes one, and rules are given as --rules {path}")
        for who, learnt in baseline.read(text, str(path)).items():
            if who in found:
                raise UsageError(f"{path}: {baseline.escaped(str(who))} is in a baseline before it, too")
            found[who] = learnt
    return found


def rules_named(rules: Ruleset, name: str) -> list[Rule]:
    """The rules of a name, in any case; a * stands for anything.

    Raises:
        UsageError: There is none.

    """
    found = [rule for rule in rules.rules if fnmatchcase(rule.name.lower(), name.lower())]
    if not found:
        question = meant(name, [rule.name for rule in rules.rules])
        quoted = re.sub(r"did you mean (.*)\?", r"did you mean '\1'?", question)
        raise UsageError(f"there is no rule {name!r}{f': {quoted}' if quoted else ''}; `detect list` shows all")
    return found


def narrowed(
    rules: Ruleset, priority: str | None, tags: Iterable[str] = (), names: Iterable[str] = (), source: str = ""
) -> Ruleset:
    """The rules that were chosen. Those that were named are on, whatever their file says.

    Raises:
        UsageError: There are none.

    """
    from dataclasses import replace

    from gadget.rules.alerts import at_least
    from gadget.rules.files import PRIORITIES

    named = [replace(rule, enabled=True) for name in names for rule in rules_named(rules, name)]
    chosen = named or list(rules.rules)
    wanted = {tag for text in tags for tag in text.split(",") if tag}
    known = {tag for rule in rules.rules for tag in rule.tags}
    if missing := sorted(wanted - known):
        question = meant(missing[0], known) or f"there are {', '.join(sorted(known)[:30])}"
        raise UsageError(f"no rule has the tag {missing[0]}: {question}")
    urgent = at_least(priority) if priority else frozenset(PRIORITIES)
    kept = [rule for rule in chosen if rule.priority in urgent and (not wanted or rule.tags & wanted)]
    if not kept:
        raise UsageError("no rule is left by --rule, --tag and --priority together")
    if source and not any(rule.source == source and rule.enabled for rule in kept):
        what, others = _ABOUT[source]
        why = "they are disabled" if any(rule.source == source for rule in kept) else others
        raise UsageError(f"none of the {len(kept)} rules that are chosen is for {what} (source: {source}): {why}")
    return replace(rules, rules=tuple(kept))


# events


@dataclass(frozen=True)
class Given:
    """An event from a file. is_alert: it was one, which has but the fields of its output."""

    event: Event
    source: str
    is_alert: bool
    unknown: str
    """A field that there is not, and what was meant; empty if there is none."""


def read_event(path: Path) -> Given:
    """The event of a file.

    Raises:
        UsageError: The file has none.

    """
    import orjson

    data = path.read_bytes() if str(path) != "-" else sys.stdin.buffer.read()
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        lines = sum(1 for line in data.splitlines() if line.strip())
        more = f"it has {lines} lines: give one of them" if lines > 1 else str(error)
        raise UsageError(f"{path} has no event in JSON: {more}") from None
    return as_event(found, str(path))


def as_event(found: Any, where: str) -> Given:
    """An event as it was written: fields, an alert of Falco or ours, a line of a corpus, or an audit event.

    Raises:
        UsageError: It is none.

    """
    from gadget.rules.audit import AuditEvent
    from gadget.rules.verify import typed

    if isinstance(found, dict) and isinstance(found.get("audit"), dict):
        found = found["audit"]
    if isinstance(found, dict) and "auditID" in found:
        return Given(AuditEvent(found), "k8s_audit", False, "")
    source = found.get("source", "syscall") if isinstance(found, dict) else ""
    is_alert = isinstance(found, dict) and isinstance(found.get("output_fields"), dict)
    for key in ("event", "output_fields"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not any(isinstance(key, str) and "." in key for key in found):
        raise UsageError(f'{where} has no event: an object with fields, as {{"evt.type": "execve"}}')
    try:
        named = {str(key): value for key, value in found.items()}
        return Given(typed(named, source), source, is_alert, _unknown(named, source))
    except (ValueError, TypeError) as error:
        raise UsageError(f"{where} has an event whose value makes no sense: {error}") from None


def _unknown(event: dict[str, Any], source: str) -> str:
    from gadget.rules import fields
    from gadget.rules.problems import ConditionError

    for key in event:
        name, bracket, arg = key.partition("[")
        try:
            fields.find(name, arg.removesuffix("]") if bracket else None, source)
        except ConditionError as error:
            return error.text
    return ""
