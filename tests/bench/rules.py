"""What rules cost: Falco's own, on opens of many processes and files as they come from a node, and on audit events."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from gadget.rules.audit import AuditEvent
from gadget.rules.batch import BatchRules, EventBatch, Rows
from gadget.rules.cost import a_file, a_process
from gadget.rules.ruleset import Ruleset, load
from tests.bench import Figure, Goal, Plan
from tests.unit.rules.test_facts import DATA, STOCK

EVENTS, AT_ONCE = 100_000, 10_000
PROCESSES, FILES = 200, 2_000
#: What rules are about, as the names of files that are opened.
ASKED = ("/etc/shadow", "/etc/pam.d/{}", "/root/.ssh/id_{}", "/usr/bin/tool-{}", "/proc/{}/environ", "/var/log/wtmp-{}.log",
         "/etc/sudoers.d/{}", "/dev/shm/{}", "/home/jane/.bash_history-{}", "/etc/cron.d/{}")  # fmt: skip
OPENS = ("open", "openat")
_NOT_THERE = "Falco's rule files are not there: GADGET_FALCO_DATA"


def measure(plan: Plan) -> Iterator[Figure]:
    """Microseconds of one core for an event."""
    for row, names, goal in (("stable rules", STOCK[:1], 0.6), ("all 93 rules", STOCK[:4], 1.5)):
        if not DATA.is_dir():
            yield Figure(f"{row}, an open", "µs", [], why=_NOT_THERE)
            continue
        rules = _stock(names)
        for what, file in (("an open", a_file), ("an open of what rules are about", _asked)):
            yield Figure(f"{row}, {what}", "µs", [_opens(rules, file) for _ in range(plan.rounds)], goal=Goal(goal))
    if DATA.is_dir():
        yield Figure("48 rules, an audit event", "µs", [_audit() for _ in range(plan.rounds)])
        yield Figure("loading all files", "s", [_load_seconds() for _ in range(plan.rounds)])


def _stock(names: list[str]) -> Ruleset:
    return load([(name, (DATA / f"{name}.yaml").read_text()) for name in names])


def _opens(rules: Ruleset, file: Callable[[int], dict[str, Any]]) -> float:
    choose = np.random.default_rng(7)
    calls = list(_calls())
    tables = (Rows(calls), Rows(list(map(a_process, range(PROCESSES)))), Rows(list(map(file, range(FILES)))))
    quick = BatchRules(rules, tables)
    batches = []
    for _ in range(EVENTS // AT_ONCE):
        ids = tuple(choose.integers(0, len(table.rows), AT_ONCE, np.uint32) for table in tables)
        types = np.array([OPENS.index(calls[at]["evt.type"]) for at in ids[0].tolist()])
        batches.append(EventBatch(OPENS, types, ids, [{}] * AT_ONCE))  # type: ignore[arg-type]
    quick.matching(batches[0])  # what is asked for the first time is asked once in a day
    began = time.process_time()
    for batch in batches:
        quick.matching(batch)
    return (time.process_time() - began) / EVENTS * 1e6


def _calls() -> Iterator[dict[str, Any]]:
    for name in OPENS:
        for descriptor in range(3, 40):
            for writes in (False, False, False, True):
                yield {"evt.type": name, "evt.is_open_read": not writes, "evt.is_open_write": writes, "fd.num": descriptor,
                       "evt.is_open_exec": False, "evt.rawres": descriptor, "evt.res": "SUCCESS",
                       "evt.arg.flags": "O_WRONLY|O_CREAT" if writes else "O_RDONLY"}  # fmt: skip


def _asked(at: int) -> dict[str, Any]:
    """A file that a path of a rule holds for, so that the process is asked about, too."""
    path = ASKED[at % len(ASKED)].format(at)
    folder, _, name = path.rpartition("/")
    return {**a_file(at), "fd.name": path, "fd.directory": folder, "fd.filename": name}


def _audit() -> float:
    rules = _stock(STOCK[4:])
    lines = [orjson.loads(line)["audit"] for line in Path(DATA / "audit_dev.jsonl").read_bytes().splitlines()]
    began = time.process_time()
    for number, line in enumerate(lines * 20):
        rules.matching(AuditEvent(line, number), "k8s_audit")
    return (time.process_time() - began) / (20 * len(lines)) * 1e6


def _load_seconds() -> float:
    began = time.process_time()
    _stock(STOCK)
    return time.process_time() - began
