"""Services and their backends: a Service's address belongs to no machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_gadget.advise.labels import requirements
from kubectl_gadget.advise.networks import normalize
from kubectl_gadget.advise.workloads import Pod

DNS_PORT = 53


@dataclass(frozen=True)
class Backend:
    """A backend of a Service: a pod by its UID, or an address; and the port it listens on."""

    uid: str
    address: str
    port: int


@dataclass(frozen=True, eq=False)
class ServicePort:
    """A port of a Service, and its backends; service is empty for one of a node that leads to a pod there."""

    service: str
    protocol: str
    port: int
    node_port: int
    backends: tuple[Backend, ...]

    @property
    def name(self) -> str:
        """What leads to the backends, for people."""
        return f"svc/{self.service}" if self.service else f"host port {self.port}"


@dataclass(frozen=True)
class ClusterService:
    """A Service: the addresses that its ports are at, and those of load balancers that traffic really goes to."""

    name: str
    cluster_addresses: tuple[str, ...]
    outer_addresses: tuple[str, ...]
    proxies: tuple[str, ...]
    ports: tuple[ServicePort, ...]

    @property
    def is_cluster_dns(self) -> bool:
        """Whether it is in the pods' resolv.conf, as kube-dns, and not kube-dns-upstream, to which caches forward."""
        by = {port.protocol for port in self.ports if port.port == DNS_PORT}
        named = self.name.startswith("kube-system/") and not self.name.endswith("-upstream")
        return named and {"UDP", "TCP"} <= by


def host_ports(pods: Iterable[Pod]) -> dict[str, list[ServicePort]]:
    """Of each node the ports that lead to pods there (hostPort)."""
    found: dict[tuple[str, str, int], list[Backend]] = {}
    for pod in pods:
        for protocol, port, own in () if pod.host_network else pod.host_ports:
            backends = [Backend(pod.uid, address, own) for address in pod.addresses]
            found.setdefault((pod.node, protocol, port), []).extend(backends)
    made: dict[str, list[ServicePort]] = {}
    for (node, protocol, port), backends in found.items():
        made.setdefault(node, []).append(ServicePort("", protocol, port, 0, tuple(backends)))
    return made


def read_services(objects: Iterable[Mapping[str, Any]], pods: Iterable[Pod]) -> list[ClusterService]:
    """All Services, by name."""
    slices: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    services = []
    by_namespace: dict[str, list[Pod]] = {}
    for pod in pods:
        by_namespace.setdefault(pod.namespace, []).append(pod)
    for item in objects:
        metadata = item["metadata"]
        if item["kind"] == "EndpointSlice":
            name = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
            slices.setdefault((metadata.get("namespace", ""), name), []).append(item)
        elif item["kind"] == "Service":
            services.append(item)
    made = []
    for item in services:
        key = (item["metadata"].get("namespace", ""), item["metadata"]["name"])
        made.append(_read(item, slices.get(key, ()), by_namespace.get(key[0], ())))
    return sorted(made, key=lambda service: service.name)


def _read(item: Mapping[str, Any], slices: Iterable[Mapping[str, Any]], pods: Iterable[Pod]) -> ClusterService:
    metadata, spec = item["metadata"], item.get("spec") or {}
    name = f"{metadata['namespace']}/{metadata['name']}"
    balancers = ((item.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    proxies = tuple(normalize(each["ip"]) for each in balancers if each.get("ip") and each.get("ipMode") == "Proxy")
    outer = [each["ip"] for each in balancers if each.get("ip") and each.get("ipMode") != "Proxy"]
    ports = []
    for port in spec.get("ports") or ():
        backends = {*_endpoints(port, slices)} or {*_selected(port, spec.get("selector"), pods)}
        ordered = sorted(backends, key=lambda backend: (backend.uid, backend.address, backend.port))
        protocol = port.get("protocol", "TCP")
        ports.append(ServicePort(name, protocol, port["port"], port.get("nodePort") or 0, tuple(ordered)))
    return ClusterService(
        name,
        tuple(normalize(each) for each in spec.get("clusterIPs") or () if each not in ("", "None")),
        tuple(normalize(each) for each in (*outer, *(spec.get("externalIPs") or ()))),
        proxies,
        tuple(ports),
    )


def _endpoints(port: Mapping[str, Any], slices: Iterable[Mapping[str, Any]]) -> Iterator[Backend]:
    """Who answers at a port by the EndpointSlices, where a named target port has become a number."""
    wanted = (port.get("name") or "", port.get("protocol", "TCP"))
    for each in slices:
        for own in each.get("ports") or ():
            if (own.get("name") or "", own.get("protocol", "TCP")) != wanted:
                continue
            for endpoint in each.get("endpoints") or ():
                target = endpoint.get("targetRef") or {}
                uid = target.get("uid", "") if target.get("kind") == "Pod" else ""
                for address in endpoint.get("addresses") or ():
                    yield Backend(uid, normalize(address), own.get("port") or port["port"])


def _selected(port: Mapping[str, Any], selector: Mapping[str, str] | None, pods: Iterable[Pod]) -> Iterator[Backend]:
    """Who would answer, of the pods that are known: of a Service that has no endpoints any more."""
    conditions = requirements({"matchLabels": selector or {}})
    for pod in pods if conditions else ():
        if all(condition.matches(pod.labels) for condition in conditions):
            for address in pod.addresses:
                if number := _target_port(port, pod):
                    yield Backend(pod.uid, address, number)


def _target_port(port: Mapping[str, Any], pod: Pod) -> int:
    """The number of a Service's target port in a pod; 0 if it has no port of that name."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    protocol = port.get("protocol", "TCP")
    return next((each.port for each in pod.ports if (each.name, each.protocol) == (target, protocol)), 0)
