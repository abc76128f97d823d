"""observe --label, --workload: the pods of flows by what the API server tells of them."""

from __future__ import annotations

from typing import Any

import pytest

from gadget.errors import UsageError
from gadget.kube.api import ApiError
from kubectl_gadget.observe.choosing import of_ends
from kubectl_gadget.observe.members import find_labelled, find_members
from tests.conftest import run_cli
from tests.unit.observe.test_choosing import BY_NAME, chosen

PODS = {("shop", "cart-0"): {"app": "cart"}, ("front", "web-0"): {"app": "web"}, ("data", "db-0"): {"app": "db"}}


class Api:
    """An API server whose user may list pods of the whole cluster, or in namespaces alone."""

    def __init__(self, *, everywhere: bool = True) -> None:
        self.everywhere = everywhere

    def list(self, path: str, **query: str) -> list[dict[str, Any]]:
        namespace = path.split("/")[-2] if "/namespaces/" in path else ""
        if not namespace and not self.everywhere:
            raise ApiError(403, "no")
        wanted = query["labelSelector"].partition("=")[2]
        return [
            {"metadata": {"namespace": each[0], "name": each[1]}}
            for each, labels in PODS.items()
            if labels["app"] == wanted and namespace in ("", each[0])
        ]

    def get(self, path: str, **query: str) -> Any:
        if path.endswith("/deployments/cart"):
            return {"spec": {"selector": {"matchLabels": {"app": "cart"}}}}
        return {"items": []}


@pytest.mark.parametrize(("everywhere", "namespaces"), [(True, []), (False, ["shop", "front"]), (True, ["front"])])
def test_labels(everywhere: bool, namespaces: list[str]) -> None:
    """--to-label chooses by the labels of the pod that was asked, as far as I may see pods."""
    find = find_labelled([Api(everywhere=everywhere)], namespaces)  # type: ignore[list-item]
    found = chosen(of_ends(BY_NAME["label"], "to", ["app=web"], find))
    assert found == {"cart asks web", "web answers cart", "db asks web6"}


def test_nobody() -> None:
    """Labels that no pod has, and what are none, are refused."""
    find = find_labelled([Api()], [])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="--label 'app=none': no pod has such labels"):
        of_ends(BY_NAME["label"], "", ["app=none"], find)
    with pytest.raises(UsageError, match="at 'app!!'"):
        of_ends(BY_NAME["label"], "", ["app!!"], find)


def test_workload() -> None:
    """--from-workload deploy/cart chooses by the pods that the deployment has."""
    find = find_members([Api()], ["shop"])  # type: ignore[list-item]
    assert chosen(of_ends(BY_NAME["workload"], "from", ["deploy/cart"], find)) == {"cart asks web", "web answers cart"}
    with pytest.raises(UsageError, match="--workload 'cart': want KIND/NAME"):
        of_ends(BY_NAME["workload"], "", ["cart"], find)


def test_no_cluster() -> None:
    """Without a cluster nobody knows labels: that is said."""
    done = run_cli("observe", "--agent", "unix:///none", "-l", "app=web")
    assert (done.returncode, done.stderr) == (
        2,
        "error: --label: who these are a cluster tells: with --agent name pods\n",
    )
