"""The ConfigMap that defines a cluster's standing runs: deploy mounts it into the agents, those that come later too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gadget._generated import gadget_pb2 as pb
from gadget.kube.api import ApiError, ApiServer, api_server
from gadget.kube.kubeconfig import read_context
from gadget.standing import SUFFIX, to_toml
from kubectl_gadget.cluster.manifests import MANAGED_BY
from kubectl_gadget.cluster.objects import explained, path_of
from kubectl_gadget.cluster.options import chosen_cluster

#: As in manifests/agent.yaml.
NAME = "gadget-runs"
MERGE = "application/merge-patch+json"


def config_map(runs: Sequence[pb.Standing], namespace: str) -> dict[str, Any]:
    """The object, with these runs."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": namespace, "labels": dict(MANAGED_BY)},
        **({"data": {f"{run.name}{SUFFIX}": to_toml(run) for run in runs}} if runs else {}),
    }


def keep(runs: Sequence[pb.Standing], without: Iterable[str] = ()) -> None:
    """Have nodes that join later run them too, and not those of the names without. GadgetError if the user may not."""
    api, namespace = _server()
    item = config_map(runs, namespace)
    gone: dict[str, None] = {f"{name}{SUFFIX}": None for name in without}
    with explained(item, "patch"):
        try:
            api.request("PATCH", path_of(item), {"data": item["data"] | gone}, MERGE)
            return
        except ApiError as error:
            if error.code != 404:
                raise
    with explained(item, "create"):
        api.request("POST", path_of(item).rpartition("/")[0], item)


def forget(names: Iterable[str]) -> None:
    """Have no node run them any more. GadgetError if the user may not."""
    api, namespace = _server()
    item = config_map((), namespace)
    with explained(item, "patch"):
        try:
            api.request("PATCH", path_of(item), {"data": {f"{name}{SUFFIX}": None for name in names}}, MERGE)
        except ApiError as error:
            if error.code != 404:
                raise


def _server() -> tuple[ApiServer, str]:
    cluster = chosen_cluster()
    return api_server(read_context(cluster.flags)), cluster.namespace
