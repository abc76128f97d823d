"""The page of who talks to whom in a real browser, as it is used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gadget.endpoints import Endpoint
from kubectl_gadget.map.policies import judge
from kubectl_gadget.map.server import MapServer
from kubectl_gadget.page import document
from tests.browser import Page, browser
from tests.conftest import wait_until
from tests.e2e.conftest import gadget
from tests.unit.map.flows import CART, ENDED, NOW, WEB, WORLD, edges, large, row
from tests.unit.map.test_policies import POLICY, seen

FLOWS = Path(__file__).parents[1] / "unit/advise/golden/merged-rules/flows.jsonl"
#: Where each box stands.
BOXES = """Object.fromEntries([...document.querySelectorAll("[data-box]")].map((box) => {
  const rect = box.querySelector("rect");
  return [box.dataset.box, ["x", "y", "width", "height"].map((name) => rect.getAttribute(name)).join(" ")];
}))"""
#: The first cells of the rows that can be seen.
ROWS = """[...document.querySelectorAll("#table tbody tr:not(.space)")].map((row) => [...row.cells].slice(0, 4)
  .map((cell) => cell.textContent))"""
DB = Endpoint("10.0.0.3", 5432, "pod", "data", "db-0")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path) as made:
        made.look(1440, 900)
        yield made
        assert made.errors == []


@pytest.fixture
def server() -> Iterator[MapServer]:
    """A map of web, which asks cart twice and fails to ask db once; cart asks outside three times."""
    with MapServer(0, document("Flows", live=True, empty="Nothing yet.")) as made:
        made.edges = edges()
        made.edges.write([row(), row(), row(**ENDED), row(dst=DB, type="failed", verdict="refused")])
        made.edges.write([row(src=CART, dst=WORLD)] * 3)
        yield made


def rows(page: Page) -> list[list[str]]:
    found: list[list[str]] = page.run(ROWS)
    return found


def opened(page: Page, server: MapServer, number: int) -> None:
    """Open the page, and wait until it lists so many edges."""
    page.go(server.url)
    page.wait(f"document.querySelectorAll('tbody tr:not(.space)').length >= {number}")


def test_graph(page: Page, tmp_path: Path) -> None:
    """The graph of `advise` opens in a browser without a network: the same page, with boxes, lines and a table."""
    file = tmp_path / "graph.html"
    file.write_text(gadget("advise", "network-policy", "graph", "--input", str(FLOWS), "-A", "-o", "html").stdout)
    page.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
    page.go(file.as_uri())
    assert len(rows(page)) == 3
    page.click(".spot[aria-label^='shop/db']")
    assert len(rows(page)) == 1 and "shop/db" in rows(page)[0]
    page.press("Escape")
    assert len(rows(page)) == 3


def test_table(page: Page, server: MapServer) -> None:
    """Every edge is in the table, which is sorted by a heading; by keys alone one is chosen, and its flows are shown."""
    opened(page, server, 3)
    assert rows(page) == [
        ["shop/cart", "outside the cluster/203.0.113.7", "443/TCP", "3"],
        ["shop/web", "shop/cart", "8080/TCP", "2"],
        ["shop/web", "data/db", "5432/TCP", "1"],
    ]
    page.click("th:nth-child(4) button")
    assert [each[3] for each in rows(page)] == ["1", "2", "3"]
    assert page.run("document.querySelector('th:nth-child(4)').getAttribute('aria-sort')") == "ascending"
    assert page.run("document.querySelectorAll('th[aria-sort]').length") == 1
    page.run("document.querySelector('tbody tr[tabindex=\"0\"]').focus()")
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "Enter"):
        page.press(key)
    assert page.run("document.querySelector('#drawer-title').textContent") == "shop/web → shop/cart"
    page.wait("document.querySelectorAll('.flows p').length === 3")
    assert "shop/cart-0:8080 TCP forwarded 100 B↑ 9.0 kB↓" in page.run("document.querySelector('.flows p').textContent")
    assert page.run("document.activeElement.id") == "drawer"
    page.press("Escape")
    assert page.run("document.querySelector('#drawer').hidden")
    assert page.run("document.activeElement.getAttribute('aria-rowindex')") == "3"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from:pod=cart", 1), ("!from:pod=cart", 2), ("namespace=data", 1), ("verdict=refused", 1), ("port=443,port=8080", 2),
        ("to:ip=203.0.113.0/24", 1), ("web", 2), ("to:workload=c*", 1), ("from:namespace=shop to:namespace=data", 1),
        ("pod=shop/web verdict=forwarded", 1), ("nothing-is-called-so", 0), ("protocol=udp", 0), ("", 3),
    ],
)  # fmt: skip
def test_filter(page: Page, server: MapServer, text: str, expected: int) -> None:
    """The filter line chooses edges, in table and map, by the names, ports and verdicts of either end."""
    opened(page, server, 3)
    if text:
        page.type("#filter", text)
    assert len(rows(page)) == expected
    assert page.run("document.querySelectorAll('.line').length") == expected
    assert page.run("document.querySelector('#empty').hidden") is bool(expected)


def test_wrong_filter(page: Page, server: MapServer) -> None:
    """A filter that makes no sense is told, and leaves what is shown."""
    opened(page, server, 3)
    page.type("#filter", "nmespace=shop")
    assert page.run("document.querySelector('#wrong').textContent").startswith(
        "nmespace=: there is namespace, workload"
    )
    assert len(rows(page)) == 3


def test_boxes_stay(page: Page, server: MapServer) -> None:
    """No box moves as flows come, of those that are there and of others; new ones find free places."""
    opened(page, server, 3)
    before: dict[str, Any] = page.run(BOXES)
    assert server.edges and len(before) == 7
    for at in range(20):
        server.edges.write(
            [row(src=WEB._replace(name=f"new{at}"), dst=DB), row(dst=WORLD._replace(addr=f"198.51.100.{at}"))]
        )
        server.edges.write([row(src=WEB._replace(namespace=f"space-{at}"), timestamp=NOW + at)] * 3)
        page.wait(f"document.querySelector('#sum').textContent.startsWith('{6 + 3 * at} pairs')")
        now = page.run(BOXES)
        assert {key: now[key] for key in before} == before
        before |= now
    assert any(
        "not drawn" in text for text in page.run("[...document.querySelectorAll('svg .end')].map((e) => e.textContent)")
    )


def test_hostile_names(page: Page, server: MapServer) -> None:
    """Whatever processes and pods are called is text: HTML, scripts, other directions, 253 letters."""
    assert server.edges
    names = [
        "<script>alert(1)</script>",
        "'\"><img src=x onerror=alert(1)>",
        "\u202egnp.exe",
        "x" * 253,
        "${1}",
        "]]>-->",
    ]
    for at, name in enumerate(names):
        evil = {"src": WEB._replace(name=name, namespace=name), "comm": name}
        server.edges.write([row(**evil, dst=WORLD._replace(addr=f"198.51.100.{at}"))])
    opened(page, server, 9)
    shown = [each[0] for each in rows(page)]
    for name in names:
        said = name.replace("\u202e", r"\u202e")
        assert f"{said}/{said}" in shown
    assert page.run("document.querySelectorAll('img, main script').length") == 0
    page.run(
        f"[...document.querySelectorAll('tbody tr')].find((row) => row.textContent.includes({json.dumps('<script>')})).click()"
    )
    page.wait("document.querySelectorAll('.flows p').length === 1")
    assert "<script>alert(1)</script>[7]" in page.run("document.querySelector('.flows p').textContent")
    boxes = page.run("[...document.querySelectorAll('.spot')].map((e) => [e.querySelector('text').getComputedTextLength(),"
                     " Number(e.querySelector('rect').getAttribute('width'))])")  # fmt: skip
    assert all(text < box for text, box in boxes)


def test_nobody_else(page: Page, server: MapServer) -> None:
    """A script of another page cannot read the map, though it may know where it is."""
    opened(page, server, 3)
    page.call("Page.navigate", url="data:text/html,<h1>other</h1>")
    page.wait("document.querySelector('h1')?.textContent === 'other'")
    assert page.run(f"fetch({json.dumps(server.url)}).then(() => 'read', () => 'refused')") == "refused"
    page.errors.clear()


def test_large(page: Page) -> None:
    """1,000 workloads and 20,000 edges: 150 boxes are drawn at most, which is told; the table has all, by keys too."""
    with MapServer(0, document("Flows", live=True)) as server:
        server.edges = large()
        page.go(server.url)
        page.wait("document.querySelector('#sum').textContent.startsWith('20,000 pairs')")
        assert page.run("document.querySelector('#table').getAttribute('aria-rowcount')") == "20001"
        page.click("#open")
        assert 100 < page.run("document.querySelectorAll('svg .spot, svg .space').length") <= 150
        assert "850" in page.run("document.querySelector('#sum').textContent") or "875" in page.run(
            "document.querySelector('#sum').textContent"
        )
        page.run("document.querySelector('tbody tr[tabindex=\"0\"]').focus()")
        page.press("End")
        assert page.run("document.activeElement.getAttribute('aria-rowindex')") == "20001"


def test_policies(page: Page) -> None:
    """The policies' tab has what is denied, which rules allowed what, unused ones and advice; edges have the verdict then."""
    with MapServer(0, document("Flows", live=True, policies=True), lambda: judge(seen(), [POLICY], ["shop"])) as server:
        server.edges = edges()
        server.edges.write([row(src=WEB._replace(name="web-0")), row(dst=DB)])
        opened(page, server, 2)
        page.run("document.querySelector('#tab-flows').focus()")
        page.press("ArrowRight")
        page.wait("document.querySelectorAll('#policies table').length === 3")
        text = page.run("document.querySelector('#policies').textContent")
        assert "5 of 7 connections allowed, 2 denied; policies: 1, rules that nothing used: 1." in text
        assert "no ingress rule of cart allows this peer on port 9090/TCP" in text and "changed  shop/cart" in text
        page.press("ArrowLeft")
        page.type("#filter", "policy=denied")
        assert [each[:2] for each in rows(page)] == [["shop/web", "shop/cart"]]
        page.run("document.querySelector('tbody tr:not(.space)').click()")
        assert "9090/TCP denied: no ingress rule" in page.run("document.querySelector('#drawer').textContent")


def test_end(page: Page, tmp_path: Path) -> None:
    """When the command has ended, the page says so and keeps what it shows."""
    with MapServer(0, document("Flows", live=True)) as server:
        server.edges = edges()
        server.edges.write([row()])
        opened(page, server, 1)
    page.wait("document.querySelector('#status').textContent.includes('the command has ended')")
    assert len(rows(page)) == 1
    page.errors.clear()


def test_saved(page: Page, server: MapServer, tmp_path: Path) -> None:
    """What is shown is saved as SVG, JSON and mermaid."""
    opened(page, server, 3)
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    for form, name in (("svg", "map.svg"), ("json", "map.json"), ("mermaid", "map.mmd")):
        page.click(f"[data-save={form}]")
        wait_until((tmp_path / name).exists, name, 60)
    assert len(json.loads((tmp_path / "map.json").read_text())) == 3
    assert (tmp_path / "map.mmd").read_text().startswith("graph LR")
    assert (tmp_path / "map.svg").read_text().startswith("<svg")
