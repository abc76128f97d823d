"""Makes ranges of many ports, such as the ports of FTP's passive data connections."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from kubectl_gadget.advise.observation import Evidence
from kubectl_gadget.advise.policy import Peer, Port

#: So many ports side by side are written as a range, which opens nothing else.
ADJACENT = 3
#: More ports than this that are no farther apart are taken for some of a range that a server gives out.
MANY_PORTS, APART = 20, 1024
#: A peer of a server may use all of its range if it used so many ports of it, or one and another port beside the range
#: too, as FTP's control connection does. Who used one alone, as a scraper of metrics does, uses a port that stays.
USED = 3
#: Below are ports of the system, which no server gives out.
FIRST = 1024


def given_out(ports: Collection[Port]) -> tuple[Port, ...]:
    """The ranges from which a server gives out ports, if all these were connected to."""
    return tuple(_wide(ports))


def with_ranges(
    peers: Iterable[Peer], given: Callable[[Peer], Collection[Port]] = lambda _: ()
) -> tuple[list[Peer], list[Port]]:
    """The same peers, with ranges of ports; and those ranges that open more than was seen.

    Peers outside the cluster count together. given: the ranges of the server, be it the peer or the other end.
    """
    every = list(peers)
    outside = {port for peer in every if peer.cidr and not peer.is_node for port in peer.ports}
    of_all = [*_wide(outside)]
    seen: dict[Port, set[Port]] = {}
    made = []
    for peer in every:
        wide = [*_wide(peer.ports), *(of_all if peer.cidr and not peer.is_node else ())]
        ranges = given(peer)
        wide += [each for each in ranges if _gets_ports_of(peer.ports, each, ranges)]  # the widest is the last
        ranged: dict[Port, Evidence] = {}
        for port, into in _into(peer.ports, wide).items():
            ranged.setdefault(into, Evidence()).add(peer.ports[port])
            if into.end:
                seen.setdefault(into, set()).add(port)
        made.append(replace(peer, ports=ranged))
    return made, [each for each, own in seen.items() if len(own) < each.end - each.port + 1]


def _gets_ports_of(ports: Collection[Port], one: Port, ranges: Collection[Port]) -> bool:
    """Whether a peer that used these ports of a server will get others of one of its ranges."""
    within = [port for port in ports if _is_in(port, one)]
    beside = any(not any(_is_in(port, each) for each in ranges) for port in ports)
    return len(within) >= (1 if beside else USED)


def _is_in(port: Port, wide: Port) -> bool:
    return port.protocol == wide.protocol and wide.port <= port.port <= wide.end


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
        found |= {port: each for port in ports if _is_in(port, each)}
    left = [port for port, into in found.items() if not into.end]
    for group in _groups(left, 1):
        if len(group) >= ADJACENT:
            found |= dict.fromkeys(group, Port(group[0].port, group[0].protocol, group[-1].port))
    return found
