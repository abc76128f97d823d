"""Nodes as peers: they come and go, and which of them led a connection to a pod says nothing about the next one."""

from __future__ import annotations

from collections.abc import Iterable

from kubectl_gadget.advise.cluster import Cluster
from kubectl_gadget.advise.crowd import MANY
from kubectl_gadget.advise.policy import Peer, Port
from kubectl_gadget.advise.workloads import Workload


class NodePeers:
    """The nodes and API servers of a cluster, as far as its objects tell of them."""

    def __init__(self, cluster: Cluster) -> None:
        """Find them, and the ports of workloads to which every node may lead: those behind node ports and the like."""
        self._cluster = cluster
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
        found: set[str] = set()
        if address in self._cluster.api_servers:
            found |= self._cluster.api_servers
        nodes = self._cluster.node_addresses
        if address in nodes and len(nodes) <= MANY and port in self._led_to.get(workload, ()):
            found |= nodes.keys()
        return sorted(each for each in found - {address} if (":" in each) == (":" in address))

    def some_of(self, peers: Iterable[Peer]) -> tuple[set[str], int] | None:
        """Which nodes peers name and how many there are, if it is not all of them, and not the API servers alone."""
        addresses = {peer.cidr.partition("/")[0] for peer in peers if peer.is_node}
        names = {name for each in addresses for name in self._cluster.node_addresses.get(each, ())}
        total = len(self._cluster.node_names)
        if not names or len(names) == total or addresses <= self._cluster.api_servers:
            return None
        return names, total
