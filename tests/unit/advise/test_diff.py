from __future__ import annotations

from typing import Any

import pytest
import yaml

from kubectl_gadget.advise.diff import diff, show


def policy(name: str, spec: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": name, **metadata}, "spec": yaml.safe_load(f"{{{spec}}}")}


CART = "podSelector: {matchLabels: {app: cart}}, ingress: [{ports: [{port: 8080}]}]"


@pytest.mark.parametrize(
    ("current", "advised"),
    [
        (CART, CART + ", policyTypes: [Ingress]"),
        (CART, CART + ", egress: []"),
        (CART, CART + ", egress: null"),
        (CART, CART.replace("port: 8080", "port: 8080, protocol: TCP")),
        (CART, CART.replace("[{ports", "[{from: [], ports")),
        ("ingress: [{from: [{podSelector: {}}]}]", "podSelector: {matchLabels: {}}, ingress: [{from: [{podSelector: {matchLabels: null}}]}]"),
        ("ingress: [{ports: [{port: 1}, {port: 2}]}, {}]", "ingress: [{}, {ports: [{port: 2}, {port: 1}]}]"),
        ("policyTypes: [Egress, Ingress]", "policyTypes: [Ingress, Egress]"),
        ("egress: [{}]", "policyTypes: [Ingress, Egress], egress: [{}]"),
    ],
)  # fmt: skip
def test_same_meaning_is_no_change(current: str, advised: str) -> None:
    """Order, and defaults that are written out, are no change."""
    assert [change.state for change in diff([policy("cart", current)], [policy("cart", advised)])] == ["unchanged"]
    assert [change.state for change in diff([policy("cart", advised)], [policy("cart", current)])] == ["unchanged"]


@pytest.mark.parametrize(
    ("current", "advised"),
    [
        ("ingress: [{}]", "ingress: []"),
        ("egress: [{}]", "policyTypes: [Egress], egress: [{}]"),
        ("ingress: [{from: [{podSelector: {}}]}]", "ingress: [{from: [{namespaceSelector: {}}]}]"),
        (
            "ingress: [{from: [{podSelector: {}}]}]",
            "ingress: [{from: [{podSelector: {}, namespaceSelector: {}}]}]",
        ),
        (CART, CART.replace("port: 8080", "port: 8080, protocol: UDP")),
    ],
)
def test_other_meaning_is_a_change(current: str, advised: str) -> None:
    """What means something else is a change, however small it looks."""
    assert [change.state for change in diff([policy("cart", current)], [policy("cart", advised)])] == ["changed"]


def test_what_the_cluster_adds_is_ignored() -> None:
    """Metadata that the API server keeps, and a status, are no change; labels are."""
    added = policy("cart", CART, uid="1", managedFields=[{}], annotations={"a": "b"}, labels={}) | {"status": {}}
    assert diff([added], [policy("cart", CART)])[0].state == "unchanged"
    assert diff([added], [policy("cart", CART, labels={"a": "b"})])[0].state == "changed"


def test_screen() -> None:
    """Diff says of each policy what applying the advice would do, changes first, with a diff that I can read."""
    web = policy("web", "ingress: [{}]")
    current = [policy("old", ""), policy("cart", CART), web]
    advised = [policy("cart", CART.replace("8080", "8081")), policy("db", "policyTypes: [Ingress]"), web]
    assert show(diff(current, advised)).splitlines() == [
        "changed  shop/cart",
        "--- shop/cart (current)",
        "+++ shop/cart (advised)",
        "@@ -6,7 +6,7 @@",
        " spec:",
        "   ingress:",
        "   - ports:",
        "-    - port: 8080",
        "+    - port: 8081",
        "       protocol: TCP",
        "   podSelector:",
        "     matchLabels:",
        "created  shop/db",
        "--- /dev/null",
        "+++ shop/db (advised)",
        "@@ -0,0 +1,9 @@",
        "+apiVersion: networking.k8s.io/v1",
        "+kind: NetworkPolicy",
        "+metadata:",
        "+  name: db",
        "+  namespace: shop",
        "+spec:",
        "+  podSelector: {}",
        "+  policyTypes:",
        "+  - Ingress",
        "not advised  shop/old, and stays: no flow needs it",
        "unchanged  shop/web",
    ]
