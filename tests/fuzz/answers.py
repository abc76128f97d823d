"""What agents answer, up to the bytes that reach a terminal: batches, schemas, layouts, and replies of every kind."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import msgspec
import orjson

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.checks import check_batch, parse_schema
from gadget.errors import GadgetError
from gadget.rows import Decoder
from gadget.schema import Schema
from kubectl_gadget import about
from kubectl_gadget.advise import collect
from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.advise.render import render_yaml
from kubectl_gadget.agents import wire
from kubectl_gadget.agents.targets import Agent
from kubectl_gadget.output import all_fields, all_forms, make_output
from kubectl_gadget.output.encode import encode
from kubectl_gadget.stream import containers
from kubectl_gadget.stream.replies import RunCheck
from kubectl_gadget.stream.request import Request, make_request
from kubectl_gadget.traceloop import commands, instances
from kubectl_gadget.traceloop.calls import ReplyReader
from kubectl_gadget.traceloop.show import View
from kubectl_gadget.traceloop.show import make_output as make_reader_output
from tests.unit.rows import batch as some_events
from tests.unit.traceloop.replies import record, reply

#: Bytes of output for each byte of input, and some for the keys of JSON: a text may be in two fields of a row, and a byte
#: of it be six letters.
AMPLIFIED, BESIDE = 64, 1 << 16
#: CSV is made visible on a terminal alone: a file has what the process chose.
SHOWN = [form for form in all_forms() if form not in ("csv", "format")]
GADGETS = tuple(catalog.load().values())


@contextlib.contextmanager
def safe_output() -> Iterator[io.BytesIO]:
    """Standard output that must be fit for a terminal."""
    written = io.BytesIO()
    wrapper = io.TextIOWrapper(written, encoding="utf-8", write_through=True)
    with contextlib.redirect_stdout(wrapper):
        yield written
    wrapper.detach()
    text = written.getvalue().decode()
    assert text.replace("\n", "").isprintable(), text


@cache
def _request(number: int) -> Request:
    return make_request(GADGETS[number], {}, "json", "", (), "")


def _show(schema: Schema, given: pb.Batch, own: Schema, size: int) -> None:
    fields = [item for item in all_fields(own).values() if item.name in all_fields(schema)]
    rows = Decoder("node-a", schema).rows(given, [item.name for item in fields], lambda table: None)
    for form in SHOWN:
        with safe_output() as written:
            output = make_output(form, fields, {})
            output.start([])
            if rows:
                output.write([row for _, row, _ in rows])
        if form == "json":
            lines = written.getvalue().splitlines()
            assert len(lines) == len(rows)
            assert len(written.getvalue()) <= AMPLIFIED * size + BESIDE * max(len(rows), 1)
            for line in lines:
                json.loads(line)


def batch(data: bytes) -> None:
    """A batch in the layout of a gadget, which the first byte chooses."""
    number = data[0] % len(GADGETS) if data else 0
    own = GADGETS[number].schema
    check = RunCheck(_request(number), "node-a")
    check(pb.RunReply(started=pb.Started(schema=orjson.dumps(own.to_json()).decode())))
    with contextlib.suppress(GadgetError, ValueError):
        given, _ = wire.parse(pb.RunReply, data[1:])
        check(given)
        given.batch.clock_offset_ns %= 1 << 62
        _show(own, given.batch, own, len(data))


def schema(data: bytes) -> None:
    """A schema from an agent, and rows in it: of zeros, and of text."""
    own = GADGETS[0].schema
    started = pb.RunReply(node="node-a", started=pb.Started(schema=data.decode(errors="replace")))
    with contextlib.suppress(GadgetError):
        RunCheck(_request(0), "")(started)
        found = parse_schema("node-a", started.started.schema)
        size = found.text_offset + 64
        for rows in (bytes(size * 2), b"ab\0\xff" * (size // 2)):
            given = pb.Batch(sections=[pb.Section(record_size=size, count=2, rows=rows[: size * 2])])
            check_batch("node-a", found, given)
            _show(found, given, own, len(data) + len(rows))


def layout(data: bytes) -> None:
    """The layout of a ring's records, before some of ours."""
    given = reply(record(1, name="access", text=b"/etc"), record(2, "KIND_PROCESS_EXIT", result=11))
    given.layout = data.decode(errors="replace")
    with contextlib.suppress(GadgetError), safe_output():
        entries = ReplyReader().entries(given)
        for form in ("columns", "json"):
            make_reader_output(View(form=form, durations=True)).entries(entries)


def answer(data: bytes) -> None:
    """A reply to a question about containers, recordings, flows or the agent; the first byte chooses."""
    agent, kinds = Agent("node-a", ""), (pb.ContainersReply, pb.DescribeReply, pb.TraceloopListReply, pb.FlowsReply)
    try:
        given: Any = wire.parse(kinds[data[0] % len(kinds) if data else 0], data[1:])[0]
    except ValueError:
        return
    if isinstance(given, pb.FlowsReply):
        with contextlib.suppress(GadgetError, ValueError):
            heard = collect._read(agent, [given], 1 << 60)
            for flow in heard.flows:
                encode(msgspec.structs.asdict(flow))
            text = render_yaml(advise(Observation(heard.context, heard.flows)))
            assert text.replace("\n", "").isprintable(), text
        return
    if isinstance(given, pb.ContainersReply):
        fields, rows = containers.FIELDS, containers.rows(given)
    elif isinstance(given, pb.DescribeReply):
        fields, rows = [*about.FIELDS, *about.WIDE], [about._row("node-a", given)]
    else:
        found = [instances.Instance(agent, given.node, item) for item in given.items]
        fields, rows = [*commands.FIELDS, *commands.MORE_FIELDS], [commands._row(each, {}) for each in found]
    for form in SHOWN:
        with safe_output():
            output = make_output(form, fields, {})
            output.start([], rows)
            if rows:
                output.write(rows)


def text(data: bytes) -> None:
    """Text of a process, as JSON and as all else."""
    value = data.decode(errors="backslashreplace")
    for indent in (False, True):
        shown = encode({"a": value, value: [value]}, indent=indent).decode()
        assert shown.replace("\n", "").isprintable() and json.loads(shown) == {"a": value, value: [value]}


def some_batch() -> bytes:
    """Three execs."""
    number = [each.name for each in GADGETS].index("execsnoop")
    return bytes([number]) + pb.RunReply(node="node-a", batch=some_events()).SerializeToString()


def some_layout() -> bytes:
    """That of our own rings."""
    return reply().layout.encode()


def some_answer() -> bytes:
    """The flows of a pod."""
    peer = bytes(10) + b"\xff\xff\x0a\xf4\0\x09"
    flow = pb.Flow(uid="u", protocol=6, peer=peer, local=peer, port=80, count=1, first_ns=1, last_ns=2)
    pod = pb.FlowPod(uid="u", namespace="shop", name="cart-0", labels={"app": "cart"}, addresses=["10.244.0.1"])
    given = pb.FlowsReply(node="node-a", head=pb.FlowsHead(addresses=["192.0.2.1"]), pods=[pod], flows=[flow])
    return b"\3" + given.SerializeToString()
