"""Peers outside the cluster, where they are many: as few networks as hold them, and nothing of the cluster's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import collapse_addresses, ip_network

from kubectl_gadget.advise.crowd import MANY, Crowd
from kubectl_gadget.advise.networks import Network, Networks, single
from kubectl_gadget.advise.observation import Evidence
from kubectl_gadget.advise.policy import Peer, Port
from kubectl_gadget.advise.remarks import Remarks
from kubectl_gadget.advise.talks import Settings
from kubectl_gadget.advise.workloads import Workload

_TOTAL_BITS = {4: 32, 6: 128}
#: More than MANY networks of one bit more than this are a quarter of all addresses that there are, of IPv6 whole
#: providers: whoever is seen by so many is open to all.
_WHOLE_BITS = {4: 10, 6: 24}
_WHOLE = {4: "0.0.0.0/0", 6: "::/0"}


class Outside:
    """Makes peers of addresses outside."""

    def __init__(self, networks: Networks, settings: Settings, remarks: Remarks) -> None:
        """For one advice."""
        self._networks, self._settings, self._remarks = networks, settings, remarks

    def of_crowd(self, workload: Workload, direction: str, crowd: Crowd, port: Port) -> Iterator[tuple[Peer, Evidence]]:
        """Networks that hold all of very many addresses, and what was seen of them."""
        members = [each for each in crowd.members(self._settings.since) if each.done or self._settings.failed]
        total = _TOTAL_BITS[crowd.version]
        asked = (self._settings.cidr_group if total == 32 else 64) if self._settings.cidr_group else total
        numbers = [each.number for each in members]
        cidr_of, bits = self._networks.blocks(crowd.version, numbers, asked, MANY)
        whole = self._whole(crowd.version, bits)
        found: dict[str, tuple[Peer, Evidence]] = {}
        for member in members:
            cidr = whole.cidr if whole else cidr_of(member.number)
            peer, evidence = found.setdefault(cidr, (whole or Peer(set(), cidr=cidr), Evidence()))
            evidence.add_member(member, crowd.egress)
            peer.unnamed += 1
        yield from found.values()
        if bits < asked and workload.selector is not None:
            self._told(workload, direction, [port], bits, whole)

    def fewer(self, workload: Workload, direction: str, peers: Iterable[Peer]) -> Iterator[Peer]:
        """The same peers, but larger networks in place of very many addresses, and one for those side by side."""
        outside: dict[tuple[tuple[Port, ...], int], list[Peer]] = {}
        for peer in peers:
            if peer.cidr and not peer.is_node:
                outside.setdefault((tuple(sorted(peer.ports)), 6 if ":" in peer.cidr else 4), []).append(peer)
            else:
                yield peer
        for (ports, version), alike in outside.items():
            rest = [*self._taken_in(alike)]
            if len(rest) > MANY:
                rest = self._wider(workload, direction, ports, version, rest)
            yield from _joined(rest)

    def _taken_in(self, peers: list[Peer]) -> Iterator[Peer]:
        """The peers, with those inside the whole internet merged into it, if it is among them."""
        whole = next((peer for peer in peers if peer.excepted), None)
        for peer in peers:
            if whole and peer is not whole and _is_plain(peer) and self._is_outside(peer):
                whole.unnamed += peer.unnamed or len(peer.names)
                _add_ports(whole, peer)
            else:
                yield peer

    def _is_outside(self, peer: Peer) -> bool:
        return self._networks.outside(peer.cidr.partition("/")[0]) is not None

    def _wider(
        self, workload: Workload, direction: str, ports: Sequence[Port], version: int, alike: list[Peer]
    ) -> list[Peer]:
        """Networks that hold those of very many peers."""
        networks = [ip_network(peer.cidr) for peer in alike]
        longest = max(network.prefixlen for network in networks)
        numbers = [int(network.network_address) for network in networks]
        cidr_of, bits = self._networks.blocks(version, numbers, longest, MANY)
        whole = self._whole(version, bits)
        made: dict[str, Peer] = {}
        for peer, network, number in zip(alike, networks, numbers, strict=True):
            cidr = peer.cidr if network.prefixlen <= bits else cidr_of(number)
            wider = whole or made.setdefault(cidr, Peer(set(), cidr=cidr))
            wider.unnamed += peer.unnamed or len(peer.names)
            _add_ports(wider, peer)
        found = [whole] if whole else list(made.values())
        if len(found) < len(alike):
            self._told(workload, direction, ports, bits, whole)
        return found

    def _whole(self, version: int, bits: int) -> Peer | None:
        """All addresses outside, if the networks are so wide that this opens little more."""
        if bits > _WHOLE_BITS[version]:
            return None
        excepted = self._networks.never_outside(version)
        return Peer(set(), cidr=_WHOLE[version], excepted=excepted) if len(excepted) <= MANY else None

    def _told(self, workload: Workload, direction: str, ports: Iterable[Port], bits: int, whole: Peer | None) -> None:
        for port in ports:
            if whole:
                self._remarks.whole(workload, direction, port, whole)
            else:
                self._remarks.widened(workload, direction, port, bits)


def _joined(peers: Iterable[Peer]) -> Iterator[Peer]:
    """The same peers of one IP version and the same ports, but one for networks side by side or within each other."""
    plain: dict[Network, Peer] = {}
    for peer in peers:
        if _is_plain(peer):
            plain[ip_network(peer.cidr)] = peer
        else:
            yield peer
    joined = {network: Peer(set(), cidr=str(network)) for network in collapse_addresses(plain)}  # type: ignore[type-var]
    for network, peer in plain.items():
        bits = next(bits for bits in range(network.prefixlen, -1, -1) if network.supernet(new_prefix=bits) in joined)
        wider = joined[network.supernet(new_prefix=bits)]
        wider.names |= peer.names
        wider.unnamed += peer.unnamed
        _add_ports(wider, peer)
    yield from joined.values()


def _is_plain(peer: Peer) -> bool:
    """Whether there is no more to say of a peer than its network."""
    return (
        not peer.excepted and not peer.domains and (peer.unnamed > 0 or all(_is_in(name, peer) for name in peer.names))
    )


def _is_in(name: str, peer: Peer) -> bool:
    """Whether a name is no more than an address of a peer's network."""
    try:
        address: Network = ip_network(single(name))
        return address.version == ip_network(peer.cidr).version and address.subnet_of(ip_network(peer.cidr))  # type: ignore[arg-type]
    except ValueError:
        return False


def _add_ports(wider: Peer, peer: Peer) -> None:
    for port, evidence in peer.ports.items():
        wider.ports.setdefault(port, Evidence()).add(evidence)
