"""Addresses: one spelling of each, and which of them belong to the cluster's own networks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address, ip_network
from socket import AF_INET, AF_INET6, inet_pton

from kubectl_gadget.advise.blocks import Block, blocks_of

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: The network of one node's pods, where the cluster does not say.
_NODE_BITS = {4: 24, 6: 64}
#: How much larger the network of all nodes' pods is; kube-controller-manager's usual /24 of a /16 and /64 of a /56.
_CLUSTER_BITS = 8
#: The largest network for Services that we infer from those that exist: kubeadm's 10.96.0.0/12, the API server's /108.
#: For pods, where the cluster does not say, the same: OpenShift's is 10.128.0.0/14.
_SPAN_BITS = {4: 12, 6: 108}
_POD_SPAN_BITS = {4: 12, 6: 56}
#: Services are spread over all of their network, few as they may be: k3s and many others give it a /16.
_SERVICE_BITS = {4: 16, 6: 112}
_TOTAL_BITS = {4: 32, 6: 128}
#: Addresses that are nobody's or many's, a neighbour's, or IPv4 in IPv6.
_SPECIAL = tuple(
    map(ip_network, ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/8", "fe80::/10", "ff00::/8"))
)
#: Who is at addresses that are the same everywhere. Amazon: "Instance metadata", "EKS Pod Identity considerations",
#: "Amazon Time Sync Service"; Istio: "Ambient and Kubernetes NetworkPolicy".
WELL_KNOWN = {
    "169.254.169.254": "cloud metadata",
    "fd00:ec2::254": "cloud metadata",
    "169.254.169.253": "cloud DNS",
    "fd00:ec2::253": "cloud DNS",
    "169.254.169.123": "cloud time",
    "fd00:ec2::123": "cloud time",
    "169.254.170.23": "EKS Pod Identity",
    "fd00:ec2::23": "EKS Pod Identity",
    "169.254.7.127": "Istio probes",
    "fd16:9254:7127:1337:ffff:ffff:ffff:ffff": "Istio probes",
}
#: Those of them at which each node answers itself: for Cilium, its entity host.
ON_EACH_NODE = ("169.254.170.23", "fd00:ec2::23")
#: Networks in which a cluster's own may be: RFC 1918, RFC 6598, RFC 4193.
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))


@lru_cache(8192)
def parse(text: str) -> Address:
    """An address; IPv4 in IPv6 is IPv4. ValueError if it is none."""
    address = ip_address(text)
    if address.version == 6:
        return address.ipv4_mapped or (IPv6Address(int(address)) if address.scope_id else address)
    return address


def is_plain(text: str) -> bool:
    """Whether a text is an address for certain, told many times as fast as by the others here."""
    try:
        inet_pton(AF_INET6 if ":" in text else AF_INET, text)
    except (OSError, ValueError):
        return False
    return True


def normalize(text: str) -> str:
    """The one spelling of an address. ValueError if it is none."""
    return str(parse(text))


def is_nobody(address: Address) -> bool:
    """Whether an address never names another machine: loopback and the like, multicast, broadcast."""
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return True
    if address.version == 6:
        return address.is_link_local
    return int(address) == 0xFFFFFFFF


def may_be_dns_cache(address: Address) -> bool:
    """Whether a node's DNS cache may be there: at 169.254.20.10, with kubespray at 169.254.25.10, or wherever it is.

    At 169.254.169.0/24 a cloud's own DNS is.
    """
    return address.version == 4 and address.is_link_local and (int(address) >> 8) & 0xFF != 169


def single(address: str) -> str:
    """The CIDR that holds one address."""
    return f"{address}/{128 if ':' in address else 32}"


class Ranges:
    """Networks as ranges of numbers, to look up very many addresses in."""

    def __init__(self, networks: Iterable[Network]) -> None:
        """From networks that may overlap."""
        self._starts: dict[int, list[int]] = {4: [], 6: []}
        self._ends: dict[int, list[int]] = {4: [], 6: []}
        every = list(networks)
        for version in (4, 6):
            for network in collapse_addresses([each for each in every if each.version == version]):  # type: ignore[type-var]
                self._starts[version].append(int(network.network_address))
                self._ends[version].append(int(network.broadcast_address))

    def overlaps(self, version: int, first: int, last: int) -> bool:
        """Whether any address from first to last is in one of them."""
        at = bisect_right(self._starts[version], last) - 1
        return at >= 0 and self._ends[version][at] >= first

    def clear_bits(self, version: int, number: int) -> int:
        """The shortest prefix around an address outside all of them that holds nothing of any."""
        at = bisect_right(self._starts[version], number)
        others = [*self._ends[version][max(at - 1, 0) : at], *self._starts[version][at : at + 1]]
        return max((_TOTAL_BITS[version] + 1 - (number ^ other).bit_length() for other in others), default=0)

    def holds_of(self, network: Network) -> bool:
        """Whether any address of a network is in one of them."""
        return self.overlaps(network.version, int(network.network_address), int(network.broadcast_address))

    def has(self, address: Address) -> bool:
        """Whether an address is in one of them."""
        number = int(address)
        return self.overlaps(address.version, number, number)


class Networks:
    """The networks of pods and of Services, as far as they can be told from what is in them."""

    def __init__(
        self,
        cidrs: Iterable[str],
        pods: Iterable[str],
        services: Iterable[str],
        nodes: Iterable[str],
        found: Collection[str] = (),
    ) -> None:
        """From the nodes' pod CIDRs and the addresses of pods, Services and nodes; found: what only agents tell of."""
        own, virtual = {parse(text) for text in nodes}, {parse(text) for text in services}
        theirs = {parse(text) for text in pods}
        # tunnels and bridges are in the network of pods
        not_pods, not_services = _singles((own - {*map(parse, found)}) | virtual), _singles(own | theirs)
        stated = [ip_network(text, strict=False) for text in cidrs]
        ranges = [_neighbours(network, not_pods, _CLUSTER_BITS) for network in stated]
        around = {_around(address) for address in theirs}
        # where pods and nodes share a network, others may be in it too
        of_nodes = _singles(own)
        shared = {network for network in around if of_nodes.holds_of(network)}
        if not stated:
            ranges += [_neighbours(network, not_pods, _CLUSTER_BITS) for network in around - shared]
            ranges += _span(theirs, not_pods, _POD_SPAN_BITS)
        known = Ranges(ranges)
        ranges += [network for network in around - shared if not known.has(network.network_address)]
        of_services = [
            _neighbours(network, not_services, max(network.prefixlen - _SERVICE_BITS[network.version], 0))
            for network in _span(virtual, of_nodes, _SPAN_BITS)
        ]
        self._pods, self._services, self._shared = Ranges(ranges), Ranges(of_services), Ranges(shared)
        taken = [ip_network(address) for address in own | virtual | theirs]
        self._ours = Ranges([*ranges, *of_services, *taken])
        never = [*ranges, *of_services, *shared, *_PRIVATE, *_SPECIAL]
        self._strange, self._never = Ranges(never), [*never, *taken]

    def is_pod(self, address: Address) -> bool:
        """Whether an address is in the network of pods."""
        return self._pods.has(address)

    def is_service(self, address: Address) -> bool:
        """Whether an address is in the network of Services."""
        return self._services.has(address)

    def is_shared(self, address: Address) -> bool:
        """Whether an address is in a network that pods share with nodes, and may have been a pod's."""
        return self._shared.has(address)

    def outside(self, text: str) -> int | None:
        """The number of an address that is outside the cluster for certain; else None."""
        version = 6 if ":" in text else 4
        try:
            number = int.from_bytes(inet_pton(AF_INET6 if version == 6 else AF_INET, text))
        except (OSError, ValueError):
            return None
        return None if self._strange.overlaps(version, number, number) else number

    def blocks(self, version: int, numbers: Sequence[int], bits: int, most: int) -> tuple[Callable[[int], str], int]:
        """In which CIDR each of the numbers is, in all of them about most or fewer; and of how many bits these are.

        They are of bits, as group has them, or of fewer if that were too many; never with anything of ours in them.
        """
        total = _TOTAL_BITS[version]

        def clear(start: int, bits: int) -> bool:
            return bits == total or not self._ours.overlaps(version, start, start + (1 << total - bits) - 1)

        block, chosen = blocks_of(numbers, total, bits, most, clear, partial(self._ours.clear_bits, version))
        make = IPv4Address if version == 4 else IPv6Address

        spelt: dict[Block, str] = {}

        def cidr(number: int) -> str:
            found = block(number)
            text = spelt.get(found)
            if text is None:
                text = spelt[found] = f"{make(found[0])}/{found[1]}"
            return text

        return cidr, chosen

    def never_outside(self, version: int) -> tuple[str, ...]:
        """The networks of which no address is outside: the cluster's own, private ones, and those that are nobody's."""
        every = [network for network in self._never if network.version == version]
        return tuple(map(str, collapse_addresses(every)))  # type: ignore[type-var]

    def group(self, address: Address, bits: int) -> str:
        """The CIDR of bits around an IPv4 address (of 64 around IPv6), or of it alone where that has others of ours."""
        network = _network(address, bits if address.version == 4 else max(bits, 64))
        return single(str(address)) if self._ours.holds_of(network) else str(network)


