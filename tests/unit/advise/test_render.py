from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gadget.errors import GadgetError, UsageError
from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.documents import to_yaml
from kubectl_gadget.advise.draw import render_graph
from kubectl_gadget.advise.graph import make_graph
from kubectl_gadget.advise.observation import Observation, read_flows
from kubectl_gadget.advise.policy import Advice, Policy
from kubectl_gadget.advise.remarks import add_label
from kubectl_gadget.advise.render import DIALECTS, render_json, render_yaml, write_policies
from kubectl_gadget.advise.talks import Settings
from kubectl_gadget.advise.workloads import Workload
from tests.unit.advise.build import Build
from tests.unit.advise.test_golden import GOLDEN, SITUATIONS, settings_of

EVIL = '<script>alert(1)</script>\n--> "x" \x1b[2J #'


def situation(name: str) -> Observation:
    return read_flows(GOLDEN / name / "flows.jsonl")


def cilium(advice: Advice) -> str:
    return render_yaml(advice, dialect="cilium")


def documents(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_form_says_the_same(name: str) -> None:
    """-o json and --explain hold the same policies as the plain YAML, and other dialects as many."""
    advice = advise(situation(name), settings_of(GOLDEN / name))
    plain = [policy.to_dict() for policy in advice.policies]
    assert documents(render_yaml(advice, explain=True)) == plain
    assert orjson.loads(render_json(advice)) == {"apiVersion": "v1", "kind": "List", "items": plain}
    for dialect in DIALECTS:
        shown = documents(render_yaml(advice, dialect=dialect))
        assert [each["metadata"] for each in shown] == [each["metadata"] for each in plain]
        assert documents(render_yaml(advice, explain=True, dialect=dialect)) == shown


scalars = st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=20)
maps = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=9), st.deferred(lambda: values), max_size=3)
values: st.SearchStrategy[Any] = scalars | maps | st.lists(scalars | maps, max_size=3)


@given(maps, st.text(max_size=30))
def test_yaml_reads_back(document: dict[str, Any], remark: str) -> None:
    """Whatever names and labels hold, the YAML means just them, and a comment stays a comment."""
    comments = {(key,): [remark] * number for number, key in enumerate(document, 1)}
    assert (yaml.safe_load(to_yaml(document, comments)) or {}) == document


@pytest.mark.parametrize(
    "word", ["y", "No", "on", "null", "~", "1e3", "0x1f", "1_000", ".5", "12:30", "", "-", "a: b", "=", "2024-01-01"]
)
def test_words_of_yaml_are_quoted(word: str) -> None:
    """A label's value that some YAML reader takes for a number, a time or a truth value is quoted."""
    assert to_yaml({"app": word}, {}) == f'app: "{word}"\n'


def test_explain() -> None:
    """--explain tells of each peer when it was seen, at which ports, from where, and if only the other end saw it."""
    text = render_yaml(advise(situation("tcp-and-udp-on-one-port")), explain=True)
    assert "# web: 48 connections, first 2023-11-14 22:14:20Z, last 2023-11-14 22:15:20Z" in text
    assert "# by port: 5300/TCP 7, 5300/UDP 41" in text
    assert "# from web-6c9f7d5b8-aaaaa" in text
    assert "# seen at the other end only" in render_yaml(advise(situation("one-replica-unseen")), explain=True)


def test_cilium_explained() -> None:
    """--explain tells of Cilium's policies what it tells of the others: of pods, nodes and networks."""
    text = render_yaml(advise(situation("tcp-and-udp-on-one-port")), explain=True, dialect="cilium")
    assert "# web: 48 connections, first 2023-11-14 22:14:20Z, last 2023-11-14 22:15:20Z" in text
    assert "# by port: 5300/TCP 7, 5300/UDP 41" in text
    outside = render_yaml(advise(situation("external")), explain=True, dialect="cilium")
    assert "    - 203.0.113.7/32                   # 7 connections, " in outside


def test_cilium() -> None:
    """--format cilium: pods of other namespaces by Cilium's label, nodes as entities, closed directions closed."""
    policy = only(advise(situation("cross-namespace"), Settings(namespaces=["shop"], selector="app=web")))
    spec = documents(cilium(advise(situation("cross-namespace"), Settings(selector="app=web"))))[0]["spec"]
    assert policy.name == "web"
    assert spec == {
        "endpointSelector": {"matchLabels": {"k8s:app": "web"}},
        "egress": [
            {
                "toEndpoints": [
                    {"matchLabels": {"k8s:app": "cart"}},
                    {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "identity", "k8s:app": "auth"}},
                ],
                "toPorts": [{"ports": [{"port": "8080", "protocol": "TCP"}]}],
            }
        ],
    }
    node = documents(cilium(advise(situation("host-network-client"))))[0]["spec"]["ingress"]
    assert node == [
        {"fromEntities": ["host", "remote-node"], "toPorts": [{"ports": [{"port": "9102", "protocol": "TCP"}]}]}
    ]
    outside = documents(cilium(advise(situation("load-balancer"), Settings(selector="app=web"))))[0]["spec"]["ingress"]
    assert [sorted(rule) for rule in outside] == [["fromEndpoints", "toPorts"], ["fromCIDR", "toPorts"]]
    closed = documents(cilium(advise(situation("default-deny"), Settings(default_deny=True))))[0]["spec"]
    assert closed["egress"] == [{}]
    expressions = documents(cilium(advise(situation("match-expressions"), Settings(selector="tier=edge"))))[0]["spec"]
    assert expressions["endpointSelector"]["matchExpressions"][0] == {"key": "k8s:legacy", "operator": "DoesNotExist"}


