from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gadget.errors import UsageError
from kubectl_gadget.advise.evaluate import Evaluator, PolicyEnd

NAMESPACES = {"shop": {"team": "a"}, "data": {"team": "b", "env": "prod"}}
NAMED = {("TCP", "http"): 8080, ("UDP", "dns"): 5353, ("TCP", "dns"): 5353}

ENDS = {
    "web": PolicyEnd("10.244.1.9", "shop", "web-0", {"app": "web"}),
    "web6": PolicyEnd("fd00:10:244::9", "shop", "web-0", {"app": "web"}),
    "cart": PolicyEnd("10.244.2.7", "shop", "cart-0", {"app": "cart", "tier": "back"}, NAMED),
    "cart2": PolicyEnd("10.244.2.8", "shop", "cart-1", {"app": "cart", "tier": "back"}, NAMED),
    "bare": PolicyEnd("10.244.2.9", "shop", "bare", {}),
    "db": PolicyEnd("10.244.3.3", "data", "db-0", {"app": "db"}),
    "dataweb": PolicyEnd("10.244.3.4", "data", "web-0", {"app": "web"}),
    "lost": PolicyEnd("10.244.9.9", "gone", "x", {"app": "web"}),  # of a namespace whose labels nobody knows
    "world": PolicyEnd("203.0.113.7"),
    "world6": PolicyEnd("2001:db8::7"),
    "mapped": PolicyEnd("::ffff:203.0.113.7"),
    "node": PolicyEnd("192.0.2.10"),
    "own-node": PolicyEnd("192.0.2.11", is_own_node=True),
    "host-pod": PolicyEnd("192.0.2.10", "shop", "proxy", {"app": "web"}, NAMED, host_network=True),
    "nameless": PolicyEnd("10.244.1.9", "shop", "", {"app": "web"}),
    "unknown": PolicyEnd("", "shop", "", {"app": "web"}),
    "no-address": PolicyEnd("", "shop", "web-9", {"app": "web"}),
}


CASES = yaml.safe_load(Path(__file__).with_name("specification.yaml").read_text())["cases"]


