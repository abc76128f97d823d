from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from gadget import catalog
from gadget.rows import Table
from tests.unit.test_snapshots import batch

CONNECTS = catalog.find("tcpconnect")


@pytest.mark.parametrize(
    ("address", "port", "shown", "addr"),
    [
        ("::ffff:10.244.1.9", 80, "10.244.1.9:80", "10.244.1.9"),
        ("2001:db8::7", 80, "[2001:db8::7]:80", "2001:db8::7"),
        ("::", 80, "[::]:80", "::"),
        ("::ffff:0.0.0.0", 80, "0.0.0.0:80", "0.0.0.0"),
        ("::", 0, "", ""),
        ("::ffff:0.0.0.0", 0, "", ""),
    ],
)
def test_endpoint(address: str, port: int, shown: str, addr: str) -> None:
    """An end is its address and port, also the address that stands for any; one that is not known is none."""
    sent = batch(CONNECTS, [{"pid": 1, "dst": (IPv6Address(address).packed, port)}])
    table = Table(CONNECTS.schema, sent.sections[0], {}, "node-a", 0)
    assert table.distinct("dst")[0] == [shown]
    assert table.column("dst.addr") == [addr]
    assert (table.column("dst") == [None]) == (not shown)
