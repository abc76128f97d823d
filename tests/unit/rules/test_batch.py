"""Rules applied to many events at once say what they say of each alone."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pytest

from gadget.rules.batch import BatchRules, EventBatch, Rows, table_of
from gadget.rules.checks import folded
from gadget.rules.explain import text
from gadget.rules.parser import parse
from gadget.rules.ruleset import Ruleset
from gadget.rules.verify import typed
from tests.unit.rules.test_facts import DATA, stock
from tests.unit.rules.test_rules import loaded, rule

CONDITIONS = [
    "evt.type = openat and proc.name = sh and fd.name startswith /etc",
    "evt.type in (open, openat) and not (proc.name = sh or fd.name = /etc/passwd)",
    "evt.type = execve and (proc.tty != 0 or fd.num > 3) and not proc.pname exists",
    "evt.type != connect and fd.name contains val(proc.name)",
    "evt.type = openat and (fd.name = /etc/passwd and proc.name = sh or fd.name = /tmp/x and proc.name = vi)",
    "evt.type = openat and not evt.num = 0 and not (proc.name = vi and evt.num > 50)",
    "evt.num >= 0",
    "evt.type = openat and evt.num = 0",
    "not evt.type = execve and proc.aname = init",
]


def rules() -> Ruleset:
    return loaded(
        "".join(rule(f"'{each}'", "  warn_evttypes: false\n", f"r{at}") for at, each in enumerate(CONDITIONS))
    )


def events(number: int) -> list[dict[str, Any]]:
    """Events of a few processes and files; some have no name, or no file."""
    choose = random.Random(7)
    found: list[dict[str, Any]] = []
    for at in range(number):
        event = {
            "evt.type": choose.choice(["open", "openat", "execve", "connect"]),
            "fd.num": choose.randint(-1, 9),
            "proc.name": choose.choice(["sh", "vi", "etc"]),
            "proc.tty": choose.choice([0, 34816]),
            "fd.name": choose.choice(["/etc/passwd", "/tmp/x", "/home/sh", None]),
            "proc.pname": choose.choice(["init", None]),
            "proc.aname": choose.choice([("init",), ("sh", "init"), None]),
            "evt.num": at + 1,
        }
        found.append({key: value for key, value in event.items() if value is not None})
    return found


def batch_of(events: Sequence[Mapping[str, Any]], tables: tuple[Rows, Rows, Rows]) -> EventBatch:
    """Events as a batch, their rows interned."""
    known: tuple[dict[str, int], ...] = ({}, {}, {})
    ids: tuple[list[int], ...] = ([], [], [])
    own = []
    for event in events:
        parts: tuple[dict[str, Any], ...] = ({}, {}, {}, {})
        for key, value in event.items():
            parts[table_of(key.partition("[")[0])][key] = value
        for table, rows, names, found in zip(tables, parts, known, ids, strict=False):
            key = repr(sorted(rows.items()))
            if key not in names:
                names[key] = table.add(rows)
            found.append(names[key])
        own.append(parts[3])
    columns = tuple(np.array(each, np.uint32) for each in ids)
    types = sorted({event["evt.type"] for event in events})
    return EventBatch(types, np.array([types.index(event["evt.type"]) for event in events]), columns, own)  # type: ignore[arg-type]


def judged(rules: BatchRules, batch: EventBatch) -> list[list[str]]:
    """The names of the rules that fire, by event."""
    found: list[list[str]] = [[] for _ in range(len(batch))]
    for each, places in rules.matching(batch):
        for place in places.tolist():
            found[place].append(each.name)
    return found


@pytest.mark.parametrize("first", [False, True])
def test_same_as_alone(first: bool) -> None:
    """An event gets the same alerts among 10,000 others as alone."""
    some, every = events(10_000), rules()
    tables = (Rows(), Rows(), Rows())
    quick = BatchRules(every, tables, first=first)
    for start in range(0, len(some), 2_500):
        part = some[start : start + 2_500]
        for table in tables:
            table.clear()  # as where it was full
        alone = [[each.name for each in every.matching(event, first=first)] for event in part]
        assert judged(quick, batch_of(part, tables)) == alone


def test_asked_once() -> None:
    """A question about a process is asked once, however many files it opens."""
    asked = []

    class Process(dict[str, Any]):
        def get(self, key: str, default: Any = None, /) -> Any:
            asked.append(key)
            return super().get(key, default)

    tables = (Rows([{"evt.type": "openat"}]), Rows([Process({"proc.name": "sh"})]), Rows([{"fd.name": f"/etc/{at}"} for at in range(100)]))  # fmt: skip
    zeros = np.zeros(100, np.uint32)
    batch = EventBatch(["openat"], np.zeros(100, int), (zeros, zeros, np.arange(100, dtype=np.uint32)), [{}] * 100)
    quick = BatchRules(loaded(rule(f"'{CONDITIONS[0]}'")), tables)
    assert [len(places) for _, places in quick.matching(batch)] == [100]
    assert asked == ["proc.name"]


@pytest.mark.parametrize("first", [False, True])
def test_stock(first: bool) -> None:
    """Falco's own rules fire on the same events in a batch as in Falco."""
    every = stock()
    lines = [orjson.loads(line) for line in (DATA / "corpus_dev.jsonl").read_bytes().splitlines()]
    some = [line for line in lines if line["source"] == "syscall" and "evt.type" in line["event"]]
    assert len(some) > 900
    tables = (Rows(), Rows(), Rows())
    batch = batch_of([typed(line["event"], "syscall") for line in some], tables)
    wanted = [line["first" if first else "all"] for line in some]
    assert judged(BatchRules(every, tables, first=first), batch) == wanted


@pytest.mark.parametrize(("condition", "rest"), [
    ("evt.num = 0 and proc.name = a", False),
    ("evt.num > 0 or proc.name = a", True),
    ("not evt.num = 0 and proc.name = a", "proc.name = a"),
    ("(evt.num = 0 or proc.name = a) and not proc.args in ()", "proc.name = a"),
    ("not (evt.num >= 1)", False),
    ("evt.num > 3 and proc.name = a", "evt.num > 3 and proc.name = a"),
])  # fmt: skip
def test_folded(condition: str, rest: bool | str) -> None:
    """What a rule file switches off by the number of an event, which is never 0, costs nothing."""
    found = folded(parse(condition))
    assert (found if isinstance(found, bool) else text(found)) == rest
