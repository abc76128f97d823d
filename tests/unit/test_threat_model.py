"""docs/threat-model.md: what is promised there is tried."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/threat-model.md").read_text()


def known() -> set[str]:
    """The names of all tests that there are."""
    found = set()
    for path in ROOT.glob("tests/**/test_*.py"):
        found |= {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
    return {name for name in found if name.startswith("test_")}


def named() -> list[str]:
    """What stands between backquotes and looks like a test or a file of tests."""
    return re.findall(r"`((?:tests/[\w/]+/)?test_\w+(?:\.py)?)`", PAGE)


def test_named_tests_exist() -> None:
    """Every test that the threat model names is there."""
    there = known()
    missing = [name for name in named() if not ((ROOT / name).is_file() if "/" in name else name in there)]
    assert not missing
    assert len(set(named())) > 10


def test_every_attack_is_named() -> None:
    """Every test of an attack is in the threat model, so that it says what is tried."""
    attacks = set()
    for path in ROOT.glob("tests/attacks/test_*.py"):
        attacks |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))
    assert len(attacks) > 10
    assert attacks <= set(named())


def test_each_line_has_a_test() -> None:
    """Of what somebody cannot do each line names a test."""
    tables = re.split(r"\n\n", PAGE)
    promises = [table for table in tables if re.match(r"\| (?:it|who \|) cannot", table)]
    lines = [line for table in promises for line in table.splitlines()[2:]]
    assert len(promises) == 2 and len(lines) > 10
    assert [line for line in lines if not re.search(r"`(?:tests/|test_)", line)] == []
