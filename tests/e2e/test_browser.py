"""The page of who talks to whom in a real browser, as it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gadget.endpoints import Endpoint
from kubectl_gadget.advise.policy_files import read_policies
from kubectl_gadget.map.alerts import Alerts
from kubectl_gadget.map.command import _why_empty
from kubectl_gadget.map.edges import Edges
from kubectl_gadget.map.owners import ClusterOwners, Owners
from kubectl_gadget.map.policies import CachedAnswer, judge
from kubectl_gadget.map.server import MapServer
from kubectl_gadget.observe.opinion import NOT_JUDGED, PERHAPS
from kubectl_gadget.output import all_fields
from kubectl_gadget.page import document
from kubectl_gadget.terms import KEYS
from tests.browser import Page, browser
from tests.conftest import wait_until
from tests.e2e.conftest import gadget
from tests.unit.map.flows import CART, ENDED, NOW, WEB, WORLD, edges, large, row
from tests.unit.map.test_alerts import WEBS
from tests.unit.map.test_alerts import alert as fired
from tests.unit.map.test_policies import POLICY, seen
from tests.unit.observe.flows import GADGET
from tests.unit.observe.test_terms import LABELS, OPINIONS, TERMS

PAGE = Path(__file__).parents[2] / "kubectl_gadget/page"
FLOWS = Path(__file__).parents[1] / "unit/advise/golden/merged-rules/flows.jsonl"
#: Where each box stands.
BOXES = """Object.fromEntries([...document.querySelectorAll("[data-box]")].map((box) => {
  const rect = box.querySelector("rect");
  return [box.dataset.box, ["x", "y", "width", "height"].map((name) => rect.getAttribute(name)).join(" ")];
}))"""
#: And on the screen, where it also moves if all are drawn smaller.
ON_SCREEN = """Object.fromEntries([...document.querySelectorAll("[data-box]")].map((box) => {
  const { x, y, width, height } = box.querySelector("rect").getBoundingClientRect();
  return [box.dataset.box, [x, y, width, height].map(Math.round).join(" ")];
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
    page.type("#filter", "from:label=app=web")
    assert {each[0] for each in rows(page)} == {"shop/web"}


def test_table(page: Page, server: MapServer) -> None:
    """Every edge is in the table, which is sorted by a heading; by keys alone one is chosen, and its flows are shown."""
    opened(page, server, 3)
    assert rows(page) == [
        ["shop/cart", "outside the cluster/203.0.113.7", "443/TCP", "3"],
        ["shop/web", "shop/cart", "8080/TCP", "2"],
        ["shop/web", "data/db", "5432/TCP", "1"],
    ]
    cells = "[...[...document.querySelectorAll('tbody tr')].find((row) => row.textContent.includes('8080')).cells]"
    assert page.run(f"{cells}.slice(6, 10).map((cell) => cell.textContent)") == ["100 B", "9.0 kB", "202 µs", "202 µs"]
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
        "nmespace=shop: there is namespace, workload"
    )
    assert len(rows(page)) == 3


def test_columns_fit(page: Page, server: MapServer) -> None:
    """At 1440 pixels all columns of the table can be seen without scrolling, whatever names, ports and numbers there are, with policies too."""
    assert server.edges
    long = WEB._replace(namespace="payments-production", name="checkout-service-6c9f7d5b8-x2x7l")
    busy = {**ENDED, "sent": 987_654_321_000, "received": 987_654_321_000, "rtt": 123_456_789}
    server.edges.write([row(src=long, dst=DB._replace(port=port), **busy) for port in range(30001, 30021)])
    server.edges.write([row(src=long, dst=DB, type="failed", verdict=word) for word in ("refused", "dropped")] * 5000)
    opened(page, server, 4)
    room = "(() => { const { scrollWidth, clientWidth } = document.querySelector('#scroll'); return [scrollWidth, clientWidth]; })()"
    for _ in range(2):
        needed, there = page.run(room)
        assert needed <= there
        page.run("document.querySelector('#table').classList.add('judged')")
    assert page.run("[...document.querySelectorAll('th.name')].every((head) => head.clientWidth >= 72)")


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


def test_boxes_stay_for_a_minute(page: Page, server: MapServer) -> None:
    """In a minute of live traffic, of which a part leaves the chosen time range, no box moves on the screen, and none comes back elsewhere."""
    server.push_seconds = 0.05
    opened(page, server, 3)
    assert server.edges
    page.run(f"window.now = {NOW // 10**6}; Date.now = () => window.now")  # the page's clock, too
    page.run("{ const e = document.querySelector('#range'); e.value = '1'; e.dispatchEvent(new Event('change')); }")
    before: dict[str, Any] = page.run(ON_SCREEN)
    gone = set[str]()
    for second in range(1, 61):
        at = NOW + second * 10**9
        bad = {"type": "failed", "verdict": ("refused", "dropped")[second % 2]} if second % 7 == 0 else {}
        flows = [row(timestamp=at), row(timestamp=at, **ENDED), row(timestamp=at, src=CART, dst=DB, **bad)]
        flows += [row(timestamp=at, src=WEB._replace(namespace=f"space-{second}"))] if second % 10 == 0 else []
        server.edges.write(flows)
        server.edges.tell({"told": f"{second} s"})
        page.run(f"window.now = {at // 10**6}")
        page.wait(f"document.querySelector('#status').textContent.endsWith(' {second} s')")
        now = page.run(ON_SCREEN)
        gone |= before.keys() - now.keys()
        assert {key: now[key] for key in before if key in now} == {key: before[key] for key in before if key in now}
        before |= now
    assert len(gone) >= 1 and len(before) == 7 + 6


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
    assert all(text <= box - 20 for text, box in boxes)


def test_nobody_else(page: Page, server: MapServer) -> None:
    """A script of another page cannot read the map, though it may know where it is."""
    opened(page, server, 3)
    page.call("Page.navigate", url="data:text/html,<h1>other</h1>")
    page.wait("document.querySelector('h1')?.textContent === 'other'")
    assert page.run(f"fetch({json.dumps(server.url)}).then(() => 'read', () => 'refused')") == "refused"
    page.errors.clear()


def test_nothing_seen(page: Page) -> None:
    """A page without flows says why there may be none; one whose filter lets nothing through says that."""
    with MapServer(0, document("Flows", live=True, empty=_why_empty(["shop"], local=False))) as server:
        server.edges = edges()
        page.go(server.url)
        told = page.run("document.querySelector('#empty').textContent")
        for word in ("No flow of namespace shop", "nothing over loopback", "-A shows all", "kubectl gadget status"):
            assert word in told
        server.edges.write([row()])
        page.wait("document.querySelector('#empty').hidden")
        page.type("#filter", "nothing-is-called-so")
        assert "Empty the filter" in page.run("document.querySelector('#empty').textContent")


def test_hubs(page: Page) -> None:
    """Who talks with eight boxes or more, as DNS, is a number on these, not a line to each."""
    dns = Endpoint("10.0.0.9", 53, "pod", "kube-system", "coredns-0")
    with MapServer(0, document("Flows", live=True)) as server:
        server.edges = edges()
        server.edges.write(
            [row(src=WEB._replace(name=f"web{at}"), dst=dns, protocol="udp") for at in range(9)] + [row()]
        )
        opened(page, server, 10)
        page.click("#open")
        assert page.run("document.querySelectorAll('svg .line').length") == 1
        assert page.run("document.querySelectorAll('svg .mark.hub').length") == 1
        assert page.run("document.querySelectorAll('svg .spot .mark:not(.hub)').length") == 9
        assert "hub 1" in page.run(
            "document.querySelector('svg .mark.hub').closest('.spot').getAttribute('aria-label')"
        )


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


def test_policies(page: Page, tmp_path: Path) -> None:
    """The policies' tab has what is denied, which rules allowed what, unused ones and advice, which I can save; edges have the verdict then."""
    with MapServer(
        0, document("Flows", live=True, policies=True), lambda **_: judge(seen(), [POLICY], ["shop"])
    ) as server:
        server.edges = edges()
        server.edges.write([row(src=WEB._replace(name="web-0")), row(dst=DB)])
        opened(page, server, 2)
        page.run("document.querySelector('#tab-flows').focus()")
        page.press("ArrowRight")
        page.wait("document.querySelectorAll('#policies table').length === 3")
        text = page.run("document.querySelector('#policies').textContent")
        assert "5 of 7 connections allowed, 2 denied; policies: 1, rules that nothing used: 1." in text
        assert "no ingress rule of cart allows this peer on port 9090/TCP" in text and "changed  shop/cart" in text
        assert "Policies: shop/cart" in text
        assert page.run("document.querySelector('#policies pre del').textContent").startswith("-  - from:")
        assert (
            "managed-by" in page.run("[...document.querySelectorAll('#policies pre ins')].map((e) => e.textContent)")[1]
        )
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        page.run(
            "[...document.querySelectorAll('#policies button')].find((e) => e.textContent.startsWith('Save')).click()"
        )
        wait_until((tmp_path / "policies.yaml").exists, "the policies", 60)
        assert read_policies(tmp_path / "policies.yaml", "default").policies
        page.run("document.querySelector('#tab-policies').focus()")
        page.press("ArrowLeft")
        page.type("#filter", "policy=denied")
        assert [each[:2] for each in rows(page)] == [["shop/web", "shop/cart"]]
        page.run("document.querySelector('tbody tr:not(.space)').click()")
        assert "9090/TCP denied: no ingress rule" in page.run("document.querySelector('#drawer').textContent")


def test_policies_change(page: Page) -> None:
    """A policy that is changed while I look changes what the page says, in tab and table, and I need not ask."""
    policies = [POLICY]
    answer = CachedAnswer(lambda: [*policies], lambda given: judge(seen(), [*map(dict, given)], ["shop"]))
    with MapServer(0, document("Flows", live=True, policies=True), answer) as server:
        server.edges = edges()
        server.edges.write([row(src=WEB._replace(name="web-0"))])
        opened(page, server, 1)
        page.type("#filter", "policy=denied")
        page.wait(f"{ROWS}.length === 1")
        page.click("#tab-policies")
        page.run("document.querySelector('#policies button').focus()")
        policies[0] = {**POLICY, "spec": {**POLICY["spec"], "ingress": [{}]}}
        page.wait("document.querySelector('#policies').textContent.includes('7 of 7 connections allowed, 0 denied')")
        assert page.run("document.activeElement.textContent") == "Judge again"
        assert rows(page) == []


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


def test_alerts(page: Page) -> None:
    """Boxes that got alerts are marked, and say how many; by keys alone I read them, of a box and of an edge."""
    owners = Owners()
    alerts = Alerts(owners)
    with MapServer(0, document("Flows", live=True)) as server:
        server.edges = Edges(GADGET, all_fields(GADGET.schema), owners, alerts)
        server.edges.write([row(), row(dst=DB)])
        opened(page, server, 2)
        assert page.run("document.querySelectorAll('svg .alert').length") == 0
        alerts.add(fired("Shell in a container", text="<b>sh</b>", count=3), WEBS)
        page.wait("document.querySelectorAll('svg .alert').length === 1")
        box = ".spot[aria-label='shop/web; 3 alerts']"
        page.run(f"document.querySelector({json.dumps(box)}).focus()")
        page.press("Enter")
        assert page.run("document.querySelector('#alerts').textContent") == "3 alerts of web"
        page.run("document.querySelector('#alerts').focus()")
        page.press("Enter")
        page.wait("document.querySelectorAll('#drawer .flows p').length === 1")
        assert page.run("document.querySelector('#drawer-title').textContent") == "shop/web"
        told = "Notice: Shell in a container web-7d4b9c6f8d-x2x7l <b>sh</b> 3 times; kubectl gadget alerts show k7m2qp4"
        assert told in page.run("document.querySelector('#drawer .flows p').textContent")
        page.press("Escape")
        assert page.run("document.activeElement.id") == "alerts"
        page.run(
            "[...document.querySelectorAll('tbody tr')].find((row) => row.textContent.includes('shop/cart')).click()"
        )
        page.wait("document.querySelector('#drawer').textContent.includes('Alerts of shop/web')")
        page.wait("document.querySelector('#drawer').textContent.includes('3 times')")
        assert "Alerts of shop/cart" not in page.run("document.querySelector('#drawer').innerText")


def nodes(page: Page) -> list[tuple[str, str, bool]]:
    """What a screen reader has of the page: role, name, and whether it can have the focus."""
    page.call("Accessibility.enable")
    found = page.call("Accessibility.getFullAXTree")["nodes"]
    return [
        (
            node["role"]["value"],
            node.get("name", {}).get("value", ""),
            any(each["name"] == "focusable" and each["value"].get("value") for each in node.get("properties", [])),
        )
        for node in found
        if not node["ignored"]
    ]


def test_screen_reader(page: Page, server: MapServer) -> None:
    """All that can be used has a name for a screen reader, boxes say what became of their flows, and changes are told."""
    opened(page, server, 3)
    found = nodes(page)
    assert [role for role, name, can_focus in found if can_focus and not name and role != "RootWebArea"] == []
    names = {(role, name) for role, name, _ in found}
    assert ("button", "shop/web; some failed") in names and ("group", "Map of who talks to whom") in names
    assert {
        ("searchbox", "Filter"),
        ("combobox", "Time range"),
        ("button", "Smaller"),
        ("region", "Who talks to whom"),
    } <= names
    assert "status" in {role for role, _ in names}
    assert ("columnheader", "Connects") in names and any(role == "row" and "shop/cart" in name for role, name in names)


def test_keys_alone(page: Page, server: MapServer) -> None:
    """Tab reaches the filter, the boxes and the table, each with a mark of the focus that can be seen; Enter and Escape do the rest."""
    opened(page, server, 3)
    met = dict[str, Any]()
    for _ in range(60):
        page.press("Tab")
        kind, mark = (
            page.run("""(() => { const e = document.activeElement; const shown = e.dataset?.box ? e.querySelector("rect") : e;
          const style = getComputedStyle(shown);
          return [e.dataset?.box ? "box" : e.tagName === "TR" ? "row" : e.closest("th") ? "heading" : e.id || e.dataset?.save || e.tagName,
            e.dataset?.box ? style.strokeWidth : style.outlineStyle]; })()""")
        )
        met[kind] = mark
        if kind == "row":
            break
    assert {"filter", "range", "open", "fit", "svg", "box", "heading", "row"} <= met.keys()
    assert met.pop("box") == "3px" and "none" not in {mark for kind, mark in met.items() if kind != "BODY"}
    page.press("Enter")
    assert page.run("document.querySelector('#drawer').hidden") is False
    page.press("Escape")
    page.run("document.querySelector('.space.open').focus()")
    page.press("Enter")
    assert page.run("document.activeElement.getAttribute('aria-expanded')") == "false"


@pytest.mark.parametrize("dark", [False, True])
def test_contrast(page: Page, server: MapServer, dark: bool) -> None:
    """Text has 4.5 times the light of what is behind it or the reverse, lines 3 times; failed and dropped differ by more than colour."""
    page.look(1440, 900, dark=dark)
    assert server.edges
    server.edges.write([row(src=CART, dst=DB, type="failed", verdict="dropped")])
    opened(page, server, 4)
    ratio = """(() => {
      const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((each) => each / 255)
        .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const apart = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
      const of = (where, what) => getComputedStyle(document.querySelector(where))[what];
      const body = of("body", "backgroundColor"), panel = of("figure", "backgroundColor");
      return { text: [apart(of("#status", "color"), body), apart(of("#legend", "color"), panel), apart(of("td.failed", "color"), body),
          apart(of("td.dropped", "color"), body), apart(of(".spot.failed text", "fill"), of(".spot.failed rect", "fill")),
          apart(of(".spot.dropped text", "fill"), of(".spot.dropped rect", "fill"))],
        lines: ["ok", "failed", "dropped"].map((kind) => apart(of(`.line.${kind} .stroke`, "stroke"), panel)),
        dashes: ["ok", "failed", "dropped"].map((kind) => of(`.line.${kind} .stroke`, "strokeDasharray")),
        boxes: ["failed", "dropped"].map((kind) => of(`.spot.${kind} rect`, "strokeDasharray")) };
    })()"""
    found = page.run(ratio.replace("\\\\", "\\"))
    assert min(found["text"]) >= 4.5 and min(found["lines"]) >= 3, found
    assert len({*found["dashes"]}) == 3 and len({*found["boxes"], "none"}) == 3, found


#: What observe's tests choose from, as edges of the map.
EDGE_OF = {
    "cart asks web": "shop/cart → front/web",
    "web answers cart": "shop/cart → front/web",
    "db asks web6": "data/db → front/web",
    "db asks world": "data/db → outside the cluster/203.0.113.7",
    "db asks service": "data/db → shop/svc/cart",
}


def test_words_of_observe(page: Page) -> None:
    """The filter line chooses the edges of the flows that observe chooses by the same terms, and refuses the same."""
    cart, web, db = (
        Endpoint("", 40001, "pod", space, f"{name}-0")
        for space, name in (("shop", "cart"), ("front", "web"), ("data", "db"))
    )
    flows = [
        row(src=cart, dst=web._replace(port=8080)),
        row(src=web._replace(port=8080), dst=cart, direction="ingress", **ENDED),
        row(src=db, dst=web._replace(port=8080), domain="web.example.com", **ENDED),
        row(src=db, dst=WORLD, type="failed", verdict="no answer", domain="API.stripe.com"),
        row(src=db, dst=Endpoint("10.96.0.7", 80, "svc", "shop", "cart"), type="failed", verdict="refused", protocol="udp",
            domain="cart.shop.svc.cluster.local"),
    ]  # fmt: skip
    owners, said = ClusterOwners(), [*map(judged, OPINIONS)]
    for (namespace, pod), own in LABELS.items():
        owners.labels[namespace, pod.removesuffix("-0")] = {f"{key}={value}" for key, value in own.items()}
    said = [each for each in said if each]
    answer = {
        "flows": said,
        "unused": [],
        "allowed": 1,
        "denied": 1,
        "policies": [],
        "notes": [],
        "diff": "",
        "advised": "",
    }
    told = document("Flows", live=True, policies=True, labels=True)
    with MapServer(0, told, lambda **_: answer) as server:
        server.edges = edges(Owners(lambda: owners))
        server.edges.write(flows)
        opened(page, server, 4)
        for case in TERMS["cases"] + TERMS["policies"]:
            page.type("#filter", case["filter"])
            wanted = sorted({EDGE_OF[name] for name in case["chosen"]})
            if case == TERMS["policies"][0]:  # it has the policies asked what they say
                page.wait(f"{ROWS}.length === {len(wanted)}")
            assert sorted(" → ".join(each[:2]) for each in rows(page)) == wanted, case
        for case in TERMS["wrong"]:
            page.type("#filter", case["filter"])
            wrong = page.run("document.querySelector('#wrong').textContent")
            assert wrong.startswith(f"{case['at']}: {case['error']}"), case
    keys = set(re.findall(r"^  (\w+): \{ (?:ends|edge):", (PAGE / "filter.js").read_text(), re.MULTILINE))
    assert keys == {*KEYS}


def judged(name: str) -> dict[str, Any] | None:
    """What the policies say of a flow of observe's tests, as `check` tells it."""
    opinion = OPINIONS[name]
    if opinion.word == NOT_JUDGED:
        return None
    source, target = EDGE_OF[name].replace("shop/svc/", "svc/").split(" → ")  # as the page calls a Service there
    names = ["/".join(each) for each in (*opinion.egress, *opinion.ingress)]
    word = "allowed" if opinion.word == "allowed" else "denied"
    return {"verdict": word, "source": source, "target": target, "protocol": "TCP", "port": 8080, "connections": 1,
            "maybe": opinion.word == PERHAPS, "reason": "so", "policies": names}  # fmt: skip


def test_cannot_be_told(page: Page, server: MapServer) -> None:
    """Where there is no cluster, labels and policies are refused in the filter line, with what to do instead."""
    opened(page, server, 3)
    for text, why in (("label=app=web", "name pods"), ("policy=denied", "--policy FILE")):
        page.type("#filter", text)
        wrong = page.run("document.querySelector('#wrong').textContent")
        assert wrong.startswith(f"{text}: ") and wrong.endswith(why)
        assert len(rows(page)) == 3
