"""Addresses: one spelling of each, and which of them belong to the cluster's own networks."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: The network of one node's pods, where the cluster does not say.
_NODE_BITS = {4: 24, 6: 64}
#: How much larger the network of all nodes' pods is; kube-controller-manager's usual /24 of a /16 and /64 of a /56.
_CLUSTER_BITS = 8
#: The largest network for Services that we infer from those that exist: kubeadm's 10.96.0.0/12, the API server's /108.
_SERVICE_BITS = {4: 12, 6: 108}


@lru_cache(65_536)
def parse(text: str) -> Address:
    """An address; IPv4 in IPv6 is IPv4. ValueError if it is none."""
    address = ip_address(text)
    if address.version == 6:
        return address.ipv4_mapped or (IPv6Address(int(address)) if address.scope_id else address)
    return address


def normalize(text: str) -> str:
    """The one spelling of an address. ValueError if it is none."""
    return str(parse(text))


def is_nobody(address: Address) -> bool:
    """Whether an address is never another's: one of the machine's own, or for many at once."""
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return True
    if address.version == 6:
        return address.is_link_local
    return int(address) == 0xFFFFFFFF


def single(address: str) -> str:
    """The CIDR that holds one address."""
    return f"{address}/{128 if ':' in address else 32}"


class Networks:
    """The networks of pods and of Services, as far as they can be told from what is in them."""

    def __init__(
        self, cidrs: Iterable[str], pods: Iterable[str], services: Iterable[str], nodes: Iterable[str]
    ) -> None:
        """From the nodes' pod CIDRs and the addresses of pods, Services and nodes."""
        own = {parse(text) for text in nodes}
        virtual = {parse(text) for text in services}
        stated = [ip_network(text, strict=False) for text in cidrs]
        ranges = [_neighbours(network, own | virtual) for network in stated]
        for network in {_around(parse(text)) for text in pods}:
            # where pods and nodes share a network, others may be in it too
            if not any(_has(network, address) for address in own) and not any(_inside(network, all) for all in ranges):
                ranges.append(network)
        self._pods = tuple(ranges)
        self._services = tuple(_span(virtual, own))
        self._taken = own | virtual | {parse(text) for text in pods}

    def is_pod(self, address: Address) -> bool:
        """Whether an address is in the network of pods."""
        return any(_has(network, address) for network in self._pods)

    def is_service(self, address: Address) -> bool:
        """Whether an address is in the network of Services."""
        return any(_has(network, address) for network in self._services)

    def group(self, address: Address, bits: int) -> str:
        """The CIDR of bits around an IPv4 address (of 64 around IPv6), or of it alone where that has others of ours."""
        network = ip_network((address, bits if address.version == 4 else max(bits, 64)), strict=False)
        ours = any(_overlap(network, other) for other in (*self._pods, *self._services))
        if ours or any(_has(network, taken) for taken in self._taken):
            return single(str(address))
        return str(network)


def _has(network: Network, address: Address) -> bool:
    return address.version == network.version and address in network


def _inside(network: Network, other: Network) -> bool:
    return network.version == other.version and network.subnet_of(other)  # type: ignore[arg-type]


def _overlap(network: Network, other: Network) -> bool:
    return network.version == other.version and network.overlaps(other)


def _around(address: Address) -> Network:
    return ip_network((address, _NODE_BITS[address.version]), strict=False)


def _neighbours(network: Network, others: set[Address]) -> Network:
    """The network of all nodes' pods around that of one, up to where nodes or Services are."""
    for bits in range(max(network.prefixlen - _CLUSTER_BITS, 0), network.prefixlen):
        wider: Network = network.supernet(new_prefix=bits)
        if not any(_has(wider, address) for address in others):
            return wider
    return network


def _span(addresses: set[Address], others: set[Address]) -> Iterable[Network]:
    """The smallest network of each IP version that holds all addresses, if it is not too large to be for them alone."""
    for version, least in _SERVICE_BITS.items():
        numbers = [int(address) for address in addresses if address.version == version]
        if not numbers:
            continue
        total = 32 if version == 4 else 128
        bits = total - (min(numbers) ^ max(numbers)).bit_length()
        network = ip_network((parse(_first(addresses, version)), bits), strict=False)
        if bits >= least and not any(_has(network, address) for address in others):
            yield network


def _first(addresses: set[Address], version: int) -> str:
    return str(min((address for address in addresses if address.version == version), key=int))
