"""Judges files of facts about rules: cases, corpora of events and of audit events, with what Falco says of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import orjson
import yaml

from gadget.errors import UsageError
from gadget.rules import fields
from gadget.rules.audit import AuditEvent
from gadget.rules.checks import Compiler, Event
from gadget.rules.outputs import RuleOutput, plain
from gadget.rules.parser import parse
from gadget.rules.problems import ConditionError, RulesError
from gadget.rules.ruleset import Ruleset, load


@dataclass
class FactsVerdict:
    """How many facts of a file are true, and the facts that are not."""

    right: int = 0
    wrong: list[str] = field(default_factory=list)

    def note(self, name: str, got: object, wanted: object) -> None:
        """Note one fact."""
        if got == wanted:
            self.right += 1
        else:
            if isinstance(got, dict) and isinstance(wanted, dict):  # what differs is told
                same = {key for key in got.keys() & wanted.keys() if got[key] == wanted[key]}
                got, wanted = ({key: of[key] for key in of if key not in same} for of in (got, wanted))
            self.wrong.append(f"{name}: {_told(got)}, and should be {_told(wanted)}")


def _told(what: object) -> str:
    return orjson.dumps(what, default=str).decode()


def verify(path: Path, rules: Ruleset) -> FactsVerdict:
    """Judge a file of facts: cases in YAML, or events, one JSON object a line.

    Raises:
        UsageError: The file is none.

    """
    verdict = FactsVerdict()
    try:
        text = path.read_text()
        if path.suffix in (".yaml", ".yml"):
            for case in yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
                judge_case(case, verdict)
        else:
            for number, line in enumerate(text.splitlines(), 1):
                if line.strip():
                    _event(orjson.loads(line), f"{path.name}:{number}", rules, verdict)
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is no file of facts: {type(error).__name__} {' '.join(str(error).split())}") from None
    return verdict


def typed(event: Mapping[str, Any], source: str) -> dict[str, Any]:
    """An event with values of the types of its fields, as the engine has them.

    Raises:
        ConditionError: It has a field that there is not.

    """
    return {key: each for key, value in event.items() if (each := _typed(key, value, source)) is not None}


def _typed(key: str, value: Any, source: str) -> Any:
    name, bracket, arg = key.partition("[")
    try:
        field_ = fields.find(name, arg.removesuffix("]") if bracket else None, source, ask=False)
        kind, many = field_.type, field_.is_list or field_.any_of
    except ConditionError:
        kind, many = "CHARBUF", True
    if isinstance(value, list) != many and isinstance(value, list):
        raise ValueError(f"{key} has one value, not {value!r}")
    if isinstance(value, list):
        return tuple(_one(each, kind) for each in value) or None
    return None if value is None else _one(value, kind)


def _one(value: Any, kind: str) -> Any:
    numeric = kind in fields.NUMBERS or kind == "PORT"
    if (numeric and type(value) is not int) or (kind == "BOOL" and type(value) is not bool):
        raise ValueError(f"{value!r} is no value of type {kind}")
    if kind in ("IPADDR", "IPNET"):
        return ip_address(value).packed
    if kind == "BYTEBUF" and isinstance(value, str):
        hexadecimal = value.removeprefix("hex:")
        return bytes.fromhex(hexadecimal) if hexadecimal != value else value.encode("utf-8", "surrogateescape")
    return str(value) if kind in fields.TEXTS and not isinstance(value, str) else value


def _event(line: Mapping[str, Any], name: str, rules: Ruleset, verdict: FactsVerdict) -> None:
    """An event of a corpus with the rules that fire on it; of an audit event the fields that are read from it too."""
    source = line.get("source", fields.AUDIT if "audit" in line else fields.SYSCALL)
    name = f"{name} {line.get('id') or line.get('topic') or line.get('target', '')}"
    got: dict[str, Any] = {}
    wanted: dict[str, Any] = {}
    if "audit" in line:
        event: Event = AuditEvent(line["audit"], line["fields"].get("evt.num", 1))
        wanted["fields"] = line["fields"]
        got["fields"] = {key: plain(event.get(key), "CHARBUF") for key in line["fields"]}
    else:
        event = typed(line["event"], source)
    for mode in ("first", "all"):
        if mode in line:
            wanted[mode] = line[mode]
            got[mode] = [rule.name for rule in rules.matching(event, source, first=mode == "first")]
    verdict.note(name.strip(), got, wanted)


def judge_case(case: Mapping[str, Any], verdict: FactsVerdict) -> None:
    """Judge one case, a fact of a YAML file."""
    got, wanted = _KINDS[case["kind"]](case)
    verdict.note(case["name"], got, wanted)


Pair = tuple[object, object]


def _parses(case: Mapping[str, Any]) -> Pair:
    """Whether a condition is refused, and at which stage: grammar without knowledge of fields, compile with it."""
    source = case.get("source", fields.SYSCALL)
    stage = None
    try:
        node = parse(case["condition"])
        stage = "compile"
        Compiler(source).test(node)
        stage = None
    except ConditionError:
        stage = stage or "grammar"
    return stage, case["expect"].get("stage")


def _matches(case: Mapping[str, Any]) -> Pair:
    source = case.get("source", fields.SYSCALL)
    event = typed(case["event"], source)
    try:
        if "condition" in case:
            return bool(Compiler(source).test(parse(case["condition"]))(event)), case["expect"]["match"]
        rules = _loaded(case)
    except (ConditionError, RulesError) as error:
        return str(error), case["expect"]
    found = {
        mode: [rule.name for rule in rules.matching(event, source, first=mode == "first")] for mode in ("first", "all")
    }
    wanted = {mode: case["expect"][mode] for mode in found if mode in case["expect"]}
    return {mode: found[mode] for mode in wanted}, wanted


def _loaded(case: Mapping[str, Any]) -> Ruleset:
    return load([(f"rules {number}", text) for number, text in enumerate(case["rules"], 1)])


def _refused(case: Mapping[str, Any]) -> Pair:
    try:
        _loaded(case)
    except RulesError as error:
        return error.problem.code, case["expect"]["code"]
    return None, case["expect"]["code"]


def _warned(case: Mapping[str, Any]) -> Pair:
    try:
        return sorted({each.code for each in _loaded(case).warnings}), sorted(set(case["expect"]["codes"]))
    except RulesError as error:
        return str(error), case["expect"]["codes"]


def _output(case: Mapping[str, Any]) -> Pair:
    source = case.get("source", fields.SYSCALL)
    wanted = case["expect"]
    try:
        output = RuleOutput(case["output"], source)
    except ConditionError as error:
        return ({"error": True} if "error" in wanted else str(error)), wanted
    if "error" in wanted:
        return None, wanted
    event = typed(case["event"], source)
    return {"text": output.text(event), "fields": output.values(event) or None}, wanted


_KINDS: dict[str, Callable[[Mapping[str, Any]], Pair]] = {
    "parse-ok": _parses,
    "parse-error": _parses,
    "match": _matches,
    "no-match": _matches,
    "rule-load-error": _refused,
    "rule-load-warning": _warned,
    "output": _output,
    "output-error": _output,
}
