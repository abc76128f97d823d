"""Every table on terminals of six widths, pinned in tests/unit/snapshots/*.screens: `make snapshots` after a change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unreachable
from gadget.rows import Decoder
from gadget.schema import Column
from kubectl_gadget import about
from kubectl_gadget.agents.targets import Agent
from kubectl_gadget.output import Look, Output, choose_fields, make_output
from kubectl_gadget.output.counts import COUNT
from kubectl_gadget.output.forms.columns import Columns
from kubectl_gadget.story.kinds import all_kinds
from kubectl_gadget.story.lines import StoryLines, Teller
from kubectl_gadget.stream import containers
from kubectl_gadget.traceloop import commands as traceloop
from kubectl_gadget.traceloop.instances import Instance
from tests.unit.test_layout import screen
from tests.unit.test_snapshots import ANY, CLOCK, EVENTS, SNAPSHOTS, batch

WIDTHS = (40, 60, 80, 100, 120, 200)
SECOND = 1_000_000_000
POD = "cart-6c9f7d5b8-x2x7l"
IDS = ("7a4be1c09f21" + "0" * 52, "0c81d2aa37fe" + "1" * 52)


def whole(output: Output, rows: list[Any]) -> None:
    """Write a table that is known from the beginning."""
    output.start([], rows)
    output.write(rows)


def stream(name: str) -> None:
    """A stream of a gadget's events in one namespace of one node."""
    gadget = catalog.find(name)
    fields = choose_fields(gadget, "columns", "", [])
    sent = batch(gadget, EVENTS.get(name, ANY))
    sent.containers[0].pod = POD
    timed = Decoder("node-a", gadget.schema).rows(sent, [field.name for field in fields], lambda table: None)
    look = Look(narrow=gadget.narrow, fixed={"node": "node-a", "namespace": "shop"})
    output = make_output("columns", fields, {}, look)
    output.start([("node-a", "shop", POD, "cart", "a" * 64)])
    output.write([row for _, row, _ in timed])


def status() -> None:
    """`status`, of two agents of which one does not answer."""
    reply = pb.DescribeReply(
        node="node-a", version="0.1.0", kernel="6.12.48-amd64", btf=True, cgroups="v2", containers=31, contract=0,
        memory_bytes=98 << 20, traceloop="28 containers", flows="1204 flows", runs=[pb.RunStatus(events=18_204, rate=2.5)],
    )  # fmt: skip
    failed = Unreachable("node-b: no agent (pod gadget-7xk is Pending: Insufficient cpu)")
    rows = [about._row("node-a", reply), about._row("node-b", failed)]
    rows = [row[: len(about.FIELDS)] for row in rows]
    rows[0] = (rows[0][0], "ready", *rows[0][2:])
    whole(make_output("columns", about.FIELDS, {"btf": "BTF", "rate": "EVENTS/S"}, about.LOOK), rows)


def recordings() -> None:
    """`traceloop list`."""
    running = pb.TraceloopItem(running=True, calls=184_220, first_ns=CLOCK, last_ns=CLOCK + 131 * SECOND)
    crashed = pb.TraceloopItem(
        status=139, calls=41_877, first_ns=CLOCK, last_ns=CLOCK + 2 * SECOND, ended_ns=CLOCK + 2 * SECOND
    )
    rows = []
    for item, identity, pod in ((running, IDS[0], POD), (crashed, IDS[1], POD), (running, "5" * 64, "web-0")):
        who = pb.Container(namespace="shop", pod=pod, container=pod[:4], id=identity)
        copy = pb.TraceloopItem()
        copy.CopyFrom(item)
        copy.container.CopyFrom(who)
        why = {("", 0): "it read from address 0x18, which it has not mapped"} if item is crashed else {}
        rows.append(traceloop._row(Instance(Agent("", ""), "node-a", copy), why)[: len(traceloop.FIELDS)])
    look = Look(narrow=("span", "calls", "containerId"), failed={"state": traceloop._is_bad})
    whole(make_output("columns", traceloop.FIELDS, {}, look), rows)


def known_containers() -> None:
    """`containers`."""
    fields = [field for field in containers.FIELDS if field.name in containers.COLUMNS]
    items = [
        pb.ContainerState(
            container=pb.Container(namespace=namespace, pod=pod, container=name, id=IDS[0], runtime="containerd", cgroup_id=93_811),
            started_ns=CLOCK,
        )
        for namespace, pod, name in (("shop", POD, "cart"), ("shop", POD, "istio-proxy"), ("web", "web-0", "nginx"))
    ]  # fmt: skip
    rows = containers.rows(pb.ContainersReply(node="node-a", containers=items))
    at = [[field.name for field in containers.FIELDS].index(field.name) for field in fields]
    output = make_output("columns", fields, {"cgroup_id": "CGROUP"}, containers.LOOK)
    whole(output, [tuple(row[index] for index in at) for row in rows])


def gadgets() -> None:
    """`list`."""
    fields = [Column(name, "identity") for name in ("name", "group", "title")]
    whole(make_output("columns", fields, {}), [(item.name, item.group, item.title) for item in catalog.load().values()])


def counts() -> None:
    """The table of --count-by."""
    schema = catalog.find("opensnoop").schema
    rows = [
        (18_446_744_073_709_551_615, "python3", "/usr/lib/python3/dist-packages/" + "x" * 150),
        (3, "cat", "/etc/hosts"),
    ]
    whole(Columns([COUNT, schema["comm"], schema["path"]], {}), rows)


def story() -> None:
    """`story`, of events of every kind in one pod, and then of one in another."""
    rows: list[Any] = []
    for gadget, told in all_kinds().values():
        teller = Teller(gadget, told, gadget.schema, every=False)
        sent = batch(gadget, EVENTS.get(gadget.name, ANY))
        sent.containers[0].pod = POD
        names = [item.name for item in teller.fields]
        timed = Decoder("node-a", gadget.schema).rows(sent, names, lambda table: None)
        rows += [(teller, (CLOCK + len(rows) * 17_000_000 + at, *row[1:])) for at, (_, row, _) in enumerate(timed)]
    output = StoryLines([*all_kinds()])
    output.start([("node-a", "shop", POD, "cart", "a" * 64)])
    output.write(rows)
    teller, values = rows[0]
    output.write([(teller, (CLOCK + SECOND, "shop", "web-0", "nginx", *values[4:])), rows[-1]])


TABLES: dict[str, Callable[[], None]] = {
    **{name: (lambda name=name: stream(name)) for name in catalog.load()},
    "status": status,
    "traceloop-list": recordings,
    "containers": known_containers,
    "list": gadgets,
    "count-by": counts,
    "story": story,
}


@pytest.mark.parametrize("name", TABLES)
def test_screens(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each table fits terminals of 40 to 200 columns, and looks as it did unless that is meant to change."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("gadget.kinds.times.time_ns", lambda: CLOCK + 14 * SECOND)
    time.tzset()
    shown = []
    for columns in WIDTHS:
        with screen(columns) as terminal:
            TABLES[name]()
            shown += [f"== {columns} columns", *terminal.lines]
            assert max(map(len, terminal.lines)) <= columns
    text = "\n".join(shown) + "\n"
    snapshot = SNAPSHOTS / f"{name}.screens"
    if os.environ.get("SNAPSHOTS") == "write":
        snapshot.write_text(text)
    assert text == snapshot.read_text()
