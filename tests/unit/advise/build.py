"""Clusters for tests: objects as the API server has them, and flows as agents see them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import Any

from kubectl_gadget.advise.flows import Flow, FlowContext, Header, NodeAddresses, RememberedPod

SECOND = 1_000_000_000
#: 2023-11-14 22:13:20 UTC
BEGAN = 1_700_000_000 * SECOND
UNTIL = BEGAN + 3600 * SECOND


@dataclass(frozen=True)
class Place:
    """A pod that was made: enough to let it talk."""

    namespace: str
    name: str
    uid: str
    node: str
    address: str
    host_network: bool = False


@dataclass
class Build:
    """A cluster in the making. IPv4 unless addresses are given; node-a has 192.168.0.1 and pods in 10.244.1.0/24."""

    context: FlowContext = field(default_factory=lambda: FlowContext(Header(BEGAN, UNTIL, ())))
    flows: list[Flow] = field(default_factory=list)
    _uids: count[int] = field(default_factory=lambda: count(1))
    nodes: dict[str, int] = field(default_factory=dict)
    _pods: dict[str, count[int]] = field(default_factory=dict)

    def node(self, name: str, *, address: str = "", cidr: str = "", agent: bool = True) -> str:
        """A node; without an agent it is not in the header."""
        number = self.nodes[name] = len(self.nodes) + 1
        self._pods[name] = count(2)
        address, cidr = address or f"192.168.0.{number}", cidr or f"10.244.{number}.0/24"
        body = {"spec": {"podCIDRs": [cidr]}, "status": {"addresses": [{"type": "InternalIP", "address": address}]}}
        self._add("Node", "", name, **body)
        if agent:
            header = self.context.header
            self.context.header = Header(header.from_ns, header.until_ns, (*header.nodes, name))
        return name

    def owner(self, kind: str, namespace: str, name: str, selector: dict[str, Any], owner: str = "") -> str:
        """A Deployment or the like with a selector, or none; gives what its pods name as their owner."""
        self._add(kind, namespace, name, owner=owner, **({"spec": {"selector": selector}} if selector else {}))
        return f"{kind}/{name}"

    def deployment(self, namespace: str, name: str, labels: dict[str, str], revision: str = "6c9f7d5b8") -> str:
        """A Deployment and its ReplicaSet; gives what its pods name as their owner."""
        self.owner("Deployment", namespace, name, {"matchLabels": labels})
        selector = {"matchLabels": {**labels, "pod-template-hash": revision}}
        return self.owner("ReplicaSet", namespace, f"{name}-{revision}", selector, f"Deployment/{name}")

    def pod(
        self,
        namespace: str,
        name: str,
        node: str,
        labels: dict[str, str],
        owner: str = "",
        *,
        address: str = "",
        host_network: bool = False,
        ports: list[dict[str, Any]] | None = None,
        started: str = "2023-11-14T20:00:00Z",
        ended: str = "",
    ) -> Place:
        """A pod that runs, or has ended."""
        if not address:
            number = self.nodes[node]
            address = f"192.168.0.{number}" if host_network else f"10.244.{number}.{next(self._pods[node])}"
        spec: dict[str, Any] = {"nodeName": node}
        if host_network:
            spec["hostNetwork"] = True
        if ports:
            spec["containers"] = [{"ports": ports}]
        status: dict[str, Any] = {"podIPs": [{"ip": address}], "startTime": started}
        if ended:
            status |= {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"finishedAt": ended}}}]}
        uid = self._add("Pod", namespace, name, labels, owner, spec=spec, status=status)
        return Place(namespace, name, uid, node, address, host_network)

    def gone(
        self,
        namespace: str,
        name: str,
        node: str,
        labels: dict[str, str],
        owner: str,
        address: str,
        first: int,
        last: int,
    ) -> Place:
        """A pod that only an agent remembers; first and last in seconds after the beginning."""
        uid = self._uid()
        times = (BEGAN + first * SECOND, BEGAN + last * SECOND)
        self.context.pods.append(RememberedPod(namespace, name, uid, labels, owner, (address,), *times, node))
        return Place(namespace, name, uid, node, address)

    def service(
        self,
        namespace: str,
        name: str,
        address: str,
        ports: list[dict[str, Any]],
        pods: list[Place],
        targets: list[int],
        *,
        selector: dict[str, str] | None = None,
        **more: Any,
    ) -> str:
        """A Service whose ports lead to the target ports of pods, one each; gives its address."""
        addresses = more.pop("addresses", None) or sorted({pod.address for pod in pods})
        spec = {"clusterIPs": [address], "ports": ports, **({"selector": selector} if selector else {})}
        status = more.pop("status", {})
        self._add("Service", namespace, name, spec={**spec, **more}, **({"status": status} if status else {}))
        if pods:
            endpoints = [
                {"addresses": [pod.address], "targetRef": {"kind": "Pod", "name": pod.name, "uid": pod.uid}}
                for pod in pods
            ]
        else:
            endpoints = [{"addresses": [each]} for each in addresses]
        numbered = [
            {"name": port.get("name", ""), "protocol": port.get("protocol", "TCP"), "port": target}
            for port, target in zip(ports, targets, strict=True)
        ]
        self._add(
            "EndpointSlice", namespace, f"{name}-x7k2p", {"kubernetes.io/service-name": name},
            endpoints=endpoints, ports=numbered,
        )  # fmt: skip
        return address

    def node_addresses(self, node: str, *addresses: str) -> None:
        """What the agent of a node finds there."""
        self.context.nodes.append(NodeAddresses(node, addresses))

    def talk(self, source: Place, target: Place, port: int, protocol: str = "TCP", count: int = 1, **more: Any) -> None:
        """Connections of one pod with another, as both agents see them."""
        self.egress(source, target.address, port, protocol, count, **more)
        self.ingress(target, source.address, port, protocol, count, **more)

    def egress(self, pod: Place, peer: str, port: int, protocol: str = "TCP", count: int = 1, **more: Any) -> None:
        """Connections that a pod made."""
        self._flow("egress", pod, peer, port, protocol, count, **more)

    def ingress(self, pod: Place, peer: str, port: int, protocol: str = "TCP", count: int = 1, **more: Any) -> None:
        """Connections that a pod accepted."""
        self._flow("ingress", pod, peer, port, protocol, count, **more)

    def _flow(
        self, direction: str, pod: Place, peer: str, port: int, protocol: str, count: int,
        first: int = 60, last: int = 120, **more: Any,
    ) -> None:  # fmt: skip
        if pod.host_network:
            more = {"host_network": True, "local": pod.address, **more}
        self.flows.append(
            Flow(
                pod.node, pod.namespace, pod.name, pod.uid, direction, protocol, peer, port, count,
                BEGAN + first * SECOND, BEGAN + last * SECOND, **more,
            )
        )  # fmt: skip

    def _uid(self) -> str:
        return f"00000000-0000-4000-8000-{next(self._uids):012d}"

    def _add(
        self, kind: str, namespace: str, name: str, labels: dict[str, str] | None = None, owner: str = "", **body: Any
    ) -> str:
        uid = self._uid()
        metadata: dict[str, Any] = {"name": name, **({"namespace": namespace} if namespace else {})}
        if kind == "Pod":
            metadata["uid"] = uid
        if labels:
            metadata["labels"] = labels
        if owner:
            above, _, above_name = owner.partition("/")
            metadata["ownerReferences"] = [{"kind": above, "name": above_name, "controller": True}]
        self.context.objects.append({"kind": kind, "metadata": metadata, **body})
        return uid
