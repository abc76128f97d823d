"""observe: what both ends tell of a flow is one."""

from __future__ import annotations

from typing import Any

import pytest

from gadget.endpoints import Endpoint
from kubectl_gadget.observe import pairs
from kubectl_gadget.observe.lines import FIELDS, FlowLines
from kubectl_gadget.observe.pairs import HOLD_SECONDS, NEAR_NS, Pair, Pairs
from kubectl_gadget.output import all_fields
from kubectl_gadget.stream.merge import TimedRow
from tests.unit.observe.flows import GADGET, UNKNOWN

KNOWN = all_fields(GADGET.schema)
SECOND = 10**9
CART = Endpoint("10.77.0.1", 40001, "pod", "shop", "cart-0")
WEB = Endpoint("10.77.0.2", 8080, "pod", "front", "web-0")
DB = Endpoint("10.77.0.3", 8080, "pod", "data", "db-0")
SERVICE = Endpoint("10.96.0.7", 80, "svc", "front", "web")
OUTSIDE = Endpoint("203.0.113.7", 443, "raw", "", "")


def row(at: float, src: Endpoint, dst: Endpoint, direction: str = "egress", **values: Any) -> TimedRow:
    """A row of a connection that was closed, if nothing else is said."""
    known = {"timestamp": int(at * SECOND), "node": "node-a", "pid": 7, "comm": "x", "src": src, "dst": dst}
    usual = {"type": "ended", "verdict": "forwarded", "protocol": "tcp", "version": 4, "reason": "closed", "error": 0,
             "domain_by": "none", "sent": 0, "received": 0, "retransmits": 0, "duration": UNKNOWN, "rtt": UNKNOWN}  # fmt: skip
    found = {**dict.fromkeys(FIELDS, ""), **usual, **known, "direction": direction, **values}
    for name in ("type", "verdict", "protocol", "reason", "domain_by", "direction"):
        found[name] = next(int(number) for number, word in KNOWN[name].values.items() if word == found[name])
    return found["timestamp"], tuple(found[name] for name in FIELDS), src.name


def joined(*rows: TimedRow) -> list[tuple[float, str, str]]:
    """The flows that rows are: when, and whose rows."""
    made = Pairs(FIELDS, KNOWN)
    made.add(rows, 0.0)
    return told([*made.ripe(None), *made.rest()])


def told(found: list[Pair]) -> list[tuple[float, str, str]]:
    return [
        (min(each[0] for each in pair if each) / SECOND, pair.mine[2], pair.other[2] if pair.other else "")
        for pair in found
    ]


def test_both_ends() -> None:
    """What both ends tell of a connection is one flow, told by the end that began it, whichever came first; its beginning and its end are two."""
    begun = {"type": "begun", "reason": "none"}
    assert joined(
        row(1.0, CART, WEB, **begun),
        row(1.1, WEB, CART, "ingress", **begun),
        row(2.0, WEB, CART, "ingress", sent=5, received=3),
        row(2.1, CART, WEB, sent=3, received=5),
    ) == [(1.0, "cart-0", "web-0"), (2.0, "cart-0", "web-0")]


def test_others() -> None:
    """Rows of other connections stay what they are: of another port, too late, to the world, of one end alone, what came to nothing."""
    apart = NEAR_NS["tcp"] / SECOND + 1
    rows = [
        row(1.0, CART, WEB),
        row(1.0, WEB, CART._replace(port=40002), "ingress"),
        row(1.0 + apart, WEB, CART, "ingress"),
        row(9.0, CART, OUTSIDE),
        row(9.0, CART, OUTSIDE),
        row(9.1, CART, WEB, type="failed", verdict="refused"),
    ]
    assert [pair[1:] for pair in joined(*rows)] == [(each[2], "") for each in rows]


def test_service() -> None:
    """A connection to a Service is one flow with the row of the pod that served it, but not with that of a pod that was asked itself."""
    asked = {"sent": 3, "received": 5}
    served = {"sent": 5, "received": 3}
    assert joined(row(1.0, CART, SERVICE, **asked), row(1.1, WEB, CART, "ingress", **served)) == [
        (1.0, "cart-0", "web-0")
    ]
    assert len(joined(row(1.0, CART, SERVICE, **asked), row(1.1, WEB, CART, "ingress", sent=6, received=3))) == 2
    assert len(joined(row(1.0, CART, DB, **asked), row(1.1, WEB, CART, "ingress", **served))) == 2
    exact = [row(1.0, CART, SERVICE, **asked), row(1.0, CART, WEB, **asked), row(1.1, WEB, CART, "ingress", **served)]
    assert joined(*exact) == [(1.0, "cart-0", ""), (1.0, "cart-0", "web-0")]


def test_live() -> None:
    """What comes is shown after a moment if the other end says nothing, and nothing overtakes it."""
    made = Pairs(FIELDS, KNOWN)
    made.add([row(1.0, CART, OUTSIDE)], 10.0)
    made.add([row(1.1, CART, WEB), row(1.2, WEB, CART, "ingress")], 10.1)
    assert made.ripe(10.2) == []
    assert told(made.ripe(10.0 + HOLD_SECONDS)) == [(1.0, "cart-0", ""), (1.1, "cart-0", "web-0")]
    assert made.rest() == []


