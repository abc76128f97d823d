"""Policies for Cilium and Calico, read by their own parsers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import pytest

from kubectl_gadget.advise.cilium import MOST_PORTS
from kubectl_gadget.advise.policy import Port
from tests.hubble.binaries import calico_parser
from tests.unit.advise.test_golden import TAKEN, advised


def refused(parser: Path, policies: Iterable[dict[str, Any]]) -> list[str]:
    """What a parser finds wrong with each."""
    lines = b"".join(orjson.dumps(policy) + b"\n" for policy in policies)
    done = subprocess.run([parser], input=lines, capture_output=True, check=True)
    return done.stdout.decode().splitlines()


def test_cilium_takes_all(binaries: Path) -> None:
    """Cilium's own parser takes the advice of each situation that has a golden page, every field of it."""
    policies = [policy for name in TAKEN for policy in advised(name, "cilium")]
    found = refused(binaries / "policies", policies)
    assert len(found) == len(policies) > 100
    assert [line for line in found if line] == []


@pytest.mark.parametrize("wrong", ["ports", "protocol", "cidr", "field"])
def test_cilium_refuses(binaries: Path, wrong: str) -> None:
    """What Cilium does not take is found: too many ports in an entry, no protocol, no network, no such field."""
    (policy,) = (each for each in advised("passive-ftp", "cilium") if each["metadata"]["name"] == "ftp")
    rule = next(each for each in policy["spec"]["ingress"] if "fromCIDR" in each)
    ports = rule["toPorts"][0]["ports"]
    if wrong == "ports":
        ports += [{**Port(each, "TCP").to_dict(), "port": str(each)} for each in range(1, MOST_PORTS)]
    elif wrong == "protocol":
        ports[0]["protocol"] = "GRE"
    elif wrong == "cidr":
        rule["fromCIDR"] = ["203.0.113.7/33"]
    else:
        rule["fromNetworks"] = rule.pop("fromCIDR")
    (found,) = refused(binaries / "policies", [policy])
    assert found.startswith("shop/ftp: ") if wrong != "field" else "fromNetworks" in found


def test_calico_takes_all() -> None:
    """Calico's own types and validation take the advice of each situation; names are for Calico Enterprise alone."""
    policies = [policy for name in TAKEN for policy in advised(name, "calico")]
    found = refused(calico_parser(), policies)
    assert len(found) == len(policies) > 100
    assert [line for line in found if line] == []
    named = refused(calico_parser(), advised("names-of-addresses", "calico-enterprise"))
    assert [line for line in named if line] == ['shop/web: "json: unknown field \\"domains\\""']


@pytest.mark.parametrize("wrong", ["selector", "protocol", "ports", "nets"])
def test_calico_refuses(wrong: str) -> None:
    """What Calico does not take is found: no selector, no protocol, a range that ends early, networks of two kinds."""
    (policy,) = (each for each in advised("passive-ftp", "calico") if each["metadata"]["name"] == "ftp")
    rule = next(each for each in policy["spec"]["ingress"] if "nets" in each["source"])
    if wrong == "selector":
        policy["spec"]["selector"] = "app = ftp"
    elif wrong == "protocol":
        rule["protocol"] = "GRE"
    elif wrong == "ports":
        rule["destination"]["ports"] = ["30100:30000"]
    else:
        rule["source"]["nets"].append("2001:db8::7/128")
    (found,) = refused(calico_parser(), [policy])
    assert found
