"""Exceptions from alerts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from tests.conftest import run_cli
from tests.unit.rules.test_rules import loaded, rule

SHELL = rule("evt.type = execve and proc.name = sh", name="'Shell: here'")


def alert(rule: str, **fields: str | None) -> dict[str, Any]:
    named = {name.replace("__", "."): value for name, value in fields.items()}
    return {"rule": rule, "priority": "Warning", "output_fields": named}


def tune(folder: Path, alerts: list[Mapping[str, Any]], *more: str) -> Any:
    path = folder / "alerts.jsonl"
    path.write_bytes(b"\n".join(map(orjson.dumps, alerts)))
    return run_cli("detect", "tune", str(path), *more)


def test_tune(tmp_path: Path) -> None:
    """I get exceptions for what fires again and again, each with its count; with them, that is silent and the rest is not."""
    often = alert(
        "Shell: here", proc__name="sh", proc__pname="node", container__image__repository='shop/"web"', proc__pid="1"
    )
    once = alert("Shell: here", proc__name="sh", proc__pname="nginx", container__image__repository="shop/cart")
    (tmp_path / "rules.yaml").write_text(SHELL)
    done = tune(tmp_path, [often] * 7 + [once], "--rules", str(tmp_path / "rules.yaml"))
    assert done.returncode == 0
    assert done.stdout.splitlines()[1:] == [
        '- rule: "Shell: here"',
        "  exceptions:",
        "    - name: tuned_1",
        "      fields: [proc.name, proc.pname, container.image.repository]",
        "      comps: [=, =, =]",
        "      values:",
        r"""        - ['"sh"', '"node"', '"shop/\"web\""']  # 7 of 8 alerts""",
        "  override: {exceptions: append}",
    ]
    assert done.stderr == "Shell: here: 1 of 8 alerts left\n"
    tuned = loaded(SHELL, done.stdout)
    assert not tuned.matching({"evt.type": "execve", **often["output_fields"]})
    assert tuned.matching({"evt.type": "execve", **once["output_fields"]})


def test_too_little_in_common(tmp_path: Path) -> None:
    """A program's name alone makes no exception: it would hide too much."""
    done = tune(tmp_path, [alert("Shell: here", proc__name="sh", proc__pname=None)] * 9)
    assert done.stdout == ""
    assert done.stderr == "Shell: here: 9 of 9 alerts left (no exception fits enough of them)\n"


def test_several_values(tmp_path: Path) -> None:
    """Exceptions of a rule that name the same fields are one, with a value each, those that remove most first."""
    some = [
        alert("Secret read", ka__user__name=name, ka__target__namespace="shop", ka__verb="get") for name in "aab" * 4
    ]
    done = tune(tmp_path, some, "--least", "2")
    assert done.stdout.count("- name:") == 1
    assert [line.strip() for line in done.stdout.splitlines() if " # " in line] == [
        """- ['"a"', '"shop"']  # 8 of 12 alerts""",
        """- ['"b"', '"shop"']  # 4 of 12 alerts""",
    ]


def test_no_alerts(tmp_path: Path) -> None:
    """A file that has no alerts is one clear line, with the line's number."""
    path = tmp_path / "alerts.jsonl"
    path.write_text('{"rule": "a", "output_fields": {}}\n{"a": 1}\n')
    done = run_cli("detect", "tune", str(path))
    assert done.returncode == 2
    assert done.stderr == f"error: {path}: line 2 is no alert: it has no rule, or no output_fields\n"


def test_of_alerts_and_detect(tmp_path: Path) -> None:
    """What `alerts -o json` and `detect -o json` say of several events at once counts as so many."""
    fields = {"proc.name": "sh", "proc.pname": "node", "evt.count": 4}
    falco = {"rule": "Shell: here", "priority": "Warning", "output_fields": fields}
    done = tune(tmp_path, [falco, {**falco, "count": 3}])
    assert "# 7 of 7 alerts" in done.stdout and done.stderr == "Shell: here: 0 of 7 alerts left\n"
    odd = {**falco, "count": "x"}
    assert "(--least 5 asks for more)" in tune(tmp_path, [odd]).stderr


def test_not_json() -> None:
    """When I give it the lines that I see I learn how to get those that it reads."""
    done = run_cli("detect", "tune", "-", input="20:00:00  Warning  Shell\n")
    assert done.returncode == 2 and "-: line 1 is no JSON, which alerts are with -o json" in done.stderr
    assert "`kubectl gadget alerts -o json`" in run_cli("detect", "tune", "-", input="").stderr
