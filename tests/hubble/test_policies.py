"""Policies for Cilium, read by Cilium's own parser."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.cilium import MOST_PORTS, to_cilium
from kubectl_gadget.advise.observation import read_flows
from kubectl_gadget.advise.policy import Port
from tests.unit.advise.test_golden import GOLDEN, SITUATIONS, settings_of


def refused(binaries: Path, policies: Iterable[dict[str, Any]]) -> list[str]:
    """What Cilium finds wrong with each."""
    lines = b"".join(orjson.dumps(policy) + b"\n" for policy in policies)
    done = subprocess.run([binaries / "policies"], input=lines, capture_output=True, check=True)
    return done.stdout.decode().splitlines()


def advised(name: str) -> list[dict[str, Any]]:
    settings = replace(settings_of(GOLDEN / name), dialect="cilium")
    return [to_cilium(policy) for policy in advise(read_flows(GOLDEN / name / "flows.jsonl"), settings).policies]


def test_cilium_takes_all(binaries: Path) -> None:
    """Cilium's own parser takes the advice of each situation that has a golden page, every field of it."""
    policies = [policy for name in SITUATIONS if name != "hostile-names" for policy in advised(name)]
    found = refused(binaries, policies)
    assert len(found) == len(policies) > 100
    assert [line for line in found if line] == []


@pytest.mark.parametrize("wrong", ["ports", "protocol", "cidr", "field"])
def test_cilium_refuses(binaries: Path, wrong: str) -> None:
    """What Cilium does not take is found: too many ports in an entry, no protocol, no network, no such field."""
    (policy,) = (each for each in advised("passive-ftp") if each["metadata"]["name"] == "ftp")
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
    (found,) = refused(binaries, [policy])
    assert found.startswith("shop/ftp: ") if wrong != "field" else "fromNetworks" in found
