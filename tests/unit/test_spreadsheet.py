"""-o csv."""

from __future__ import annotations

import contextlib
import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gadget import catalog
from gadget.endpoints import Endpoint
from gadget.rows import Decoder
from gadget.schema import Column
from kubectl_gadget.output import choose_fields, make_output
from tests.unit.test_snapshots import ANY, EVENTS, batch


def written(fields: list[Column], rows: list[Any]) -> bytes:
    """What a file gets."""
    file = io.TextIOWrapper(io.BytesIO())
    with contextlib.redirect_stdout(file):
        output = make_output("csv", fields, {})
        output.start([])
        output.start([])
        output.write(rows)
    return file.buffer.getvalue()


@given(st.lists(st.tuples(st.text(), st.lists(st.text(), min_size=1)), min_size=1, max_size=4))
def test_any_text(rows: list[tuple[str, list[str]]]) -> None:
    """Whatever processes put into names, a reader of RFC 4180 gets just that, a row each."""
    fields = [Column("path", "path"), Column("args", "args"), Column("fd", "int")]
    data = written(fields, [(path, args, 3) for path, args in rows]).decode(errors="surrogatepass")
    header, *read = csv.reader(io.StringIO(data, newline=""))
    assert header == ["path", "args", "fd"]
    assert [(path, fd) for path, _, fd in read] == [(path, "3") for path, _ in rows]


def test_kinds() -> None:
    """The header line has JSON's keys, an end of a connection one for each part; what is not known is empty."""
    fields = [
        Column("dst", "endpoint"),
        Column("error", "errno", values={"2": "ENOENT"}),
        Column("late", "bool"),
        Column("args", "args"),
    ]
    rows = [(Endpoint("10.0.0.1", 80, "svc", "shop", "web"), 2, True, ["sh", "-c", "a b"]), (None, 0, False, None)]
    assert written(fields, rows).decode() == (
        "dst.addr,dst.port,dst.kind,dst.namespace,dst.name,error,error_raw,late,args\r\n"
        "10.0.0.1,80,svc,shop,web,ENOENT,2,true,sh -c 'a b'\r\n"
        ",,,,,,0,false,\r\n"
    )


@pytest.mark.parametrize("name", catalog.load())
def test_streams(name: str) -> None:
    """Every gadget's events have as many values as the header line has names."""
    gadget, events = catalog.find(name), EVENTS.get(name, ANY)
    fields = choose_fields(gadget, "csv", "", [])
    timed = Decoder("node-a", gadget.schema).rows(
        batch(gadget, events), [field.name for field in fields], lambda table: None
    )
    data = written(fields, [row for _, row, _ in timed]).decode()
    header, *rows = csv.reader(io.StringIO(data, newline=""))
    assert len(rows) == len(events) and {len(row) for row in rows} == {len(header)}
    assert header[:3] == ["timestamp", "node", "namespace"]
