"""The objects that deploy makes: their paths in the API, whether they exist, and whether they are ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gadget.kube.api import ApiError, ApiServer, not_allowed
from kubectl_gadget.cluster import manifests

_PATHS = {
    "Namespace": "/api/v1/namespaces",
    "ResourceQuota": "/api/v1/namespaces/{}/resourcequotas",
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "Secret": "/api/v1/namespaces/{}/secrets",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
}


def name_of(item: dict[str, Any]) -> str:
    """An object's kind and name."""
    return f"{item['kind']} {item['metadata']['name']}"


def path_of(item: dict[str, Any]) -> str:
    """Where the API server has an object."""
    return f"{_PATHS[item['kind']].format(item['metadata'].get('namespace'))}/{item['metadata']['name']}"


def find(api: ApiServer, item: dict[str, Any]) -> dict[str, Any]:
    """The object as the cluster has it; empty if it has none."""
    try:
        with explained(item, "get"):
            found: dict[str, Any] = api.get(path_of(item))
            return found
    except ApiError as error:
        if error.code == 404:
            return {}
        raise


def is_ours(found: dict[str, Any]) -> bool:
    """Whether deploy made an object, as far as labels tell, or nobody did."""
    labels = found.get("metadata", {}).get("labels") or {}
    return not found or manifests.MANAGED_BY.items() <= labels.items()


@contextmanager
def explained(item: dict[str, Any], verb: str) -> Iterator[None]:
    """Refusals of what is done with an object name the right that is missing."""
    try:
        yield
    except ApiError as error:
        raise not_allowed(error, f"{verb} {name_of(item)}", item["metadata"].get("namespace", "")) from None
