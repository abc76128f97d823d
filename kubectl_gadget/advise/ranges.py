"""Makes ranges of many ports, such as the ports of FTP's passive data connections."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from kubectl_gadget.advise.observation import Evidence
from kubectl_gadget.advise.policy import Peer, Port

#: So many ports side by side are written as a range, which opens nothing else.
ADJACENT = 3
#: More ports than this that are no farther apart are taken for some of a range that a server gives out.
MANY_PORTS, APART = 20, 1024
#: A peer that used so many ports of a server's range may use all of them.
USED = 3
#: Below are ports of the system, which no server gives out.
FIRST = 1024


def with_ranges(peers: Iterable[Peer]) -> tuple[list[Peer], list[Port]]:
    """The same peers, with ranges of ports; and those ranges that open more than was seen.

    Peers outside the cluster count together.
    """
    every = list(peers)
    outside = {port for peer in every if peer.cidr and not peer.is_node for port in peer.ports}
    of_all = [*_wide(outside)]
    seen: dict[Port, set[Port]] = {}
    made = []
    for peer in every:
        wide = [*_wide(peer.ports), *(of_all if peer.cidr and not peer.is_node else ())]
        ranged: dict[Port, Evidence] = {}
        for port, into in _into(peer.ports, wide).items():
            ranged.setdefault(into, Evidence()).add(peer.ports[port])
            if into.end:
                seen.setdefault(into, set()).add(port)
        made.append(replace(peer, ports=ranged))
    return made, [each for each, own in seen.items() if len(own) < each.end - each.port + 1]


def _wide(ports: Collection[Port]) -> Iterator[Port]:
    """The ranges of many ports near each other."""
    for group in _groups(ports, APART):
        if len(group) > MANY_PORTS:
            yield Port(group[0].port, group[0].protocol, group[-1].port)


def _groups(ports: Collection[Port], apart: int) -> Iterator[list[Port]]:
    """Ports of each protocol, the next no farther than that from the last; none of the system's."""
    group: list[Port] = []
    for port in sorted((each for each in ports if each.port >= FIRST), key=lambda each: (each.protocol, each.port)):
        if group and (port.protocol != group[-1].protocol or port.port - group[-1].port > apart):
            yield group
            group = []
        group.append(port)
    if group:
        yield group


def _into(ports: Mapping[Port, Evidence], wide: Collection[Port]) -> dict[Port, Port]:
    """What each port becomes: a range, or itself."""
    found = {port: port for port in ports}
    for each in wide:
        found |= {port: each for port in ports if port.protocol == each.protocol and each.port <= port.port <= each.end}
    left = [port for port, into in found.items() if not into.end]
    for group in _groups(left, 1):
        if len(group) >= ADJACENT:
            found |= dict.fromkeys(group, Port(group[0].port, group[0].protocol, group[-1].port))
    return found
