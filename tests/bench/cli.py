"""The command line: start-up, time to the first event, rows per second."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.rows import Decoder
from kubectl_gadget.output import choose_fields, make_output
from tests.bench import Result
from tests.conftest import CLI
from tests.unit.rows import batch

ROWS = 3000
#: As users have it: compiled modules are kept, which this variable forbids
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def help_text() -> Result:
    """From Enter to the end of --help."""

    def once() -> float:
        began = time.perf_counter()
        subprocess.run([CLI, "--help"], stdout=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
        return (time.perf_counter() - began) * 1000

    return "ms", [once() for _ in range(9)]


def first_event() -> Result:
    """From Enter to the first event of a busy machine, with an agent that has to be started."""
    loop = subprocess.Popen(["sh", "-c", "while /bin/true; do :; done"])

    def once() -> float:
        began = time.perf_counter()
        command = [CLI, "execsnoop", "--local", "--host", "-o", "json", "--max-events", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT) as shown:
            assert shown.stdout
            shown.stdout.readline()
            return (time.perf_counter() - began) * 1000

    try:
        return "ms", [once() for _ in range(5)]
    finally:
        loop.kill()
        loop.wait()


def _rows(form: str) -> Result:
    gadget = catalog.find("execsnoop")
    fields = choose_fields(gadget, form, "", [])
    output = make_output(form, fields, gadget.headers)
    few = batch()
    section = few.sections[0]
    times = ROWS // section.count
    many = pb.Batch(
        sections=[pb.Section(record_size=section.record_size, count=ROWS, rows=section.rows * times)],
        containers=few.containers,
    )
    decoder = Decoder("node-a", gadget.schema)
    names = [field.name for field in fields]
    standard, values = sys.stdout, []
    for _ in range(9):
        sys.stdout = io.TextIOWrapper(io.BytesIO())
        began = time.process_time()
        output.write([row for _, row in decoder.rows(many, names, lambda table: None)])
        values.append((time.process_time() - began) / ROWS * 1e6)
        sys.stdout = standard
    return "µs/row", values


def json_rows() -> Result:
    """CPU to decode and write one execsnoop event as JSON, all fields."""
    return _rows("json")


def column_rows() -> Result:
    """CPU to decode and write one execsnoop event in columns."""
    return _rows("columns")
