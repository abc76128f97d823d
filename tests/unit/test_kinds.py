"""What kinds of values mean, in one place."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from gadget import catalog
from gadget.kinds import KINDS
from gadget.kinds.base import Described, Kind
from gadget.rows import Decoder
from gadget.schema import Schema
from kubectl_gadget.output import all_fields, make_output
from tests.unit.rows import batch

ROOT = Path(__file__).parents[2]
EXECS = catalog.find("execsnoop").schema


class Half(Kind):
    """A number of halves."""

    is_right = True
    usual = 9

    def text(self, column: Described) -> Callable[[Any], str]:
        return lambda value: f"{value}/2"

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        return {column.name: lambda value: value / 2}

    def digits(self, text: str) -> int:
        return round(float(text) * 2)


def with_kind(kind: str, *names: str) -> Schema:
    fields = [replace(field, kind=kind) if field.name in names else field for field in EXECS.fields]
    return replace(EXECS, fields=tuple(fields))


def shown(schema: Schema, form: str, condition: str, *names: str) -> None:
    from gadget.filters import parse

    rows = Decoder("node-a", schema).rows(batch(), names, parse(condition, schema))
    output = make_output(form, [all_fields(schema)[name] for name in names], {})
    output.start([])
    output.write([row for _, row, _ in rows])


def test_a_kind_is_one_class(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of value is defined once: columns, JSON, filters and all else have it from there."""
    monkeypatch.setitem(KINDS, "half", Half("half"))
    schema = with_kind("half", "pid")
    shown(schema, "columns", "pid>=1.0", "pid", "comm")
    assert capsys.readouterr().out.splitlines() == ["      PID  COMM", "      2/2  ls", "      3/2  nope"]
    shown(schema, "json", "pid==1.5", "pid")
    assert orjson.loads(capsys.readouterr().out) == {"pid": 1.5}


def test_kinds_are_those_of_c() -> None:
    """Whatever a member of an event may be in C is known to the command line."""
    header = (ROOT / "bpf/include/fields.h").read_text()
    names = set(re.findall(r"^typedef .*?gadget_(\w+)(?:\[\d+\])?;", header, re.MULTILINE))
    assert len(names) > 10 and names <= KINDS.keys()


def test_nobody_else_asks_for_kinds() -> None:
    """No other module asks a value for the name of its kind: what a kind means cannot differ from place to place."""
    asks = re.compile(r"\bkind (?:==|!=|in|not in) \(?\"(?:" + "|".join(KINDS) + r")\"")
    modules = [each for folder in ("gadget", "kubectl_gadget", "docs") for each in (ROOT / folder).rglob("*.py")]
    found = [f"{path}: {line}" for path in modules for line in path.read_text().splitlines() if asks.search(line)]
    assert len(modules) > 100 and found == []


def test_kind_of_another_version(capsys: pytest.CaptureFixture[str]) -> None:
    """A number of a kind that only a newer agent knows is shown as it is."""
    shown(with_kind("kind_of_tomorrow", "pid"), "json", "pid>2", "pid")
    assert orjson.loads(capsys.readouterr().out) == {"pid": 3}
