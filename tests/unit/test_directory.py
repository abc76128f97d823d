"""Who has which address, as an API server tells users with more and with fewer rights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gadget.endpoints import Owner
from gadget.errors import Unreachable
from gadget.kube import api
from gadget.kube.kubeconfig import ClusterFlags, read_context
from kubectl_gadget.cluster.directory import ask_cluster
from tests.apiserver import ApiServer, api_server

PODS, SERVICES, NODES = "/api/v1/pods", "/api/v1/services", "/api/v1/nodes"


def item(name: str, namespace: str = "", spec: Any = None, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec or {}, "status": status}


def ips(*addresses: str) -> list[dict[str, str]]:
    return [{"ip": address} for address in addresses]


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as running:
        running.nodes = [
            item(
                "node-a",
                addresses=[
                    {"type": "InternalIP", "address": "192.0.2.1"},
                    {"type": "ExternalIP", "address": "203.0.113.1"},
                    {"type": "Hostname", "address": "node-a"},
                ],
            )
        ]
        running.pods = [
            item("cart-0", "shop", podIPs=ips("10.244.1.7", "fd00::7"), phase="Running"),
            item("proxy", "kube-system", {"hostNetwork": True}, podIPs=ips("192.0.2.1"), phase="Running"),
            item("done", "shop", podIPs=ips("10.244.1.8"), phase="Succeeded"),
            item("again", "web", podIPs=ips("10.244.1.8"), phase="Running"),
            item("crashed", "web", podIPs=ips("10.244.1.9"), phase="Failed"),
            item("waits", "web", phase="Pending"),
        ]
        running.services = [
            item("cart", "shop", {"clusterIPs": ["10.96.0.7", "fd96::7"], "externalIPs": ["203.0.113.7"]}),
            item("headless", "shop", {"clusterIPs": ["None"]}),
            item("web", "web", {"clusterIPs": ["10.96.0.8"]}, loadBalancer={"ingress": ips("198.51.100.8")}),
        ]
        yield running


def user(server: ApiServer) -> api.ApiServer:
    return api.ApiServer(
        read_context(ClusterFlags(server=f"http://127.0.0.1:{server.server_port}", kubeconfig="/dev/null"))
    )


CART, AGAIN = Owner("pod", "shop", "cart-0"), Owner("pod", "web", "again")
NODE = Owner("node", "", "node-a")


def test_everyone(server: ApiServer) -> None:
    """An address has the name of its node, pod or service; a host-network pod's is its node's, a finished pod's nobody's."""
    assert ask_cluster(user(server), []) == (
        {
            "192.0.2.1": NODE,
            "203.0.113.1": NODE,
            "10.244.1.7": CART,
            "fd00::7": CART,
            "10.244.1.8": AGAIN,
            "10.96.0.7": Owner("svc", "shop", "cart"),
            "fd96::7": Owner("svc", "shop", "cart"),
            "203.0.113.7": Owner("svc", "shop", "cart"),
            "10.96.0.8": Owner("svc", "web", "web"),
            "198.51.100.8": Owner("svc", "web", "web"),
        },
        True,
    )


def test_rights_in_one_namespace(server: ApiServer) -> None:
    """Who may see one namespace alone, and asks about it, sees the names of its pods and services."""
    server.refused = {NODES, PODS, SERVICES, "/api/v1/namespaces/web/pods"}
    found, complete = ask_cluster(user(server), ["shop", "web"])
    assert not complete
    assert set(found) == {"10.244.1.7", "fd00::7", "10.96.0.7", "fd96::7", "203.0.113.7", "10.96.0.8", "198.51.100.8"}


def test_nodes_without_pods(server: ApiServer) -> None:
    """Who may list nodes but no pods is known as one who does not see all; one without services sees all there can be."""
    server.refused = {PODS}
    found, complete = ask_cluster(user(server), [])
    assert (found["192.0.2.1"], "10.244.1.7" in found, complete) == (NODE, False, False)
    server.refused = {SERVICES}
    found, complete = ask_cluster(user(server), [])
    assert (found["10.244.1.7"], "10.96.0.7" in found, complete) == (CART, False, True)


def test_strange_objects(server: ApiServer) -> None:
    """One object that is not as it should be does not take the names of the others away."""
    server.pods.insert(0, {"metadata": None})
    assert ask_cluster(user(server), [])[0]["10.244.1.7"] == CART


@pytest.mark.parametrize("page", [b"<html>Please log in</html>", b"[]", b'"text"', b"\xff"])
def test_not_an_api_server(server: ApiServer, page: bytes) -> None:
    """When a proxy answers with its login page I am told that this is no API server, in one line."""
    server.page = page
    with pytest.raises(Unreachable, match=r"what answers at http://127.0.0.1:\d+ is no API server"):
        user(server).get("/version")