def only(advice: Advice) -> Policy:
    (policy,) = advice.policies
    return policy


def test_selection() -> None:
    """-n and -l choose whose policies are shown; their peers may be anywhere."""
    observation = situation("cross-namespace")
    assert [policy.name for policy in advise(observation, Settings(namespaces=["identity"])).policies] == ["auth"]
    assert [policy.name for policy in advise(observation, Settings(namespaces=["!identity"])).policies] == [
        "cart",
        "web",
    ]
    assert [policy.name for policy in advise(observation, Settings(selector="app in (web)")).policies] == ["web"]


def test_since() -> None:
    """--since leaves out what was not seen later."""
    observation = situation("restarted-pods")
    last = max(each.evidence.last for each in observation.connections())
    assert advise(observation, Settings(since=last)).policies
    assert not advise(observation, Settings(since=last + 1)).policies


def test_output_dir(tmp_path: Path) -> None:
    """--output-dir writes a file for each policy, with the warnings about it, and nowhere else."""
    paths = write_policies(advise(situation("gone-unknown")), tmp_path / "policies")
    assert [path.name for path in paths] == ["shop.cart.yaml", "shop.web.yaml", "kustomization.yaml"]
    assert paths[1].read_text().startswith("# WILL BE DENIED: shop/web → 10.244.3.77:9100/TCP")
    build = Build()
    build.node("node-a")
    web = build.pod("../../etc", "../x", "node-a", {"app": "web"})
    build.egress(web, "203.0.113.7", 443)
    path, _ = write_policies(advise(Observation(build.context, build.flows)), tmp_path / "policies")
    assert path.parent == tmp_path / "policies"
    with pytest.raises(GadgetError, match="--output-dir"):
        write_policies(advise(situation("two-nodes")), tmp_path / "policies" / path.name)


def evil() -> str:
    build = Build()
    build.node("node-a")
    web = build.pod("shop", EVIL, "node-a", {"app": "web"})
    cart = build.pod("shop", "cart", "node-a", {"app": "cart"})
    build.talk(web, cart, 8080, count=1234)
    build.egress(cart, "203.0.113.7", 443, failed=1)
    return render_graph(make_graph(Observation(build.context, build.flows)), "html", title=EVIL)


def test_html_is_one_page() -> None:
    """The HTML graph loads nothing from anywhere, and names that hold HTML stay text."""
    found: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

    page = evil()
    Reader().feed(page)
    assert [tag for tag, _ in found].count("script") == 2  # the data, and the page's own
    assert not [attributes for _, attributes in found if {"src", "href", "onerror"} & attributes.keys()]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|\x1b", page)
    assert "alert(1)&lt;/script&gt;\\n" in page and "<script>alert(1)" not in page
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    (message,) = json.loads(data)["messages"]
    assert sorted(edge[3] for edge in message["edges"]) == [["443/TCP"], ["8080/TCP"]]
    assert sorted(sums[2:4] for sums in message["sums"]) == [[1, 1], [1234, 0]]


@pytest.mark.parametrize("form", ["mermaid", "dot", "html"])
@pytest.mark.parametrize("name", SITUATIONS)
def test_graph(name: str, form: str) -> None:
    """Every situation can be drawn, with each workload that talks in it, and always alike."""
    graph = make_graph(situation(name))
    drawn = render_graph(graph, form)
    assert drawn == render_graph(make_graph(situation(name)), form)
    if name != "hostile-names":
        assert all(spot.name in drawn for spot in graph.spots)


def test_mermaid_and_dot() -> None:
    """A graph shows namespaces, who talks to whom at which ports, and what failed."""
    graph = make_graph(situation("failed-attempts"))
    assert render_graph(graph, "mermaid").splitlines() == [
        "graph LR",
        '  subgraph g0["outside the cluster"]',
        '    n0["203.0.113.7"]',
        "  end",
        '  subgraph g1["shop"]',
        '    n1["cart"]',
        '    n2["web"]',
        "  end",
        '  n2 -->|"443/TCP"| n0',
        '  n2 -->|"8080/TCP"| n1',
        '  n2 -.->|"9090/TCP failed"| n1',
    ]
    assert '  n2 -> n1 [label="9090/TCP failed", style=dashed];' in render_graph(graph, "dot")
    with pytest.raises(UsageError, match="want mermaid, dot or html"):
        render_graph(graph, "png")


def test_many_addresses() -> None:
    """A graph with very many addresses outside shows them as one."""
    build = Build()
    build.node("node-a")
    web = build.pod("shop", "web", "node-a", {"app": "web"})
    for last in range(50):
        build.egress(web, f"203.0.113.{last}", 443)
    graph = make_graph(Observation(build.context, build.flows))
    assert [spot.name for spot in graph.spots] == ["other addresses", "web"]
    assert graph.arrows[0].count == 50


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        ("StatefulSet", "db", "kubectl patch statefulset db --namespace shop --type merge --patch "
         """'{"spec":{"template":{"metadata":{"labels":{"app":"db"}}}}}'"""),
        ("Job", "once", "add a label to its template"),
        ("CronJob", "$(reboot)", "kubectl patch cronjob '$(reboot)' --namespace shop"),
    ],
)  # fmt: skip
def test_line_that_adds_a_label(kind: str, name: str, told: str) -> None:
    """The line for kubectl that I am given changes what it says, and is harmless whatever things are called."""
    assert told in add_label(Workload("shop", kind, name))
