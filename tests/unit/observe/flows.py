"""Flows that tests choose from and show: rows as agents send them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import numpy as np

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.endpoints import Owner
from gadget.rows import Table

GADGET = catalog.find("observe")
UNKNOWN = (1 << 64) - 1
NAMES = {
    11: ("shop", "cart-0", "app", "c1"),
    12: ("front", "web-0", "nginx", "c2"),
    13: ("data", "db-0", "pg", "c3"),
}
PEERS = {
    "10.77.0.1": Owner("pod", "shop", "cart-0"),
    "10.77.0.2": Owner("pod", "front", "web-0"),
    "fd77::2": Owner("pod", "front", "web-0"),
    "10.96.0.7": Owner("svc", "shop", "cart"),
}
#: Each by a name of its own: container, process, and what differs.
FLOWS: dict[str, dict[str, Any]] = {
    "cart asks web": {
        "cgroup_id": 11, "pid": 812, "comm": "python", "type": "begun", "src": ("10.77.0.1", 40001),
        "dst": ("10.77.0.2", 8080), "duration": 310_000,
    },
    "web answers cart": {
        "cgroup_id": 12, "pid": 9, "comm": "nginx", "type": "ended", "direction": "ingress", "src": ("10.77.0.2", 8080),
        "dst": ("10.77.0.1", 40001), "reason": "closed", "sent": 3_400_000, "received": 1234, "bytes": 3_401_234,
        "duration": 812_000_000, "rtt": 210_000, "retransmits": 2,
    },
    "db asks web6": {
        "cgroup_id": 13, "pid": 7, "comm": "pg", "type": "ended", "src": ("fd77::1", 40002), "dst": ("fd77::2", 8080),
        "version": 6, "reason": "reset", "domain": "web.example.com", "domain_by": "sni",
    },
    "db asks world": {
        "cgroup_id": 13, "pid": 7, "comm": "pg", "type": "failed", "verdict": "no answer", "src": ("10.77.0.3", 40003),
        "dst": ("203.0.113.7", 443), "duration": 7_000_000_000, "domain": "API.stripe.com", "domain_by": "dns",
    },
    "db asks service": {
        "cgroup_id": 13, "pid": 0, "comm": "", "type": "failed", "verdict": "refused", "protocol": "udp",
        "src": ("10.77.0.3", 40004), "dst": ("10.96.0.7", 80), "duration": 0, "domain": "cart.shop.svc.cluster.local",
        "domain_by": "stale",
    },
}  # fmt: skip
_USUAL = {"verdict": "forwarded", "direction": "egress", "protocol": "tcp", "reason": "none", "version": 4,
          "domain_by": "none"}  # fmt: skip


def packed(address: str) -> bytes:
    """An address as 16 bytes."""
    found = ip_address(address)
    return found.packed if found.version == 6 else bytes(10) + b"\xff\xff" + found.packed


def section(began_ns: int = 0) -> pb.Section:
    """The flows as a part of a batch, one a second."""
    schema = GADGET.schema
    size = schema.text_offset + 64
    rows = np.zeros(len(FLOWS), schema.dtype(size))
    texts = rows.view(np.uint8).reshape(len(FLOWS), size)[:, schema.text_offset :]
    for at, (row, flow) in enumerate(zip(rows, FLOWS.values(), strict=True)):
        row["timestamp"], row["duration"], row["rtt"] = began_ns + (at + 1) * 10**9, UNKNOWN, UNKNOWN
        for name, value in {**_USUAL, **flow}.items():
            if name in ("src", "dst"):
                row[name]["address"] = packed(value[0])
                row[name]["port"] = value[1]
            elif name == "domain":
                row[name]["length"] = len(value)
                texts[at, : len(value)] = np.frombuffer(value.encode(), np.uint8)
            elif isinstance(value, str) and name != "comm":
                row[name] = next(int(number) for number, word in schema[name].values.items() if word == value)
            else:
                row[name] = value
    return pb.Section(rows=rows.tobytes(), count=len(rows), record_size=size)


def table(node: str = "node-a") -> Table:
    """The flows as a filter sees them."""
    return Table(GADGET.schema, section(), NAMES, node, 0, {packed(each): name for each, name in PEERS.items()})
