"""Replies of an agent about a recording, from records that a test names."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from agent.traceloop import rings
from gadget import catalog, syscalls
from gadget._generated import gadget_pb2 as pb

KINDS = catalog.constants("traceloop", "kind")
NO_DATA = rings.NO_DATA


def record(
    sequence: int, kind: str = "KIND_CALL", name: str = "getpid", text: bytes | None = None, **values: Any
) -> np.void:
    """A record of a call at a position; text is what is kept beside its arguments, for the first that has any."""
    row = np.zeros(1, catalog.record("traceloop", "call"))[0]
    number = syscalls.numbers("x86_64")[name]
    count = 0 if kind == "KIND_EXEC" else len(syscalls.find("x86_64", number).arguments)
    row["sequence"], row["count"], row["time"] = sequence << 2, sequence, sequence * 1000
    row["number"], row["shape"], row["length"] = number, KINDS[kind] | count << 4, NO_DATA
    row["pid"] = row["tid"] = 7
    row["comm"] = b"cart"
    for field, value in values.items():
        if field == "args":
            row["args"][: len(value)] = value
        else:
            row[field] = value
    if text is None:
        return row
    data = bytearray(row.tobytes())
    start = row.dtype.fields["args"][1] + count * 8
    data[start : start + len(text)] = text
    packed: np.void = np.frombuffer(bytes(data), row.dtype)[0].copy()
    packed["length"] = len(text)
    capture = syscalls.plan("x86_64").get(number)
    packed["argument"] |= capture[0].argument if capture and kind != "KIND_EXEC" else 0
    return packed


def further(owner: int, argument: int, part: int, text: bytes, left: int = 0) -> np.void:
    """A further slot of a call's text."""
    row = np.zeros(1, catalog.record("traceloop", "more"))[0]
    row["owner"], row["argument"], row["part"], row["left"] = owner << 2, argument, part, left
    row["length"], row["data"] = len(text), text
    return row


def reply(*records: np.void, more: tuple[np.void, ...] = (), **values: Any) -> pb.TraceloopReadReply:
    """What an agent answers."""
    calls, texts = (b"".join(each.tobytes() for each in rows) for rows in (records, more))
    layout = orjson.dumps(rings.own_layout()).decode()
    given: dict[str, Any] = {"layout": layout, "machine": "x86_64", "calls": calls, "more": texts, **values}
    return pb.TraceloopReadReply(**given)
