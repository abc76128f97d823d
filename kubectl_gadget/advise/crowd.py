"""Very many addresses outside the cluster: a server on the internet has a million clients in a day."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Set
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from kubectl_gadget.advise.domains import is_domain
from kubectl_gadget.advise.flows import Flow

#: Up to so many addresses with which a pod has the same to do, each is looked at for itself. A rule with more networks
#: than this is none that anybody can read, and with twenty thousand no API server takes the policy.
MANY = 500


class CrowdMember(NamedTuple):
    """One address, as a number, and what was seen of it, as flows have it.

    done: connections that came about; last_done: when the last of them did; names: what it was asked for by.
    """

    number: int
    done: int
    failed: int
    first: int
    last: int
    last_done: int
    older: bool
    names: Set[str] = frozenset()


class Crowd:
    """Very many peers of a pod with the same traffic, by address.

    Takes a tenth of the memory that single peers take.
    """

    __slots__ = ("_done", "_failed", "_first", "_index", "_last", "_last_done", "_names", "_older", "egress", "version")

    def __init__(self, version: int, egress: bool) -> None:
        """Nobody yet. egress: the pod connects to them."""
        self.version, self.egress = version, egress
        self._older: set[int] = set()
        self._names: dict[int, set[str]] = {}
        self._index: dict[int, int] = {}
        self._done, self._failed, self._first, self._last, self._last_done = (array("q") for _ in range(5))

    def __len__(self) -> int:
        return len(self._index)

    def add(self, number: int, flow: Flow) -> None:
        """Add what was seen of one address."""
        failed = flow.failed
        done = flow.count - failed if flow.count > failed else 0
        at = self._index.setdefault(number, len(self._done))
        if at == len(self._done):
            self._done.append(done)
            self._failed.append(failed)
            self._first.append(flow.first)
            self._last.append(flow.last)
            self._last_done.append(flow.last if done else 0)
        else:
            self._done[at] += done
            self._failed[at] += failed
            self._first[at] = min(self._first[at], flow.first)
            self._last[at] = max(self._last[at], flow.last)
            self._last_done[at] = max(self._last_done[at], flow.last if done else 0)
        if flow.older:
            self._older.add(number)
        if flow.names and self.egress:
            self._names.setdefault(number, set()).update(filter(is_domain, flow.names))

    def members(self, since: int = 0) -> Iterator[CrowdMember]:
        """All peers that were seen since a moment. Where no connection came about since, its failed attempts."""
        columns = zip(self._index, self._done, self._failed, self._first, self._last, self._last_done, strict=True)
        older, names, nameless = self._older, self._names, frozenset[str]()
        # one number for two equal ones: there may be a million of them
        return (
            CrowdMember(
                number,
                done if done_at >= since else 0,
                failed,
                first,
                last,
                done_at if done_at != last else last,
                number in older,
                names.get(number, nameless),
            )
            for number, done, failed, first, last, done_at in columns
            if last >= since
        )

    def spell(self, number: int) -> str:
        """A number as an address."""
        return str(IPv4Address(number) if self.version == 4 else IPv6Address(number))
