"""The command line: start-up, time to the first event, rows per second."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson

from gadget import CONTRACT, catalog
from gadget._generated import gadget_pb2 as pb
from gadget.memory import expect_batches
from gadget.rows import Decoder
from kubectl_gadget.output import choose_fields, make_output
from kubectl_gadget.stream.recording import Writer
from tests.bench import Plan, Result
from tests.conftest import CLI
from tests.unit.rows import batch

ROWS = 3000
BATCHES = 40
#: Between events: 10,000 a second, of which a batch has those of 300 ms.
APART_NS = 100_000
#: As users have it: compiled modules are kept, which this variable forbids
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def help_text(plan: Plan) -> Result:
    """From Enter to the end of `--help`"""

    def once() -> float:
        began = time.perf_counter()
        subprocess.run([CLI, "--help"], stdout=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
        return (time.perf_counter() - began) * 1000

    return "ms", [once() for _ in range(9)]


def first_event(plan: Plan) -> Result:
    """From Enter to the first event of a busy machine, with an agent that has to be started: `--local`"""
    loop = subprocess.Popen(["sh", "-c", "while /bin/true; do :; done"])

    def once() -> float:
        began = time.perf_counter()
        command = [str(CLI), "execsnoop", "--local", "--host", "-o", "json", "--max-events", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT) as shown:
            assert shown.stdout
            shown.stdout.readline()
            return (time.perf_counter() - began) * 1000

    try:
        return "ms", [once() for _ in range(5)]
    finally:
        loop.kill()
        loop.wait()


def start_up(plan: Plan) -> Result:
    """From Enter to the end of `opensnoop --help`, which reads the catalogue"""

    def once() -> float:
        began = time.perf_counter()
        subprocess.run([CLI, "opensnoop", "--help"], stdout=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
        return (time.perf_counter() - began) * 1000

    return "ms", [once() for _ in range(9)]


def _batch(number: int) -> pb.Batch:
    """The number-th of a stream whose time goes on."""
    few = batch()
    (section,) = few.sections
    schema = catalog.find("execsnoop").schema
    rows = np.frombuffer(section.rows * (ROWS // section.count), schema.dtype(section.record_size)).copy()
    rows["timestamp"] = (number * ROWS + np.arange(ROWS)) * APART_NS
    many = pb.Section(record_size=section.record_size, count=ROWS, rows=rows.tobytes())
    return pb.Batch(sections=[many], containers=few.containers, clock_offset_ns=few.clock_offset_ns)


def _rows(form: str) -> Result:
    expect_batches()  # as the command does
    gadget = catalog.find("execsnoop")
    fields = choose_fields(gadget, form, "", [])
    output = make_output(form, fields, {})
    many = _batch(0)
    decoder = Decoder("node-a", gadget.schema)
    names = [field.name for field in fields]
    standard, values = sys.stdout, []
    for _ in range(9):
        sys.stdout = io.TextIOWrapper(io.BytesIO())
        began = time.process_time()
        output.write([row for _, row, _ in decoder.rows(many, names, lambda table: None)])
        values.append((time.process_time() - began) / ROWS * 1e6)
        sys.stdout = standard
    return "µs/row", values


def json_rows(plan: Plan) -> Result:
    """CPU to decode and write one execsnoop event as JSON, all 22 keys"""
    return _rows("json")


def column_rows(plan: Plan) -> Result:
    """CPU to decode and write one execsnoop event in columns"""
    return _rows("columns")


def replay(plan: Plan) -> Result:
    """`replay -o json` of 120,000 execsnoop events, start-up included"""
    gadget = catalog.find("execsnoop")
    started = pb.Started(schema=orjson.dumps(gadget.schema.to_json()).decode(), contract=CONTRACT)
    batches = [pb.RunReply(node="node-a", batch=_batch(number)) for number in range(BATCHES)]
    replies = [pb.RunReply(node="node-a", started=started), *batches]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recording"
        with Writer(path, "execsnoop") as writer:
            for _ in writer.keep([("node-a", reply) for reply in replies]):
                pass

        def once() -> float:
            began = time.perf_counter()
            command = [str(CLI), "replay", str(path), "-o", "json"]
            shown = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, env=ENVIRONMENT
            )
            assert shown.stdout.count(b"\n") == ROWS * BATCHES
            return ROWS * BATCHES / (time.perf_counter() - began)

        return "/s", [once() for _ in range(plan.rounds)]