def is_special(text: str) -> bool:
    """Whether an address is nobody's outside: link-local, or the same everywhere, such as a metadata server's."""
    return text in WELL_KNOWN or parse(text).is_link_local


def is_private(address: Address) -> bool:
    """Whether an address is in a private range, which clusters and companies use inside."""
    return any(_has(network, address) for network in _PRIVATE)


def _has(network: Network, address: Address) -> bool:
    return address.version == network.version and address in network


def _around(address: Address) -> Network:
    return _network(address, _NODE_BITS[address.version])


def _singles(addresses: Iterable[Address]) -> Ranges:
    return Ranges(ip_network(address) for address in addresses)


def _network(address: Address, bits: int) -> Network:
    return ip_network((address, bits), strict=False)


def _neighbours(network: Network, others: Ranges, more: int) -> Network:
    """A network of pods or Services, grown by up to `more` bits as long as it holds no other addresses."""
    for bits in range(max(network.prefixlen - more, 0), network.prefixlen):
        wider: Network = network.supernet(new_prefix=bits)
        if not others.holds_of(wider):
            return wider
    return network


def _span(addresses: set[Address], others: Ranges, least: Mapping[int, int]) -> Iterable[Network]:
    """The smallest network of each IP version that holds all addresses, if it is not too large to be for them alone."""
    for version, total in _TOTAL_BITS.items():
        own = [address for address in addresses if address.version == version]
        if not own:
            continue
        first, last = min(own, key=int), max(own, key=int)
        network = _network(first, total - (int(first) ^ int(last)).bit_length())
        if network.prefixlen >= least[version] and not others.holds_of(network):
            yield network
