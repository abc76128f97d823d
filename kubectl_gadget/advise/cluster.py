"""Finds the owner of an address at a time: the ends of flows, from objects and from what agents remember."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from kubectl_gadget.advise.crowd import Crowd
from kubectl_gadget.advise.flows import Flow, FlowContext, NamedPort
from kubectl_gadget.advise.labels import stable
from kubectl_gadget.advise.networks import (
    ON_EACH_NODE,
    WELL_KNOWN,
    Networks,
    is_nobody,
    may_be_dns_cache,
    normalize,
    parse,
)
from kubectl_gadget.advise.services import DNS_PORT, ClusterService, ServicePort, host_ports, read_services
from kubectl_gadget.advise.workloads import Pod, Workload, Workloads, merge_pods, read_pod

#: The clocks of nodes, and the moments at which agents look at pods, differ by no more than this.
GRACE_NS = 30_000_000_000
#: The label k8s-app of the cluster's DNS cache: in k8s.io/dns, and with kubespray.
_DNS_CACHES = ("node-local-dns", "nodelocaldns")
_NO_LABELS: Mapping[str, str] = {}


@dataclass(eq=False, slots=True)
class FlowEnd:
    """One end of a flow: pods that are alike in all that policies look at, or one address.

    kind is pod, node (with its host-network pods), external, unknown (a pod network's address that nobody is known to
    have had, or a pod of which only its name is known) or service (a Service's address, where policies see that). name
    is for people. address is one of those that pods have, or the address. nodes are those that have a node's address.
    crowd: all its addresses, of an external end that stands for very many.
    """

    kind: str
    name: str
    address: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    ports: tuple[NamedPort, ...] = ()
    host_network: bool = False
    workload: Workload | None = None
    nodes: frozenset[str] = frozenset()
    crowd: Crowd | None = None

    @property
    def named_ports(self) -> dict[tuple[str, str], int]:
        """Ports by protocol and name."""
        return {(port.protocol, port.name): port.port for port in self.ports}


class Reached(NamedTuple):
    """An end that a flow may have reached, and which peer it was.

    port is the one there, 0 if it is the flow's. nodes are those of the pods, as far as they are known. service is
    the Service behind which it is.
    """

    end: FlowEnd
    port: int
    peer: str
    nodes: frozenset[str] = frozenset()
    service: ServicePort | None = None


class _Holder(NamedTuple):
    first: int
    last: int
    pod: Pod
    reached: tuple[Reached]


_NO_PORTS: Mapping[tuple[str, int], ServicePort] = {}


class _Address:
    """All that is known of an address. end is its owner at times when no pod has it; None for nobody."""

    __slots__ = ("end", "holders", "reached", "resolved", "services")

    def __init__(self, end: FlowEnd | None) -> None:
        self.end = end
        self.reached: tuple[Reached, ...] = (Reached(end, 0, ""),) if end else ()
        # of most addresses nothing else is known, and there may be very many
        self.holders: tuple[_Holder, ...] = ()
        self.services: Mapping[tuple[str, int], ServicePort] = _NO_PORTS
        self.resolved: dict[tuple[str, int], tuple[Reached, ...]] | None = None


class Cluster:
    """The ends of flows."""

    def __init__(self, context: FlowContext, *, by_address: bool = False) -> None:
        """From objects, and the pods and nodes that agents tell of. by_address: no two addresses are one end."""
        until = context.header.until_ns
        live = [read_pod(item, until) for item in context.objects if item["kind"] == "Pod"]
        self.pods = merge_pods(live, context.pods)
        self._by_uid = {pod.uid: pod for pod in self.pods}
        self.workloads = Workloads(context.objects, self.pods)
        self.services = read_services(context.objects, self.pods)
        #: Each cluster has this Service, so that who knows none cannot tell its Services' addresses from others.
        self.knows_services = any(service.name == "default/kubernetes" for service in self.services)
        #: Where the API servers are: not at an address of a Service, but at those of its endpoints.
        self.api_servers = frozenset(
            backend.address
            for service in self.services
            if service.name == "default/kubernetes"
            for port in service.ports
            for backend in port.backends
        )
        #: Addresses by which nodes know each other, with the names of those that have them.
        self.node_addresses = _by_address(_of_nodes(context))
        self.node_names = frozenset(item["metadata"]["name"] for item in context.objects if item["kind"] == "Node")
        self._stated = _by_address(_stated(context, self.pods))
        virtual = {address for each in self.services for address in (*each.cluster_addresses, *each.outer_addresses)}
        found = ((address, node.name) for node in context.nodes for address in map(normalize, node.addresses))
        #: Those that agents find on their nodes; kube-proxy in IPVS mode gives the addresses of Services to each node.
        self.found_on_nodes = _by_address(pair for pair in found if pair[0] not in virtual)
        self._nodes = self.found_on_nodes | self._stated
        self.pod_cidrs = [
            cidr
            for item in context.objects
            if item["kind"] == "Node"
            for cidr in (item.get("spec") or {}).get("podCIDRs") or ()
        ]
        self.networks = Networks(
            self.pod_cidrs,
            (address for pod in self.pods if not pod.host_network for address in pod.addresses),
            (address for service in self.services for address in service.cluster_addresses),
            self._nodes,
            self.found_on_nodes.keys() - self._stated.keys(),
        )
        self._workload_of = {pod.uid: workload for workload in self.workloads.all for pod in workload.pods}
        self.by_address = by_address
        self._pod_ends: dict[object, FlowEnd] = {}
        self._node_ends: dict[str, FlowEnd] = {}
        self._node_names: dict[str, str] = {}  # but those made of the nodes' own
        self._unknown_pods: dict[str, FlowEnd] = {}
        self.addresses: dict[str, _Address] = {}
        #: those of whom there is nothing else to say; there may be very many
        self._strangers: dict[str, FlowEnd] = {}
        self._caches_dns = any(pod.labels.get("k8s-app") in _DNS_CACHES for pod in self.pods)
        self._learned: dict[tuple[str, str], _Holder] = {}
        self._fill()

    def nodes_at(self, address: str) -> frozenset[str]:
        """The nodes that have an address, also those that are gone."""
        return self._nodes.get(address, frozenset())

    def workload_of(self, uid: str) -> Workload | None:
        """The workload of a pod."""
        return self._workload_of.get(uid)

    def dns_ports(self) -> dict[Workload, set[tuple[str, int]]]:
        """The ports at which workloads answer for a DNS Service: one that has port 53 both for UDP and for TCP."""
        found: dict[Workload, set[tuple[str, int]]] = {}
        for service in self.services:
            ports = [port for port in service.ports if port.port == DNS_PORT and port.protocol in ("UDP", "TCP")]
            if len({port.protocol for port in ports}) == 2:
                for port in ports:
                    for backend in port.backends:
                        if workload := self.workload_of(backend.uid):
                            found.setdefault(workload, set()).add((port.protocol, backend.port))
        return found

    def local(self, flow: Flow) -> tuple[FlowEnd, ...]:
        """The end at which a flow was seen. Pods with the host's network count as their node."""
        pod = self._by_uid.get(flow.uid)
        if flow.host_network or (pod and pod.host_network):
            version = ":" in str(parse(flow.peer))
            own = [normalize(flow.local)] if flow.local else self._addresses_of(flow.node)
            return tuple(
                self._node_end(address, flow.node)
                for address in own
                if (":" in address) == version and not is_nobody(parse(address))
            )
        if pod is None:
            return (self._unknown_pod(flow),)
        version = ":" in flow.peer
        fitting = (each for each in pod.addresses if (":" in each) == version)
        return (self._pod_end(pod, normalize(flow.local) if flow.local else next(fitting, "")),)

    def is_hardly_known(self, flow: Flow) -> bool:
        """Whether a flow may be all that tells an address of its pod."""
        pod = self._by_uid.get(flow.uid)
        return pod is None or not (pod.addresses or pod.host_network)

    def learn(self, flow: Flow, ends: tuple[FlowEnd, ...]) -> None:
        """Keep what a flow tells of its own pod's address, for when all flows have been seen."""
        if flow.local and ends and not flow.host_network:
            known = self._learned.get((flow.uid, flow.local))
            first, last = (
                (min(known.first, flow.first), max(known.last, flow.last)) if known else (flow.first, flow.last)
            )
            pod = self._by_uid.get(flow.uid) or Pod(
                flow.namespace, flow.pod, flow.uid, {}, "", (), flow.first, flow.last, flow.node, False, ()
            )
            first, last = min(first, pod.first), max(last, pod.last)
            reached = Reached(ends[0], 0, pod.name, _nodes_of(pod))
            self._learned[flow.uid, flow.local] = _Holder(first, last, pod, (reached,))

    def apply_learned(self) -> None:
        """Let what flows tell of their own pods' addresses count."""
        for (_, address), holder in sorted(self._learned.items()):
            plain = normalize(address)
            known = self.addresses.get(plain)
            if known is None:
                end = self._strangers.pop(plain, None) or FlowEnd("unknown", plain, plain)
                known = self.addresses[plain] = _Address(end)
            if plain not in self._nodes:
                known.holders += (holder,)
        self._learned.clear()

    def outsider(self, address: str, first: int, last: int) -> FlowEnd:
        """The owner of an address outside the cluster; a pod, if one turned out to have it at the time."""
        known = self.addresses.get(address)
        if known is None:
            return self._stranger(address) or self._strangers.setdefault(address, FlowEnd("external", address, address))
        held = (each.reached[0].end for each in known.holders if each.first <= last and each.last >= first)
        return next(held, known.end or FlowEnd("external", address, address))

    def _addresses_of(self, node: str) -> list[str]:
        known = self._stated if any(node in names for names in self._stated.values()) else self._nodes
        return sorted(address for address, names in known.items() if node in names)

    def peer(self, flow: Flow) -> tuple[Reached, ...]:
        """The possible owners of the other end; none if it is the same pod, the same machine, or all machines."""
        known = self.addresses.get(flow.peer)
        if known is None:
            known = self._look_up(flow.peer)
        if flow.port == DNS_PORT and flow.direction == "egress" and self._is_dns_cache(flow):
            return (Reached(self._node_end(normalize(flow.peer), "", "node-local DNS"), 0, ""),)
        if known.services and flow.direction == "egress":
            key = (flow.protocol, flow.port)
            known.resolved = known.resolved if known.resolved is not None else {}
            if reached := known.resolved.get(key):
                return reached
            if key in known.services:
                reached = known.resolved[key] = self._behind(known.services[key], ":" in normalize(flow.peer))
                return reached
        return self._held(known, flow) if known.holders else known.reached

    def _is_dns_cache(self, flow: Flow) -> bool:
        """Whether a question was sent to the cache of a node: at a link-local address that is nothing else."""
        address = parse(flow.peer)
        return flow.protocol in ("UDP", "TCP") and may_be_dns_cache(address) and str(address) not in WELL_KNOWN

    def _held(self, known: _Address, flow: Flow) -> tuple[Reached, ...]:
        """The pods that had an address while a flow lasted; else a pod that had it shortly before or after."""
        first, last, holders = flow.first, flow.last, known.holders
        held = [each for each in holders if each.first <= last and each.last >= first]
        if not held:
            near = min(holders, key=lambda each: max(each.first - last, first - each.last))
            if max(near.first - last, first - near.last) > GRACE_NS:
                return known.reached
            held = [near]
        if len(held) == 1:
            return () if held[0].pod.uid == flow.uid else held[0].reached
        return tuple({each.reached[0].end: each.reached[0] for each in held if each.pod.uid != flow.uid}.values())

    def _behind(self, port: ServicePort, is_ipv6: bool) -> tuple[Reached, ...]:
        """The backends of a Service's port. If they have addresses of both IP versions, those of the flow's version."""
        found: dict[tuple[FlowEnd, int], Reached] = {}
        # by the other IP version there may be other backends, so that this is a Service of its own
        name, own = port.name, replace(port)
        fitting = [backend for backend in port.backends if (":" in backend.address) == is_ipv6]
        for backend in fitting or port.backends:
            pod, end = self._by_uid.get(backend.uid), None
            if pod is None or pod.host_network:
                known = self.addresses.get(backend.address) or self._look_up(backend.address)
                newest = max(known.holders, key=lambda each: each.last, default=None)
                pod, end = newest.pod if newest else None, known.end
            if pod:
                end = self._pod_end(pod, backend.address, replica=True)
            if end is not None:
                known_nodes = found[end, backend.port].nodes if (end, backend.port) in found else frozenset()
                nodes = known_nodes | (_nodes_of(pod) if pod else end.nodes)
                found[end, backend.port] = Reached(end, backend.port, name, nodes, own)
        if not found:
            return (Reached(FlowEnd("unknown", f"{name}, which has no endpoints", ""), port.port, name),)
        reached = tuple(found.values())
        if port.port == DNS_PORT and self._caches_dns:  # the cache answers at the Service's address, before any NAT
            reached += tuple(
                Reached(self._node_end(address, "", f"node-local DNS at {address}"), DNS_PORT, "", service=own)
                for service in self.services
                if service.name == port.service and service.is_cluster_dns
                for address in service.cluster_addresses
                if (":" in address) == is_ipv6
            )
        return reached

    def _fill(self) -> None:
        """Note the owners of addresses. A Service's ports count first, as its addresses may be on nodes too."""
        for address, names in self._nodes.items():
            self.addresses[address] = _Address(self._node_end(address, min(names)))
        for pod in self.pods:
            for address in pod.addresses if not pod.host_network else ():
                if address in self._nodes:
                    continue
                known = self.addresses.setdefault(address, _Address(FlowEnd("unknown", address, address)))
                reached = Reached(self._pod_end(pod, address), 0, pod.name, _nodes_of(pod))
                known.holders += tuple(_Holder(first, last, pod, (reached,)) for first, last in pod.had(address))
        for service in self.services:
            self._fill_service(service)
        for node, ports in host_ports(self.pods).items():
            for address in (address for address, names in self._nodes.items() if node in names):
                known = self.addresses[address]
                known.services = {**known.services, **{(port.protocol, port.port): port for port in ports}}

    def _fill_service(self, service: ClusterService) -> None:
        for address in (*service.cluster_addresses, *service.outer_addresses):
            # an outer address may be a node's, and at other ports it is that
            nobody = _Address(FlowEnd("unknown", f"{address}, of svc/{service.name} but not a port of it", address))
            known = self.addresses.setdefault(address, nobody)
            known.services = {**known.services, **{(port.protocol, port.port): port for port in service.ports}}
        for address in service.proxies:
            self.addresses.setdefault(
                address, _Address(FlowEnd("external", f"load balancer of {service.name}", address))
            )
        for port in service.ports:
            for address in self._nodes if port.node_port else ():
                known = self.addresses[address]
                known.services = {(port.protocol, port.node_port): port, **known.services}

    def _pod_end(self, pod: Pod, address: str, *, replica: bool = False) -> FlowEnd:
        """The end that a pod is at one of its addresses.

        replica: behind a Service, where backends are many, and told apart no further than their successors will be.
        """
        known = (pod.uid, replica, address if self.by_address else "")
        end = self._pod_ends.get(known)
        if end is None:
            end = self._pod_ends[known] = self._make_end(pod, stable(pod.labels) if replica else pod.labels, address)
        return end

    def _make_end(self, pod: Pod, labels: Mapping[str, str], address: str) -> FlowEnd:
        workload = self._workload_of[pod.uid]
        key = (workload, frozenset(labels.items()), pod.ports, address if self.by_address else "")
        end = self._pod_ends.get(key)
        if end is None:
            if not self.by_address:
                address = next(iter(pod.addresses), "")
            end = self._pod_ends[key] = FlowEnd(
                "pod", str(workload), address, pod.namespace, dict(labels), pod.ports, workload=workload
            )
        return end

    def _unknown_pod(self, flow: Flow) -> FlowEnd:
        """A pod of which only the name is known. Its workload is found by that name, if possible."""
        name = f"{flow.namespace}/{flow.pod}"
        end = self._unknown_pods.get(name)
        if end is None:
            workload = self.workloads.by_pod_name(flow.namespace, flow.pod)
            if workload and workload.selector:
                labels = dict(workload.pods[0].labels if workload.pods else workload.selector.get("matchLabels") or {})
                end = FlowEnd("pod", str(workload), flow.local, flow.namespace, labels, workload=workload)
            else:
                end = FlowEnd("unknown", f"{name}, a pod that no one knows any more", flow.local, flow.namespace)
            self._unknown_pods[name] = end
        return end

    def _node_end(self, address: str, node: str, name: str = "") -> FlowEnd:
        """The end that is at an address of a node, as host-network pods are. All nodes with it are in its name."""
        end = self._node_ends.get(address)
        if end is None:
            end = self._node_ends[address] = FlowEnd("node", "", address, host_network=True)
            end.nodes = self._nodes.get(address) or frozenset()
            name = name or WELL_KNOWN.get(address, "")
        if node and address not in self._nodes:
            end.nodes |= {node}
        if name:
            end.name = name
            self._node_names[address] = name
        elif address not in self._node_names:
            end.name = _node_name(end.nodes) + (" (API server)" if address in self.api_servers else "")
        return end

    def _look_up(self, text: str) -> _Address:
        """What is known of an address that was not asked for in this spelling before. ValueError if it is none."""
        plain = normalize(text)
        return self.addresses.get(plain) or _Address(self._stranger(plain))

    def _stranger(self, text: str) -> FlowEnd | None:
        """The owner of an address that no object and no agent names; always the same end."""
        known = self._strangers.get(text)
        if known is None and (known := self._new_stranger(text)):
            self._strangers[text] = known
        return known

    def _new_stranger(self, text: str) -> FlowEnd | None:
        address = parse(text)
        if is_nobody(address):
            return None
        if text in ON_EACH_NODE:
            return self._node_end(text, "")
        if text in WELL_KNOWN or address.is_link_local:
            return FlowEnd("external", WELL_KNOWN.get(text, text), text)
        if self.networks.is_pod(address):
            return FlowEnd("unknown", text, text)
        if self.networks.is_service(address):
            return FlowEnd("unknown", f"{text}, of a Service that is gone", text)
        return FlowEnd("external", f"API server {text}" if text in self.api_servers else text, text)


def _nodes_of(pod: Pod) -> frozenset[str]:
    return frozenset([pod.node] if pod.node else ())


def _node_name(nodes: frozenset[str]) -> str:
    """A name for an address of a node. A bridge or a DNS cache may have the same address on all nodes."""
    return f"node {min(nodes, default='')}" if len(nodes) <= 1 else f"each of {len(nodes)} nodes"


def _stated(context: FlowContext, pods: list[Pod]) -> Iterator[tuple[str, str]]:
    """The addresses and names of nodes by their objects and their host-network pods."""
    yield from _of_nodes(context, "InternalIP", "ExternalIP")
    for pod in pods:
        for address in pod.addresses if pod.host_network and pod.node else ():
            yield address, pod.node


def _of_nodes(context: FlowContext, *types: str) -> Iterator[tuple[str, str]]:
    """The addresses of these types, or the internal ones, and the names of nodes by their objects."""
    for item in context.objects:
        if item["kind"] == "Node":
            for each in (item.get("status") or {}).get("addresses") or ():
                if each["type"] in (types or ("InternalIP",)):
                    yield normalize(each["address"]), item["metadata"]["name"]


def _by_address(pairs: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for address, name in pairs:
        if not is_nobody(parse(address)):
            found.setdefault(address, set()).add(name)
    return {address: frozenset(names) for address, names in found.items()}
