"""Policies that somebody keeps: the same again without a change, told from others, in files."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from gadget.errors import GadgetError
from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.observation import Observation
from kubectl_gadget.advise.overview import overview
from kubectl_gadget.advise.policy import Advice
from kubectl_gadget.advise.policy_files import read_policies
from kubectl_gadget.advise.render import render_yaml, write_policies
from kubectl_gadget.advise.talks import Settings
from tests.unit.advise.build import Build
from tests.unit.advise.test_commands import FLOWS
from tests.unit.advise.test_commands import advise as run


def shop(later: int = 0) -> Build:
    """Web talks to cart and, in vain, to one that is gone; the recording was read some seconds later."""
    build = Build()
    for node in ("node-a", "node-b"):
        build.node(node)
    web = build.pod("shop", "web", "node-a", {"app": "web"})
    build.talk(web, build.pod("shop", "cart", "node-b", {"app": "cart"}), 8080, count=5 + later, last=120 + later)
    build.egress(web, "10.244.2.99", 9100, count=3 + later, last=120 + later)
    header = build.context.header
    build.context.header = replace(header, until_ns=header.until_ns + later * 10**9)
    return build


def of(build: Build, **settings: object) -> Advice:
    return advise(Observation(build.context, build.flows), Settings(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("dialect", ["kubernetes", "cilium"])
def test_nothing_new_is_no_diff(dialect: str) -> None:
    """More of the same traffic, a day later, gives the same bytes; with --explain they tell how often and when."""
    early, late = of(shop()), of(shop(86_400))
    assert render_yaml(early, dialect=dialect) == render_yaml(late, dialect=dialect)
    assert "# WILL BE DENIED: shop/web → 10.244.2.99" in render_yaml(early, dialect=dialect)
    told = [render_yaml(each, dialect=dialect, explain=True) for each in (early, late)]
    assert told[0] != told[1] and ": 5 connections, first 2023-11-14 22:14:20Z, last" in told[0]


def test_warnings_stand_at_their_policy() -> None:
    """A warning stands above the policy that it is about, and what is about none at the top."""
    build = shop()
    build.flows.append(build.flows[0].__class__(**{**_fields(build.flows[2]), "protocol": "ICMP", "port": 0}))
    cart, web = render_yaml(of(build)).split("---\n")
    assert cart.startswith("apiVersion: ")
    assert web.startswith("# ICMP: shop/web → 10.244.2.99")
    assert "\n# WILL BE DENIED: shop/web → 10.244.2.99:9100/TCP" in web.partition("apiVersion: ")[0]


def _fields(flow: object) -> dict[str, object]:
    return {name: getattr(flow, name) for name in flow.__struct_fields__}  # type: ignore[attr-defined]


def test_policies_of_others_are_not_overwritten(tmp_path: Path) -> None:
    """I am warned where a chart's policy has the name of an advised one; --name-prefix makes room; ours may be replaced."""
    build = shop()
    metadata = {"name": "web", "namespace": "shop"}
    build.context.objects.append({"kind": "NetworkPolicy", "metadata": metadata})
    (warning,) = [each for each in of(build).warnings if each.policy == "web" and "there already" in each.text]
    assert warning.text == (
        "shop/web is there already, and was not made here: applying this overwrites it: see --name-prefix"
    )
    prefixed = of(build, name_prefix="seen-")
    assert [each.name for each in prefixed.policies] == ["seen-cart", "seen-web"]
    ours = next(each for each in of(build).policies if each.name == "web").to_dict()["metadata"]
    assert ours["labels"] == {"app.kubernetes.io/managed-by": "kubectl-gadget"}
    metadata["labels"] = ours["labels"]
    for advice in (prefixed, of(build), of(build, dialect="cilium")):
        assert not [each for each in advice.warnings if "there already" in each.text]
    wrong = run("report", "--input", FLOWS, "-A", "--name-prefix", "Seen_")
    assert wrong[1:] == ("error: --name-prefix 'Seen_': want up to 40 of a-z, 0-9 and -, a letter or number first\n", 2)


def test_folder(tmp_path: Path) -> None:
    """--output-dir leaves a folder for `kubectl apply -k`, which check reads too; one's own kustomization stays."""
    written = write_policies(of(shop()), tmp_path)
    assert [each.name for each in written] == ["shop.cart.yaml", "shop.web.yaml", "kustomization.yaml"]
    body = yaml.safe_load(written[-1].read_text())
    assert (body["kind"], body["resources"]) == ("Kustomization", ["shop.cart.yaml", "shop.web.yaml"])
    found = read_policies(tmp_path, "default")
    assert len(found.policies) == 2 and not found.skipped
    if kubectl := shutil.which("kubectl"):
        built = subprocess.run([kubectl, "kustomize", tmp_path], capture_output=True, text=True, check=True).stdout
        assert [each["metadata"]["name"] for each in yaml.safe_load_all(built)] == ["cart", "web"]
    assert write_policies(of(shop(), namespaces=["web"]), tmp_path) == []
    written[-1].write_text("kind: Kustomization\n")
    assert len(write_policies(of(shop()), tmp_path)) == 2
    assert written[-1].read_text() == "kind: Kustomization\n"
    written[-1].unlink()
    written[-1].mkdir()
    with pytest.raises(GadgetError, match="--output-dir"):
        write_policies(of(shop()), tmp_path)


@pytest.mark.parametrize(("columns", "name"), [(0, "shop/web"), (80, "shop/web"), (48, "shop/web")])
def test_overview(columns: int, name: str) -> None:
    """First comes a table: each workload, its rules, what is not covered, and for how long it was watched."""
    lines = overview(of(shop()), columns)
    assert [line.split() for line in lines[1:3]] == [
        ["shop/cart", "1", "rule", "open", "-", "1h00m"],
        ["shop/web", "open", "1", "rule", "1", "1h00m"],
    ]
    assert lines[3].startswith("from 1h00m of traffic on 2 nodes: 8 connections")
    assert not columns or max(map(len, lines[:3])) <= columns
    out, err, _ = run("report", "--input", FLOWS, "-A")
    assert err.startswith("WORKLOAD   INGRESS  EGRESS  NOT COVERED  WATCHED\nshop/cart ") and out.startswith(
        "apiVersion"
    )
