"""Situations, each a folder of golden/ with a page on it: `make snapshots` after a change on purpose, and read them."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.check import check, show
from kubectl_gadget.advise.commands import DIALECTS as CHOICES
from kubectl_gadget.advise.evaluate import Evaluator
from kubectl_gadget.advise.judge import flows_of, namespaces_of
from kubectl_gadget.advise.observation import read_flows
from kubectl_gadget.advise.policy_files import read_policies
from kubectl_gadget.advise.render import DIALECTS, render_yaml
from kubectl_gadget.advise.talks import Settings

GOLDEN = Path(__file__).parent / "golden"
SITUATIONS = sorted(path.name for path in GOLDEN.iterdir())
TAKEN = [name for name in SITUATIONS if name != "hostile-names"]  # whose names and labels no API server takes


def settings_of(folder: Path) -> Settings:
    given = folder / "settings.json"
    return Settings(**json.loads(given.read_text())) if given.exists() else Settings()


def advised(name: str, dialect: str) -> list[dict[str, Any]]:
    """The objects of a situation's advice, as they are applied."""
    settings = replace(settings_of(GOLDEN / name), dialect=dialect)
    policies = advise(read_flows(GOLDEN / name / "flows.jsonl"), settings).policies
    return [DIALECTS[dialect].to_dict(policy) for policy in policies]


@pytest.mark.parametrize("name", SITUATIONS)
def test_situation(name: str) -> None:
    """In each situation of golden/ the advice is what its page says."""
    folder = GOLDEN / name
    advice = advise(read_flows(folder / "flows.jsonl"), settings_of(folder))
    notes = "".join(f"# note: {note.text}\n" for note in advice.notes)  # the command tells them on stderr
    shown = notes + render_yaml(advice)
    golden = folder / "policies.yaml"
    if os.environ.get("SNAPSHOTS") == "write":
        golden.write_text(shown)
    assert shown == golden.read_text()
    assert [each for each in yaml.safe_load_all(shown) if each] == [policy.to_dict() for policy in advice.policies]
    assert (folder / "README.md").read_text().count("\n") > 2


@pytest.mark.parametrize(
    ("name", "dialect"), sorted((path.parent.name, each) for each in CHOICES for path in GOLDEN.glob(f"*/{each}.yaml"))
)
def test_situation_in_other_dialects(name: str, dialect: str) -> None:
    """Where a situation has a page for Cilium or Calico too the advice in their words is what that says."""
    golden = GOLDEN / name / f"{dialect}.yaml"
    advice = advise(read_flows(golden.with_name("flows.jsonl")), replace(settings_of(golden.parent), dialect=dialect))
    shown = render_yaml(advice, dialect=dialect)
    if os.environ.get("SNAPSHOTS") == "write":
        golden.write_text(shown)
    assert shown == golden.read_text()


@pytest.mark.parametrize("name", SITUATIONS)
def test_order_of_lines(name: str, tmp_path: Path) -> None:
    """In whatever order the lines of a recording stand behind its first, the advice is the same."""
    header, *lines = (GOLDEN / name / "flows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "flows.jsonl").write_text("".join([header, *reversed(lines)]))
    shown, turned = (
        render_yaml(advise(read_flows(folder / "flows.jsonl"), settings_of(GOLDEN / name)), explain=True)
        for folder in (GOLDEN / name, tmp_path)
    )
    assert turned == shown


@pytest.mark.parametrize("name", sorted({path.parent.name for path in GOLDEN.glob("*/given*.yaml")}))
def test_check_of_situation(name: str) -> None:
    """In the situations with given policies `check` says of these what the page next to them says."""
    for given in sorted((GOLDEN / name).glob("given*.yaml")):
        policies = read_policies(given, "default").policies
        by_address = Evaluator(policies, {}).looks_at_addresses
        observation = read_flows(given.parent / "flows.jsonl", by_address=by_address)
        evaluator = Evaluator(policies, namespaces_of(observation))
        result = check(evaluator, flows_of(observation, settings_of(given.parent)))
        shown = "".join(f"{line}\n" for line in show(result, observation.span_ns(), everything=True))
        golden = given.with_name(f"check-{given.stem}.txt")
        if os.environ.get("SNAPSHOTS") == "write":
            golden.write_text(shown)
        assert shown == golden.read_text()


@pytest.mark.parametrize("name", TAKEN)
def test_what_it_denies_is_warned_about(name: str) -> None:
    """In each situation the advice denies nothing that was seen but what a warning names, and no rule of it is unused."""
    folder = GOLDEN / name
    observation, settings = read_flows(folder / "flows.jsonl", by_address=True), settings_of(folder)
    advice = advise(observation, settings)
    evaluator = Evaluator([policy.to_dict() for policy in advice.policies], namespaces_of(observation))
    result = check(evaluator, flows_of(observation, settings))
    warned = {each.text.partition(", ")[0] for each in advice.warnings}
    denied = {f"WILL BE DENIED: {each.source} → {each.target}:{each.port}/{each.protocol}" for each in result.denied}
    assert denied <= warned
    assert result.unused == [] or settings.failed  # what failed is judged by none
