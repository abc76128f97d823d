"""What Falco's engine says of conditions, files, exceptions, outputs and events: ours says the same."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
import yaml

from gadget.rules import verify
from gadget.rules.ruleset import Ruleset, load
from gadget.rules.verify import FactsVerdict

CASES = Path(__file__).with_name("cases.yaml")
#: Falco's own rule files and events near them, which are not a part of the project.
DATA = Path(os.environ.get("GADGET_FALCO_DATA", Path(__file__).parents[4] / "shared/data/falco"))
STOCK = ["rules/falco_rules", "rules/falco-incubating_rules", "rules/falco-sandbox_rules", "rules_all_enabled",
         "rules/k8s_audit_rules"]  # fmt: skip


def names() -> list[str]:
    """The names of all cases."""
    return [case["name"] for case in yaml.load(CASES.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))]


@cache
def cases() -> dict[str, dict[str, object]]:
    """All cases by name."""
    found = yaml.load(CASES.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {case["name"]: case for case in found}


@pytest.mark.parametrize("name", names())
def test_case(name: str) -> None:
    """Falco's rule language means here what it means there: each fact was checked with Falco's engine."""
    verdict = FactsVerdict()
    verify.judge_case(cases()[name], verdict)
    assert not verdict.wrong


@cache
def stock() -> Ruleset:
    """Falco's own rules, all of them enabled."""
    if not DATA.is_dir():
        pytest.skip(f"Falco's own rules and 1,459 events near them are not in {DATA}: set GADGET_FALCO_DATA")
    return load([(f"{name}.yaml", (DATA / f"{name}.yaml").read_text()) for name in STOCK])


def test_stock_rules() -> None:
    """Falco's own rule files load as they are, without a warning."""
    assert len(stock().rules) == 141
    assert stock().warnings == ()


@pytest.mark.parametrize(("file", "count"), [("corpus_dev.jsonl", 1400), ("audit_dev.jsonl", 59)])
def test_stock_events(file: str, count: int) -> None:
    """Falco's own rules fire on the same events here as there, where the first rule counts and where all do."""
    verdict = verify.verify(DATA / file, stock())
    assert not verdict.wrong
    assert verdict.right == count
