"""docs/network-policy.md tells of everything that there is."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import click
import pytest
from msgspec.structs import fields as members_of

from kubectl_gadget.advise import flows
from kubectl_gadget.advise.commands import NetworkPolicyCommand
from kubectl_gadget.cluster.options import cluster_options

PAGE = (Path(__file__).parents[3] / "docs/network-policy.md").read_text()
COMMANDS = {"network-policy": NetworkPolicyCommand(), **NetworkPolicyCommand().commands}
#: Where every command looks, and colours: docs/cluster.md and docs/screens.md tell of those.
COMMON = {option.name for option in cluster_options()}
COMMON |= {"namespace", "all_namespaces", "selector", "agent", "help", "color"}


@pytest.mark.parametrize("name", COMMANDS)
def test_options(name: str) -> None:
    """Each command of `advise network-policy` is told of, and each option of it."""
    assert f"`{name}" in PAGE or f" {name} " in PAGE
    for option in COMMANDS[name].params:
        if isinstance(option, click.Option) and option.name not in COMMON:
            assert [each for each in option.opts if f"`{each} " in PAGE or f"{each}`" in PAGE or f" {each} " in PAGE], (
                option
            )


def test_flows_file() -> None:
    """Each member of a flow, a pod and a node in a flows file is told of."""
    members = {field.name for field in members_of(flows.Flow)}
    for kind in (flows.RememberedPod, flows.NamedPort, flows.NodeAddresses, flows.Lost):
        members |= {field.name for field in fields(kind)}
    assert [name for name in sorted(members) if f"`{name}`" not in PAGE and f'"{name}"' not in PAGE] == []
