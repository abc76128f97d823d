"""The events that rules judge, as they leave the kernel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from agent.containers.tracker import Tracker
from agent.run.runs import begin
from agent.selection import Selection
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.rows import Table

GADGET = catalog.find("detect")
Rows = list[dict[str, Any]]


@contextmanager
def watching(**settings: str) -> Iterator[Rows]:
    """The events of all that happens inside, when it is over."""
    rows: Rows = []
    with closing(Tracker()) as tracker:
        run = begin(GADGET, {"host": "true", **settings}, tracker, Selection.of(pb.Selection()))
        with closing(run.first) as subscriber:
            yield rows
            subscriber.finish()
            for batch in subscriber.batches():
                assert not batch.losses
                for section in batch.sections:
                    rows += rows_of(Table(GADGET.schema, section, {}, "", 0))
    rows.sort(key=lambda row: row["timestamp"])


def rows_of(table: Table) -> Rows:
    columns = {field.name: table.column(field.name) for field in GADGET.schema.fields}
    words = GADGET.schema["call"].values
    columns["call"] = [words[str(call)] for call in columns["call"]]
    columns["fd_type"] = [chr(letter) if letter else "" for letter in columns["fd_type"]]
    for name in ("src", "dst"):
        columns[name] = [f"{end.addr} {end.port}" if end else "" for end in columns[name]]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