def test_bounds() -> None:
    """However much comes at once, and however alike, what is held and looked at stays bounded."""
    made = Pairs(FIELDS, KNOWN, most_held=100)
    made.add([row(1.0, CART, OUTSIDE._replace(port=port), protocol="udp") for port in range(1, 1001)], 0.0)
    assert len(made.ripe(None)) == 1000 - 100
    assert max(map(len, made._open.values())) <= pairs.MOST_ALIKE
    assert len(made.rest()) == 100


@pytest.mark.parametrize(
    ("mine", "other", "line"),
    [
        (
            row(1.0, CART, WEB, sent=3, received=5, rtt=210_000),
            row(1.0, WEB, CART, "ingress", sent=5, received=3, pid=9, comm="nginx", reason="reset"),
            "shop/cart-0 x[7] → front/web-0:8080 nginx[9] TCP FORWARDED 3 B↑ 5 B↓ rtt 210µs",
        ),
        (
            row(1.0, CART, SERVICE, sent=3, received=5),
            row(1.0, WEB, CART, "ingress", sent=5, received=3, pid=9, comm="nginx"),
            "shop/cart-0 x[7] → front/web-0:8080 (svc web:80) nginx[9] TCP FORWARDED 3 B↑ 5 B↓",
        ),
        (
            row(1.0, CART, OUTSIDE),
            row(1.0, WEB, CART, "ingress", pid=0),
            "shop/cart-0 x[7] → front/web-0:8080 (as 203.0.113.7:443) TCP FORWARDED 0 B↑ 0 B↓",
        ),
        (
            row(1.0, CART, WEB, protocol="udp", verdict="no answer", sent=1001),
            row(1.0, WEB, CART, "ingress", protocol="udp", received=1002),
            "shop/cart-0 x[7] → front/web-0:8080 x[7] UDP NO ANSWER 1.0 kB↑ 0 B↓; the other end: FORWARDED 1002 B↑ 0 B↓",
        ),
    ],
)
def test_lines(capsysbinary, mine: TimedRow, other: TimedRow, line: str) -> None:
    """A flow of both ends is a line with both processes, the pod behind a Service, and what the other end tells otherwise."""
    FlowLines(GADGET, KNOWN).write([(*mine[1], other[1])])
    assert capsysbinary.readouterr().out.decode().strip().partition(" ")[2] == line


PODS = (
    CART._replace(name="cart-6c9f7d5b8-x2x7l"),
    WEB._replace(namespace="shop", name="catalogue-search-7f6bd5cc79-pk2xw"),
)


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_narrow(capsysbinary, monkeypatch, columns: int) -> None:
    """At 80 columns a line still has who asked whom, with the beginnings and ends of their names, the verdict and the bytes; names of pods are cut first."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("kubectl_gadget.output.terminal.columns", lambda: columns)
    monkeypatch.setenv("NO_COLOR", "1")
    values = {"sent": 1234, "received": 3_400_000, "duration": 812_000_000, "rtt": 210_000}
    mine = row(1.0, *PODS, pid=812, comm="nginx", **values)
    other = row(1.0, *PODS[::-1], "ingress", sent=3_400_000, received=1234, pid=1, comm="python3")
    FlowLines(GADGET, KNOWN).write([(*mine[1], other[1])])
    (line,) = capsysbinary.readouterr().out.decode().splitlines()
    assert len(line) <= columns
    shown = {
        60: "shop/car…7l → cat…xw:8080 TCP FORWARDED 1.2 kB↑ 3.…",
        80: "shop/cart…x7l nginx[812] → cata…2xw:8080 TCP FORWARDED 1.2 kB↑ 3.4 MB↓",
        100: "shop/cart-6…-x2x7l nginx[812] → catalo…-pk2xw:8080 TCP FORWARDED 1.2 kB↑ 3.4 MB↓ 812ms",
    }
    assert line.partition(" ")[2] == shown[columns]


@pytest.mark.parametrize(("columns", "cells"), [(60, 8), (80, 8), (99, 8), (100, 12)])
def test_times_alike(capsysbinary, monkeypatch, columns: int, cells: int) -> None:
    """On a terminal all lines begin alike: with milliseconds where there is room for them as a rule, else without, however short a line is."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("kubectl_gadget.output.terminal.columns", lambda: columns)
    monkeypatch.setenv("NO_COLOR", "1")
    short, long = row(1.0, CART, WEB), row(1.0, *PODS, pid=812, comm="nginx", domain="a" * 60, domain_by="sni")
    FlowLines(GADGET, KNOWN).write([(*each[1], None) for each in (short, long)])
    lines = capsysbinary.readouterr().out.decode().splitlines()
    assert [len(line.partition(" ")[0]) for line in lines] == [cells] * 2
    assert max(map(len, lines)) <= columns
