"""Advice for each plugin, before a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from tests.conftest import wait_until
from tests.e2e.conftest import OWN_CLUSTER, kubectl
from tests.hubble.binaries import DEFINITIONS, calico_parser
from tests.unit.advise.test_golden import TAKEN, advised


def definition(path: Path) -> dict[str, Any]:
    """A CustomResourceDefinition; Calico's for what is applied, of which those that it keeps itself are copies."""
    made: dict[str, Any] = yaml.safe_load(path.read_text().replace("crd.projectcalico.org", "projectcalico.org"))
    if made["spec"]["group"] == "projectcalico.org":
        made["spec"]["versions"][0]["name"] = "v3"
    return made


@pytest.fixture
def known() -> Iterator[None]:
    """The cluster knows the policies of Cilium and Calico."""
    definitions = [definition(calico_parser().with_name(name)) for name in DEFINITIONS]
    made = b"".join(map(orjson.dumps, definitions)).decode()
    names = {each["metadata"]["name"] for each in definitions}
    kubectl("create", "--filename=-", input=made)
    try:
        wait_until(
            lambda: names <= {*kubectl("api-resources", "--output=name").split()}, "the API server knows them", 60
        )
        yield
    finally:
        kubectl("delete", "--wait=false", "--filename=-", input=made)


@pytest.mark.skipif(not OWN_CLUSTER, reason="it may have these plugins")
@pytest.mark.usefixtures("known")
def test_taken() -> None:
    """An API server takes the advice of each situation that has a golden page, for each plugin, every field of it."""
    policies = [
        {**policy, "metadata": {**policy["metadata"], "namespace": "default"}}  # for others are not there
        for dialect in ("kubernetes", "cilium", "calico")
        for name in TAKEN
        for policy in advised(name, dialect)
    ]
    assert len(policies) > 300
    strict = ("--dry-run=server", "--validate=strict", "--output=name", "--filename=-")
    taken = kubectl("create", *strict, input=b"".join(map(orjson.dumps, policies)).decode())
    assert len(taken.splitlines()) == len(policies)
    for policy in policies[0], policies[-1]:
        wrong = {**policy, "spec": {**policy["spec"], "ingres": []}}
        with pytest.raises(AssertionError, match=r'unknown field "spec\.ingres"'):
            kubectl("create", *strict, input=orjson.dumps(wrong).decode())
