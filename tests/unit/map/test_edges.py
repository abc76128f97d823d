"""map: flows as edges between workloads."""

from __future__ import annotations

import threading

import pytest

from gadget.endpoints import Endpoint
from kubectl_gadget.map import edges as module
from kubectl_gadget.map.owners import HERE, LONGEST, NODES, OTHERS, OUTSIDE, ClusterOwners, MapNode, Owners
from tests.unit.map.flows import CART, ENDED, MINUTE, NOW, WEB, WORLD, edges, row, told


def test_sums() -> None:
    """An edge has connections, failed, dropped, bytes both ways, RTT and last seen, with ports and pods."""
    of = edges()
    of.write([
        row(), row(**ENDED), row(type="failed", verdict="refused"), row(type="failed", verdict="dropped"),
        row(type="waiting", verdict="no answer"), row(timestamp=NOW + 5 * 10**9, **{**ENDED, "rtt": 3_000_000}),
    ])  # fmt: skip
    found = told(of)
    assert [spot[1:] for spot in found["spots"]] == [["shop", "web", "pod"], ["shop", "cart", "pod"]]
    (edge,) = found["edges"]
    assert edge[1:] == [0, 1, ["8080/TCP"], [WEB.name], [CART.name], ["forwarded", "refused", "dropped"], []]
    ((minute, number, *sums),) = found["sums"]
    assert (minute, number, sums[:6]) == (NOW // MINUTE, 0, [3, 1, 1, 200, 18_000, NOW // 10**9 + 5])
    assert [round(2 ** ((bucket + 0.5) / 4)) for bucket, _ in sums[6]] == [
        pytest.approx(each, rel=0.1) for each in (210_000, 3_000_000)
    ]


def test_both_ends() -> None:
    """A connection between two pods, of which both ends tell, is one; its bytes are counted once, from who began it."""
    of = edges()
    there = {"direction": "ingress", "src": CART, "dst": WEB}
    of.write([row(), row(**there), row(**ENDED), row(**{**ENDED, **there, "sent": 9000, "received": 100})])
    (sums,) = told(of)["sums"]
    assert sums[2:7] == [1, 0, 0, 100, 9000]


def test_changes() -> None:
    """A page is told what has changed since it was told last, and nothing else."""
    of = edges()
    of.write([row(), row(dst=WORLD)])
    version, messages = of.changes(0)
    assert len([*messages]) == 1
    assert told(of, version) == {"spots": [], "labels": [], "alerts": [], "edges": [], "sums": []}
    of.write([row(dst=WORLD)])
    found = told(of, version)
    assert (found["spots"], found["edges"], [sums[1:3] for sums in found["sums"]]) == ([], [], [[1, 2]])


def test_older_minutes() -> None:
    """What is older than the minutes that are kept is added up without a time, and nothing of it is lost."""
    of = edges(most_minutes=3)
    for at in range(6):
        of.write([row(timestamp=NOW + at * MINUTE)])
    of.write([row(timestamp=NOW)])
    sums = told(of)["sums"]
    assert sum(each[2] for each in sums) == 7
    assert [each[0] for each in sorted(sums)] == [0, *(NOW // MINUTE + at for at in (3, 4, 5))]
    (*_, last) = of.changes(0)[1]
    assert last["first"] == NOW // MINUTE + 3


def test_bounds() -> None:
    """Who scans addresses and ports makes no more boxes, edges, words and flows than there is room for; it is told."""
    of = edges(Owners(most_outside=2), most_edges=3, most_flows=30)
    of.write([row(dst=WORLD._replace(port=port)) for port in range(1, 500)])
    of.write([row(dst=WORLD._replace(addr=f"198.51.100.{at}")) for at in range(200)])
    of.write([row(src=CART, dst=WEB)])
    of.refresh(lambda: "so far")
    (*_, message) = of.changes(0)[1]
    assert message["state"]["told"] == "so far; 1 of further pairs left out"
    assert [spot[2] for spot in message["spots"]] == ["web", "203.0.113.7", "198.51.100.0", OTHERS]
    assert message["edges"][0][3][-1] == "…" and len(message["edges"][0][3]) == module.MOST_WORDS + 1
    assert 0 < sum(len(of.flows(at)) for at in range(3)) <= 30


def test_flows() -> None:
    """An edge has its last flows, the newest first, with process, bytes and verdict."""
    of = edges()
    of.write([row(timestamp=NOW + at, type="failed", verdict="refused") for at in range(50)])
    of.write([row(timestamp=NOW + 10**9, direction="ingress", src=CART, dst=WEB, comm="nginx", **ENDED)])
    flows = of.flows(0)
    assert len(flows) == module.MOST_OF_EDGE
    assert flows[0]["to"] == "shop/cart-0:8080 nginx[7]"
    assert (flows[0]["verdict"], flows[0]["how"]) == ("forwarded", "9.0 kB↑ 100 B↓ rtt 210µs")
    assert flows[1]["from"].endswith(" curl[7]") and flows[1]["verdict"] == "refused"
    assert of.flows(7) == []


def test_spots() -> None:
    """Boxes are workloads; nodes, addresses outside and containers without Kubernetes have places of their own."""
    known = ClusterOwners({("shop", "odd"): "cart"}, {("shop", "cart"): "cart"})
    owners = Owners(lambda: known)
    assert owners.spot(Endpoint("", 1, "pod", "shop", "odd")) == MapNode("shop", "cart", "pod")
    assert owners.spot(Endpoint("", 1, "svc", "shop", "cart")) == MapNode("shop", "cart", "pod")
    assert owners.spot(Endpoint("", 1, "svc", "shop", "other")) == MapNode("shop", "svc/other", "svc")
    assert owners.spot(Endpoint("", 1, "node", "", "node-a")) == MapNode(NODES, "node-a", "node")
    assert owners.spot(Endpoint("", 1, "container", "", "redis")) == MapNode(HERE, "redis", "container")
    assert owners.spot(None) == MapNode(OUTSIDE, "not known", "raw")
    assert owners.spot(WORLD._replace(kind="container", name="a\x1b[2Jb")) == MapNode(HERE, r"a\x1b[2Jb", "container")


def test_answer_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that nobody knew gets its workload's box, also if the cluster answers while its name is looked at."""
    known = ClusterOwners()
    owners = Owners(lambda: known, again_seconds=0.0)
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.run)  # the answer is there at once
    known.pods["shop", "odd"] = "cart"
    pod = Endpoint("", 1, "pod", "shop", "odd")
    owners._known = ClusterOwners()
    assert [owners.spot(pod).name for _ in range(2)] == ["odd", "cart"]


def test_long_names() -> None:
    """Names that are longer than Kubernetes and DNS allow are cut, with what is not printable made visible."""
    of = edges()
    long = "\u202ex" * 10_000
    of.write(
        [
            row(
                src=WEB._replace(name=long, namespace=long),
                dst=WORLD._replace(kind="svc", name=long, namespace=long),
                domain=long,
            )
        ]
    )
    found = told(of)
    texts = [text for spot in found["spots"] for text in spot[1:3]] + found["edges"][0][4] + found["edges"][0][7]
    assert len(texts) == 6 and all(len(text) <= LONGEST + 4 and "\u202e" not in text for text in texts)


def test_labels() -> None:
    """A page is told the labels that a workload's pods have, also when the cluster tells of them later."""
    known = [ClusterOwners(), ClusterOwners(labels={("shop", "web"): {"app=web", "a\n=b"}})]
    owners = Owners(lambda: known[0])
    of = edges(owners)
    of.write([row()])
    assert told(of)["labels"] == []
    known.pop(0)
    owners.ask()
    version, _ = of.changes(0)
    assert told(of)["labels"] == [[0, ["a\\n=b", "app=web"]]]
    assert told(of, version)["labels"] == []
    of.write([row(src=CART, dst=WEB)])
    assert len(told(of)["labels"]) == 1
