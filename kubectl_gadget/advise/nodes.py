"""Nodes as peers. They come and go, and the next connection to a pod may come through any of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from ipaddress import ip_network

from kubectl_gadget.advise.cluster import Cluster
from kubectl_gadget.advise.crowd import MANY
from kubectl_gadget.advise.networks import parse
from kubectl_gadget.advise.policy import Peer, Port
from kubectl_gadget.advise.workloads import Workload


class NodePeers:
    """The nodes and API servers of a cluster, as far as its objects tell of them."""

    def __init__(self, cluster: Cluster) -> None:
        """Find them, and the ports of workloads to which every node may lead: those behind node ports and the like."""
        self._cluster = cluster
        self._ranges = [ip_network(each, strict=False) for each in cluster.pod_cidrs]
        self._led_to: dict[Workload, set[Port]] = {}
        for service in cluster.services:
            for port in service.ports:
                if port.node_port or service.outer_addresses:
                    for backend in port.backends:
                        if workload := cluster.workload_of(backend.uid):
                            self._led_to.setdefault(workload, set()).add(Port(backend.port, port.protocol))

    def alike(self, address: str, workload: Workload, port: Port) -> list[str]:
        """From which addresses the next connection to a workload may come if one came from address: in a fixed order.

        A webhook is called by any API server, a node port leads through any node.
        """
        cluster, found = self._cluster, set[str]()
        at, servers = cluster.nodes_at(address), cluster.api_servers
        if address in servers:
            found |= servers
        elif serving := {name for each in servers for name in cluster.nodes_at(each)} & cluster.node_names:
            found |= self._others(address, serving) if at & serving else set()
        if at and len(cluster.node_names) <= MANY and port in self._led_to.get(workload, ()):
            found |= self._others(address, cluster.node_names)
        return sorted(each for each in found - {address} if (":" in each) == (":" in address))

    def through(self, address: str, workload: Workload, port: Port) -> str:
        """Why traffic from a pod's own node may come from another node later, and be denied; empty if it may not."""
        cluster = self._cluster
        if len(cluster.node_names) < 2:
            return ""
        if port in self._led_to.get(workload, ()):
            return "a node port or load balancer leads there through any: what comes through others will be denied"
        serving = {name for each in cluster.api_servers for name in cluster.nodes_at(each)}
        return (
            "an API server is there: if that calls a webhook, calls from others will be denied"
            if cluster.nodes_at(address) & serving
            else ""
        )

    def _others(self, address: str, names: Collection[str]) -> set[str]:
        """The addresses by which pods see the other nodes: tunnel addresses or node addresses, like the one seen."""
        cluster = self._cluster
        is_own = cluster.networks.is_pod(parse(address))
        known = cluster.found_on_nodes if is_own else cluster.node_addresses
        found: dict[str, set[str]] = {}
        for each, own in known.items():
            if not is_own or cluster.networks.is_pod(parse(each)):
                for name in own.intersection(names):
                    found.setdefault(name, set()).add(each)
        if not is_own:
            return set().union(*found.values())
        # a bridge for the node's own pods has one too: the tunnel's is at the same place of the node's range
        place = self._place(address)
        return {
            each for own in found.values() for each in ({each for each in own if self._place(each) == place} or own)
        }

    def _place(self, address: str) -> int:
        """Where in its node's range of pods an address is; a node that is gone had one as large as others'."""
        number = parse(address)
        ranges = [network for network in self._ranges if network.version == number.version]
        own = next((network for network in ranges if number in network), None)
        size = own.num_addresses if own else max((network.num_addresses for network in ranges), default=1)
        return int(number) % size

    def are_named(self, peers: Iterable[Peer]) -> bool:
        """Whether peers name nodes: an address of several, as that of a DNS cache, is one of later nodes too."""
        return any(peer.is_node and len(self._cluster.nodes_at(peer.cidr.partition("/")[0])) == 1 for peer in peers)

    def some_of(self, peers: Iterable[Peer]) -> tuple[set[str], int] | None:
        """Which nodes peers name and how many there are, if it is not all of them, and not the API servers alone."""
        cluster = self._cluster
        addresses = {peer.cidr.partition("/")[0] for peer in peers if peer.is_node}
        names = {name for each in addresses for name in cluster.nodes_at(each)} & cluster.node_names
        total = len(cluster.node_names)
        if not names or len(names) == total or addresses <= cluster.api_servers:
            return None
        return names, total
