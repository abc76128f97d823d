"""Schemas and batches that make no sense, and messages of too many parts: refused before they are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.checks import check_batch, parse_schema
from gadget.errors import Malformed
from kubectl_gadget.agents import wire
from tests.strangers import EXECS, schema_text
from tests.unit.rows import batch


def field(which: str, /, **changes: Any) -> str:
    """The schema with another field of that name."""
    fields = [replace(item, **changes) if item.name == which else item for item in EXECS.fields]
    return orjson.dumps(replace(EXECS, fields=tuple(fields)).to_json()).decode()


def edited(change: Callable[[Any], None]) -> pb.Batch:
    """A batch of execs in whose rows something was changed."""
    given = batch()
    section = given.sections[0]
    rows = np.frombuffer(section.rows, EXECS.dtype(section.record_size)).copy()
    change(rows)
    section.rows = rows.tobytes()
    return given


def _sections(**changes: Any) -> pb.Batch:
    given = batch()
    for name, value in changes.items():
        setattr(given.sections[0], name, value)
    return given


def _set(name: str, part: str, value: int) -> Callable[[Any], None]:
    def change(rows: Any) -> None:
        rows[name][part] = value

    return change


def _no_bool(rows: Any) -> None:
    rows["args_truncated"].view(np.uint8)[:] = 7


BATCHES = {
    "slice beyond the row": edited(_set("args", "length", 60_000)),
    "slice that begins beyond": edited(_set("exe", "offset", 65_535)),
    "a bool of 7": edited(_no_bool),
    "more rows than bytes": _sections(count=1 << 31),
    "fewer rows than bytes": _sections(count=1),
    "no rows": pb.Batch(sections=[pb.Section(record_size=EXECS.text_offset)]),
    "records of nothing": pb.Batch(sections=[pb.Section(record_size=0, count=1 << 31)]),
    "records without the fields": pb.Batch(sections=[pb.Section(record_size=4, count=2, rows=bytes(8))]),
    "a huge record": pb.Batch(sections=[pb.Section(record_size=1 << 20, count=1, rows=bytes(1 << 20))]),
}
SCHEMAS = {
    "no JSON": "(",
    "a list": "[]",
    "nothing": "{}",
    "no fields": schema_text(fields=[]),
    "text nowhere": schema_text(text_offset=0),
    "text far away": schema_text(text_offset=1 << 40),
    "text before the start": schema_text(text_offset=-8),
    "text as text": schema_text(text_offset="98"),
    "overlap": field("pid", offset=0),
    "beyond the end": field("cwd", offset=1 << 31),
    "before the start": field("pid", offset=-4),
    "huge count": field("pid", count=1 << 30),
    "no count": field("pid", count=0),
    "odd size": field("pid", size=3),
    "huge size": field("comm", size=1 << 31),
    "a list of arguments without parts": field("args", parts=()),
    "an id with parts": field("cgroup_id", parts=EXECS["args"].parts),
    "an id that is a list": field("cgroup_id", doc="", count=2),
    "an end without parts": field("ppid", name="src", kind="endpoint", doc=""),
    "signed places": field("args", parts=tuple(replace(part, signed=True) for part in EXECS["args"].parts)),
    "a name with commands": field("pid", name="a\x1b[2J"),
    "a name twice": field("tid", name="pid"),
    "a word of a megabyte": field("error", values={"1": "x" * (1 << 20)}),
    "a number of many digits": field("error", values={"9" * 5000: "E"}),
    "names where numbers are": field("pid", kind="identity"),
    "objects where numbers are": field("pid", kind="objects"),
    "another kind": field("pid", kind="comm"),
    "no time": field("timestamp", kind="int"),
    "long": '{"' + "x" * (2 << 20) + '": 1}',
    "deep": '{"fields":' + '[{"parts":' * 400 + "[]" + "}]" * 400 + ',"text_offset":9}',
}


@pytest.mark.parametrize("name", BATCHES)
def test_batch(name: str) -> None:
    """Rows that do not fit together are refused before a value is taken out of them."""
    check_batch("node-a", EXECS, batch())
    with pytest.raises(Malformed, match="node-a: its agent sends events that make no sense"):
        check_batch("node-a", EXECS, BATCHES[name])


def test_shared_text() -> None:
    """All paths of an open by handle may be one text, and no row has more text than some times what was sent."""
    schema = catalog.find("opensnoop").schema
    size = schema.text_offset + 64
    rows = np.zeros(1, schema.dtype(size))

    def check() -> None:
        section = pb.Section(record_size=size, count=1, rows=rows.tobytes())
        check_batch("node-a", schema, pb.Batch(sections=[section]), shared=3)

    for slices in (rows["path"], rows["file"], rows["full_path"]["path"]):
        slices["length"] = 64
    check()
    rows["full_path"]["directory"]["length"] = 1
    with pytest.raises(Malformed, match="node-a: its agent sends events that make no sense"):
        check()


@pytest.mark.parametrize("name", [name for name in SCHEMAS if name != "another kind"])
def test_schema(name: str) -> None:
    """A schema that makes no sense is refused, with the name of its node."""
    with pytest.raises(Malformed, match="node-a: its agent's events cannot be read"):
        parse_schema("node-a", SCHEMAS[name])


def test_long_names() -> None:
    """A name of a megabyte is cut, and what is JSON is not; the names of a node's containers that are kept are bounded."""
    long = "x" * (1 << 20)
    who = pb.Container(namespace=long, pod="cart-0")
    started = pb.Started(schema=long, containers=[who])
    flows = pb.FlowsReply(pods=[pb.FlowPod(labels={"a": long, long: "b"}, addresses=[long, "b"])])
    reply, _ = wire.parse(pb.RunReply, pb.RunReply(node=long, started=started).SerializeToString())
    assert reply.started.schema == long
    assert {len(reply.node), len(reply.started.containers[0].namespace)} == {wire.LONGEST_TEXT}
    assert reply.started.containers[0].pod == "cart-0"
    pod = wire.parse(pb.FlowsReply, flows.SerializeToString())[0].pods[0]
    assert max(map(len, [*pod.labels, *pod.labels.values(), *pod.addresses])) == wire.LONGEST_TEXT
