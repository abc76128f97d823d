from __future__ import annotations

from typing import Any

import pytest
import yaml

from gadget.errors import UsageError
from kubectl_gadget.advise.compile import compile_policy

WRONG = {
    "policyTypes: [ingress]": "spec.policyTypes[0]: 'ingress' is neither Ingress nor Egress",
    "ingres: []": "spec: has no field 'ingres', only egress, ingress, podSelector, policyTypes",
    "ingress: {}": "spec.ingress: must be a list, and is {}",
    "ingress: [null]": "spec.ingress[0]: must have fields, and is None",
    "ingress: [{to: []}]": "spec.ingress[0]: has no field 'to', only from, ports",
    "egress: [{from: []}]": "spec.egress[0]: has no field 'from', only ports, to",
    "ingress: [{from: [{}]}]": "spec.ingress[0].from[0]: must have a podSelector, a namespaceSelector or an ipBlock",
    "ingress: [{from: [{podSelector: null}]}]": "must have a podSelector, a namespaceSelector or an ipBlock",
    "ingress: [{from: [{podSelector: {app: web}}]}]": "podSelector: has no field 'app', only matchExpressions, matchLabels",
    "ingress: [{from: [{podSelector: []}]}]": "spec.ingress[0].from[0].podSelector: must have fields, and is []",
    "ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]": "may not have both an ipBlock and a selector",
    "ingress: [{from: [{ipBlock: {}}]}]": "ipBlock.cidr: None is no network such as 10.0.0.0/8",
    "ingress: [{from: [{ipBlock: {cidr: 10.0.0.1}}]}]": "'10.0.0.1' is no network",
    "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/255.0.0.0}}]}]": "'10.0.0.0/255.0.0.0' is no network",
    "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]": "'10.0.0.0/33' is no network",
    "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]": "except[0]: 11.0.0.0/16 is not a part of 10.0.0.0/8",
    "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]": "10.0.0.0/8 is not a part of 10.0.0.0/8",
    "ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: ['2001:db8::/64']}}]}]": "2001:db8::/64 is not a part of 0.0.0.0/0",
    "ingress: [{ports: [{port: 0}]}]": "spec.ingress[0].ports[0].port: 0 is no port from 1 to 65535",
    "ingress: [{ports: [{port: 65536}]}]": "65536 is no port from 1 to 65535",
    "ingress: [{ports: [{port: true}]}]": "True is no port from 1 to 65535",
    "ingress: [{ports: [{port: '8080'}]}]": "'8080' is neither a number nor the name of a port",
    "ingress: [{ports: [{port: HTTP}]}]": "'HTTP' is neither a number nor the name of a port",
    "ingress: [{ports: [{port: a-name-too-long-by-one}]}]": "is neither a number nor the name of a port",
    "ingress: [{ports: [{protocol: tcp}]}]": "protocol: 'tcp' is none of TCP, UDP, SCTP",
    "ingress: [{ports: [{protocol: ICMP}]}]": "protocol: 'ICMP' is none of TCP, UDP, SCTP",
    "ingress: [{ports: [{endPort: 90}]}]": "endPort: needs a number as port",
    "ingress: [{ports: [{port: http, endPort: 90}]}]": "endPort: needs a number as port",
    "ingress: [{ports: [{port: 90, endPort: 80}]}]": "endPort: 80 is less than port 90",
    "egress: [{ports: [{port: 90, endPort: 70000}]}]": "spec.egress[0].ports[0].endPort: 70000 is no port",
    "podSelector: {matchLabels: {app: true}}": "spec.podSelector.matchLabels: app: True is no text: put it in quotes",
    "podSelector: {matchLabels: {app: a b}}": "app: 'a b' is no label's value",
    "podSelector: {matchLabels: {a b: x}}": "'a b' is no label",
    "podSelector: {matchExpressions: [{key: app, operator: In}]}": "matchExpressions[0].values: In needs at least one",
    "podSelector: {matchExpressions: [{key: app, operator: Exists, values: [a]}]}": "values: Exists takes none",
    "podSelector: {matchExpressions: [{key: app, operator: '=', values: [a]}]}": "'=' is none of In, NotIn, Exists",
    "podSelector: {matchExpressions: [{operator: Exists}]}": "matchExpressions[0]: None is no label",
}


def compile_spec(spec: str) -> Any:
    return compile_policy({"metadata": {"name": "cart", "namespace": "shop"}, "spec": yaml.safe_load(f"{{{spec}}}")})


@pytest.mark.parametrize("spec", WRONG)
def test_wrong_policy(spec: str) -> None:
    """A policy that the cluster would refuse is refused in one line, with its name and what is wrong where."""
    with pytest.raises(UsageError) as error:
        compile_spec(spec)
    text = str(error.value)
    assert text.startswith("policy shop/cart: spec") and WRONG[spec] in text and "\n" not in text


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({}, "policy None: metadata.name: None is no name in lower case, such as cart"),
        ({"metadata": []}, "policy None: metadata.name"),
        ({"metadata": {"name": "Cart", "namespace": "shop"}}, "policy 'Cart': metadata.name: 'Cart' is no name"),
        ({"metadata": {"name": "a\nb", "namespace": "shop"}}, r"policy 'a\nb': metadata.name"),
        ({"metadata": {"name": "cart"}}, "policy 'cart': metadata.namespace: None is no name"),
    ],
)
def test_policy_without_name(policy: dict[str, Any], message: str) -> None:
    """A policy without a proper name and namespace is refused."""
    with pytest.raises(UsageError) as error:
        compile_policy(policy)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("{}", "from everyone"),
        ("{ports: [{port: 80}, {port: 81}, {port: 82}, {port: 83}]}", "from everyone on 80/TCP, 81/TCP, 82/TCP and 1 more"),
        ("{from: [{podSelector: {matchLabels: {a: b, c: d}}}]}", "from a=b,c=d"),
        ("{from: [{podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}, {key: c, operator: DoesNotExist}]}}]}", "from a!=b,!c"),
        ("{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: data}}, podSelector: {matchLabels: {a: b}}}]}", "from a=b in data"),
        ("{from: [{ipBlock: {cidr: '2001:DB8::/64'}}]}", "from 2001:db8::/64"),
    ],
)  # fmt: skip
def test_rule_text(rule: str, text: str) -> None:
    """A rule is named by whom and what it allows, short enough for a line."""
    assert compile_spec(f"ingress: [{rule}]").rules["ingress"][0].text == text


def test_rule_without_effect() -> None:
    """A rule whose direction is not in policyTypes is known to have no effect."""
    compiled = compile_spec("policyTypes: [Ingress], ingress: [{}], egress: [{}]")
    assert [compiled.rules[way][0].effective for way in ("ingress", "egress")] == [True, False]