def policy(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The policy of "name" in shop, or of "namespace/name"."""
    namespace, _, name = name.rpartition("/")
    return {"metadata": {"namespace": namespace or "shop", "name": name}, "spec": spec}


def evaluator(policies: dict[str, dict[str, Any]]) -> Evaluator:
    return Evaluator([policy(name, spec) for name, spec in policies.items()], NAMESPACES)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["says"]) for case in CASES])
def test_specification(case: dict[str, Any]) -> None:
    """What check says about my policies is what the Kubernetes specification says."""
    source, target, port, protocol = case["flow"].replace("/", " ").split()
    verdict = evaluator(case["policies"]).decide(ENDS[source], ENDS[target], protocol, int(port))
    assert verdict.allowed is ("allowed" in case), verdict.reason
    assert verdict.reason == (case.get("allowed") or case.get("denied") or verdict.reason)


def test_every_case_is_told_apart() -> None:
    """Each case says something that no other says, and either that a flow is allowed or that it is denied."""
    assert len({case["says"] for case in CASES}) == len(CASES) > 100
    assert all(("allowed" in case) != ("denied" in case) for case in CASES)


def load(text: str) -> dict[str, dict[str, Any]]:
    specs: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return specs


def test_verdict_names_rules() -> None:
    """A verdict tells which end is isolated, and each rule of both ends that allows the flow."""
    judge = evaluator(
        load("""
        cart: {ingress: [{ports: [{port: 80}]}, {ports: [{port: 8080}]}, {}], podSelector: {matchLabels: {app: cart}}}
        web: {egress: [{}], policyTypes: [Egress], podSelector: {matchLabels: {app: web}}}
        """)
    )
    verdict = judge.decide(ENDS["web"], ENDS["cart"], "TCP", 8080)
    named = [(rule.namespace, rule.policy, rule.direction, rule.index) for rule in verdict.rules]
    assert named == [("shop", "web", "egress", 0), ("shop", "cart", "ingress", 1), ("shop", "cart", "ingress", 2)]
    assert (verdict.egress.isolated, verdict.ingress.isolated) == (True, True)
    assert judge.decide(ENDS["world"], ENDS["cart"], "TCP", 1).egress.isolated is False


def test_unused_rules() -> None:
    """Rules that no flow needs are listed; one whose flow is denied by the other end is needed."""
    judge = evaluator(
        load("""
        cart: {policyTypes: [Ingress], podSelector: {matchLabels: {app: cart}}}
        web:
          policyTypes: [Egress]
          egress: [{ports: [{port: 80}]}, {to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: 81}, {port: 82}]}]
        """)
    )
    verdict = judge.decide(ENDS["web"], ENDS["cart"], "TCP", 80)
    assert not verdict.allowed
    assert list(map(str, judge.unused(verdict.rules))) == ["web egress rule 2 (to 10.0.0.0/8 on 81/TCP, 82/TCP)"]


def test_rules_of_own_node_are_used() -> None:
    """A rule for my own node counts as used though nothing could deny that traffic: some plugins need it."""
    judge = evaluator(load("cart: {ingress: [{from: [{ipBlock: {cidr: 192.0.2.11/32}}]}]}"))
    assert judge.unused(judge.decide(ENDS["own-node"], ENDS["cart"], "UDP", 53).rules) == []


def test_own_labels_of_a_namespace_count() -> None:
    """Labels of a namespace hold together with the one that is implied."""
    both = "{kubernetes.io/metadata.name: data, env: prod}"
    judge = evaluator(load(f"cart: {{ingress: [{{from: [{{namespaceSelector: {{matchLabels: {both}}}}}]}}]}}"))
    assert judge.allows(ENDS["db"], ENDS["cart"], "TCP", 80)
    assert not judge.allows(ENDS["lost"], ENDS["cart"], "TCP", 80)


def test_unknown_protocol() -> None:
    """Nobody claims to know what a policy does to a protocol that policies say nothing of."""
    with pytest.raises(ValueError, match="ICMP"):
        evaluator({}).decide(ENDS["web"], ENDS["cart"], "ICMP", 0)


def test_policy_twice() -> None:
    """Two policies of one name are refused: only one of them can be in a cluster."""
    with pytest.raises(UsageError, match="policy shop/cart: is there twice"):
        Evaluator([policy("cart", {}), policy("shop/cart", {"policyTypes": ["Egress"]})], {})


def test_many_flows_are_decided_in_seconds() -> None:
    """With hundreds of policies in my cluster, 10,000 different flows take seconds."""
    specs = {
        f"p{number}": {
            "podSelector": {"matchLabels": {"app": f"a{number}"}} if number % 2 else {},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": f"a{number + way}"}}}]} for way in range(5)],
        }
        for number in range(200)
    }
    judge = evaluator(specs)
    ends = [PolicyEnd(f"10.0.{number}.1", "shop", f"a{number}-0", {"app": f"a{number}"}) for number in range(200)]
    start = time.process_time()
    for number in range(10_000):
        judge.allows(ends[number % 200], ends[number * 7 % 199], "TCP", number % 10)
    assert time.process_time() - start < 20  # 1.5 s where nothing else runs


# Properties. Small worlds, so that much matches.
_labels = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b"]), max_size=2)
_expressions = st.one_of(
    st.builds(
        lambda key, operator, values: {"key": key, "operator": operator, "values": values},
        st.sampled_from(["app", "tier"]),
        st.sampled_from(["In", "NotIn"]),
        st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2),
    ),
    st.builds(
        lambda key, operator: {"key": key, "operator": operator},
        st.sampled_from(["app", "tier"]),
        st.sampled_from(["Exists", "DoesNotExist"]),
    ),
)
_selectors = st.fixed_dictionaries(
    {}, optional={"matchLabels": _labels, "matchExpressions": st.lists(_expressions, max_size=1)}
)
_blocks = st.sampled_from(
    [
        {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/31"]},
        {"cidr": "10.0.0.0/30"},
        {"cidr": "::/0"},
        {"cidr": "2001:db8::/127"},
    ]
)
_peers = st.one_of(
    st.builds(lambda pods: {"podSelector": pods}, _selectors),
    st.builds(lambda namespaces: {"namespaceSelector": namespaces}, _selectors),
    st.builds(lambda pods, namespaces: {"podSelector": pods, "namespaceSelector": namespaces}, _selectors, _selectors),
    st.builds(lambda block: {"ipBlock": block}, _blocks),
)
_protocols = st.sampled_from(["TCP", "UDP", "SCTP"])
_ports = st.one_of(
    st.fixed_dictionaries({}, optional={"protocol": _protocols, "port": st.sampled_from([1, 2, 3, "p"])}),
    st.fixed_dictionaries({"port": st.just(2), "endPort": st.sampled_from([2, 3])}, optional={"protocol": _protocols}),
)


def _rules(key: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    rule = st.fixed_dictionaries(
        {}, optional={key: st.lists(_peers, max_size=2), "ports": st.lists(_ports, max_size=2)}
    )
    return st.lists(rule, max_size=2)


_specs = st.fixed_dictionaries(
    {"podSelector": _selectors},
    optional={
        "ingress": _rules("from"),
        "egress": _rules("to"),
        "policyTypes": st.lists(st.sampled_from(["Ingress", "Egress"]), unique=True),
    },
)
_policies = st.lists(st.tuples(st.sampled_from(["one", "two"]), _specs), max_size=4).map(
    lambda items: [
        {"metadata": {"namespace": namespace, "name": f"p{index}"}, "spec": spec}
        for index, (namespace, spec) in enumerate(items)
    ]
)
_addresses = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.9", "192.0.2.1", "2001:db8::1", "2001:db8::2", ""])
_named = st.dictionaries(st.tuples(_protocols, st.just("p")), st.sampled_from([1, 2]), max_size=1)
_ends = st.one_of(
    st.builds(PolicyEnd, _addresses),
    st.builds(
        PolicyEnd,
        _addresses,
        st.sampled_from(["one", "two"]),
        st.sampled_from(["x", "y"]),
        _labels,
        _named,
        st.booleans(),
    ),
)
_flows = st.tuples(_ends, _ends, _protocols, st.sampled_from([1, 2, 3, 4]))
_namespaces = st.just({"one": {"app": "a"}, "two": {"app": "b", "tier": "a"}})


@settings(deadline=None)
@given(_flows, _namespaces)
def test_without_policies_all_is_allowed(
    flow: tuple[PolicyEnd, PolicyEnd, str, int], namespaces: dict[str, dict[str, str]]
) -> None:
    """If I remove all policies, everything is allowed."""
    assert Evaluator([], namespaces).allows(*flow)


@settings(deadline=None)
@given(_policies, st.lists(_flows, min_size=1, max_size=4), _namespaces, st.data())
def test_another_rule_never_denies(
    policies: list[Any], flows: list[Any], namespaces: dict[str, dict[str, str]], data: st.DataObject
) -> None:
    """A rule that I add to a policy never denies what was allowed."""
    before = Evaluator(policies, namespaces)
    added = []
    for item in policies:
        spec = item["spec"]
        more = {
            key: [*spec.get(key, []), *data.draw(_rules(way))] for key, way in (("ingress", "from"), ("egress", "to"))
        }
        # Written out, as a first egress rule would isolate egress by default.
        types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
        added.append({**item, "spec": {**spec, **more, "policyTypes": types}})
    after = Evaluator(added, namespaces)
    assert all(after.allows(*flow) for flow in flows if before.allows(*flow))


@settings(deadline=None)
@given(_policies, _specs, st.lists(_flows, min_size=1, max_size=4), _namespaces)
def test_policy_for_others_changes_nothing(
    policies: list[Any], spec: dict[str, Any], flows: list[Any], namespaces: dict[str, dict[str, str]]
) -> None:
    """A policy that selects neither of two pods changes nothing between them."""
    nobody = {"matchLabels": {"app": "nobody"}}
    others = [
        {"metadata": {"namespace": name, "name": "other"}, "spec": {**spec, "podSelector": nobody}}
        for name in ("one", "two")
    ]
    before, after = Evaluator(policies, namespaces), Evaluator([*policies, *others], namespaces)
    assert [before.decide(*flow).reason for flow in flows] == [after.decide(*flow).reason for flow in flows]


def _reverse(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reverse(item) for key, item in reversed(value.items())}
    return [_reverse(item) for item in reversed(value)] if isinstance(value, list) else value


@settings(deadline=None)
@given(_policies, st.lists(_flows, min_size=1, max_size=4), _namespaces)
def test_order_means_nothing(policies: list[Any], flows: list[Any], namespaces: dict[str, dict[str, str]]) -> None:
    """Policies, rules, peers and ports mean the same in whatever order I write them, and whatever was asked before."""
    before, after = Evaluator(policies, namespaces), Evaluator(_reverse(policies), namespaces)
    forward = [before.allows(*flow) for flow in flows]
    assert forward == [after.allows(*flow) for flow in reversed(flows)][::-1]


@settings(deadline=None)
@given(_policies, _policies, st.lists(_flows, min_size=1, max_size=4), _namespaces)
def test_isolated_pods_lose_nothing_by_more_policies(
    first: list[Any], second: list[Any], flows: list[Any], namespaces: dict[str, dict[str, str]]
) -> None:
    """Another policy never takes away what policies allow at an end that is isolated already."""
    renamed = [{**item, "metadata": {**item["metadata"], "name": f"q{index}"}} for index, item in enumerate(second)]
    before, after = Evaluator(first, namespaces), Evaluator([*first, *renamed], namespaces)
    for flow in flows:
        old, new = before.decide(*flow), after.decide(*flow)
        assert new.egress.allowed or not (old.egress.isolated and old.egress.allowed)
        assert new.ingress.allowed or not (old.ingress.isolated and old.ingress.allowed)


def _one_each(rule: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """A rule as rules of one peer and one port at most."""
    peers = [{key: [peer]} for peer in rule.get(key, [])] or [{}]
    ports = [{"ports": [port]} for port in rule.get("ports", [])] or [{}]
    return [{**peer, **port} for peer in peers for port in ports]


@settings(deadline=None)
@given(_policies, st.lists(_flows, min_size=1, max_size=4), _namespaces)
def test_policies_add_up(policies: list[Any], flows: list[Any], namespaces: dict[str, dict[str, str]]) -> None:
    """One policy means what many do that each have one peer and one port of it."""
    split = []
    for item in policies:
        spec = item["spec"]
        types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
        only = {"podSelector": spec["podSelector"], "policyTypes": types}
        specs = [only]
        for direction, key in (("ingress", "from"), ("egress", "to")):
            if direction.title() in types:
                rules = [each for rule in spec.get(direction, []) for each in _one_each(rule, key)]
                specs += [{**only, direction: [rule]} for rule in rules]
        metadata = item["metadata"]
        split += [
            {"metadata": {**metadata, "name": f"{metadata['name']}-{number}"}, "spec": each}
            for number, each in enumerate(specs)
        ]
    together, apart = Evaluator(policies, namespaces), Evaluator(split, namespaces)
    assert [together.allows(*flow) for flow in flows] == [apart.allows(*flow) for flow in flows]


@settings(deadline=None)
@given(_policies, st.lists(_flows, min_size=1, max_size=4), _namespaces)
def test_each_policy_speaks_for_itself(
    policies: list[Any], flows: list[Any], namespaces: dict[str, dict[str, str]]
) -> None:
    """The rules that allow a flow are those that would if their policy were the only one."""
    alone = [Evaluator([item], namespaces) for item in policies]
    for flow in flows:
        for side in ("egress", "ingress"):
            together = getattr(Evaluator(policies, namespaces).decide(*flow), side)
            apart = [getattr(judge.decide(*flow), side) for judge in alone]
            assert together.isolated == any(each.isolated for each in apart)
            assert sorted(map(str, together.rules)) == sorted(str(rule) for each in apart for rule in each.rules)
