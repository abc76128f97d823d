"""A table of three known events, packed as the kernel packs them."""

from __future__ import annotations

import numpy as np

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.rows import Table

CLOCK = 1_700_000_000_000_000_000
NAMES = {7: ("shop", "cart-0", "cart", "a" * 64), 8: ("web", "web-0", "nginx", "b" * 64)}
#: cgroup, pid, comm, error, truncated, args, exe (leaf first), exe as given
EVENTS = (
    (7, 1, b"sh", 0, False, b"sh\0-c\0true\0", b"sh/bin/", False),
    (8, 2, b"ls", 0, True, b"ls\0\x1b[31mred\0a b\0", b"ls/bin/usr/", False),
    (9, 3, b"nope", 2, False, b"", b"./nope", True),
)


def batch() -> pb.Batch:
    """The events as an agent sends them."""
    schema = catalog.find("execsnoop").schema
    size = schema.text_offset + 64
    rows = np.zeros(len(EVENTS), schema.dtype(size))
    data = bytearray()
    for at, (cgroup, pid, comm, error, truncated, args, exe, given) in enumerate(EVENTS):
        row = rows[at]
        row["timestamp"] = at * 1000
        row["cgroup_id"], row["pid"], row["tid"], row["comm"] = cgroup, pid, pid, comm
        row["error"], row["args_truncated"] = error, truncated
        row["args"]["length"] = len(args)
        row["exe"]["offset"], row["exe"]["length"], row["exe"]["as_given"] = len(args), len(exe), given
        row["cwd"]["as_given"] = True
        packed = bytearray(row.tobytes())
        packed[schema.text_offset :] = (args + exe).ljust(64, b"\0")
        data += packed
    containers = [
        pb.Container(cgroup_id=cgroup, namespace=namespace, pod=pod, container=name, id=identity)
        for cgroup, (namespace, pod, name, identity) in NAMES.items()
    ]
    section = pb.Section(record_size=size, count=len(EVENTS), rows=bytes(data))
    return pb.Batch(sections=[section], containers=containers, clock_offset_ns=CLOCK)


def table() -> Table:
    """The events as the client sees them."""
    item = batch()
    return Table(catalog.find("execsnoop").schema, item.sections[0], dict(NAMES), "node-a", item.clock_offset_ns)
