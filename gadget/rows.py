"""Batches to rows: packed events become Python values, column by column, and only those that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gadget.endpoints import (
    NOWHERE,
    OWN_END,
    RAW,
    UNSPECIFIED,
    Endpoint,
    Owner,
    is_everybodys,
    name_of,
    show_address,
)
from gadget.kinds import BOOL
from gadget.kinds.ends import End
from gadget.schema import IDENTITY, Row, Schema

if TYPE_CHECKING:
    import numpy.typing as npt

    from gadget._generated import gadget_pb2 as pb

NOBODY = ("", "", "", "")
#: How many names of cgroups, and of addresses, a stream keeps; an agent tells 16,384 at a time.
MOST_NAMES = 1 << 16

Mask = np.ndarray[Any, np.dtype[np.bool_]]  # NDArray itself would be imported with much else
K = TypeVar("K")
V = TypeVar("V")


class Table:
    """The rows of one section of a batch. Values are asked for by field name, and decoded then."""

    def __init__(
        self,
        schema: Schema,
        section: pb.Section,
        names: Mapping[int, Sequence[str]],
        node: str,
        clock: int,
        peers: Mapping[bytes, Owner] | None = None,
    ) -> None:
        """Decode section, whose timestamps lack clock nanoseconds, with the names of its node's cgroups.

        peers are the names of addresses.
        """
        self._schema = schema
        self._names = names
        self._peers = peers or {}
        self._node = node
        self.clock = clock
        self._size = section.record_size
        self._bytes = section.rows
        self._means = {field.name: field.means for field in schema.fields}
        self.rows = np.frombuffer(section.rows, schema.dtype(section.record_size), section.count)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def _cgroups(self) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
        return _distinct(self.rows["cgroup_id"])

    @cached_property
    def _every(self) -> npt.NDArray[np.intp]:
        return np.arange(len(self.rows))

    def distinct(self, name: str) -> tuple[list[str], npt.NDArray[np.intp]]:
        """The distinct values of a text-like field, and for each row which one it has."""
        if name in IDENTITY:
            ids, index = self._cgroups
            if name == "node":
                return [self._node], np.zeros(len(self.rows), np.intp)
            part = IDENTITY.index(name) - 1
            return [self._names.get(int(cgroup), NOBODY)[part] for cgroup in ids], index
        kind = self._means.get(name)  # none for a part of a field
        if kind and kind.repeats:
            found, index = _distinct(self.rows[name])
            return kind.decode(self, name, found, None), index
        values = self.column(name)
        return [kind.plain(value) for value in values] if kind and not kind.is_text else values, self._every

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """The numbers of a field, for all rows; times since 1970."""
        whole, _, part = name.partition(".")
        kind = self._means[whole]
        return kind.numbers_of(self.rows[whole], part) if part else kind.raw(self, self.rows[name])

    def addresses(self, name: str) -> list[bytes]:
        """The distinct addresses (16 bytes) of an endpoint field whose names the row itself does not tell."""
        packed = _void(self.rows[name]["address"])
        if name == OWN_END:
            ids, index = self._cgroups
            packed = packed[np.array([self._owner(int(cgroup)) == RAW for cgroup in ids], bool)[index]]
        return [bytes(item) for item in np.unique(packed)]

    def own_ends(self) -> dict[bytes, Owner]:
        """Which container has which address, learnt from the processes' own ends."""
        if not isinstance(self._means.get(OWN_END), End):
            return {}
        ids, index = self._cgroups
        owners = [self._owner(int(cgroup)) for cgroup in ids]
        ends = set(zip(_void(self.rows[OWN_END]["address"]).tolist(), index.tolist(), strict=True))
        return {address: owners[at] for address, at in ends if owners[at] != RAW and not is_everybodys(address)}

    def _owner(self, cgroup: int) -> Owner:
        return name_of(*self._names.get(cgroup, NOBODY))

    def containers(self, cgroups: npt.NDArray[Any]) -> list[Sequence[str]]:
        """Namespace, pod, container and id of each cgroup; all empty outside containers."""
        ids, index = _distinct(cgroups)
        names = [self._names.get(int(cgroup), NOBODY) for cgroup in ids]
        return [names[at] for at in index.tolist()]

    def endpoints(self, name: str, ends: npt.NDArray[Any], mask: Mask | None) -> list[Endpoint]:
        """The ends that a field has in the rows of mask."""
        ids, index = self._cgroups
        owners = [self._owner(int(cgroup)) if name == OWN_END else RAW for cgroup in ids]

        def endpoint(address: bytes, port: int, at: int) -> Endpoint:
            if not port and address in UNSPECIFIED:
                return NOWHERE
            who = owners[at]
            if who == RAW or is_everybodys(address):
                who = self._peers.get(address, RAW)
            return Endpoint(show_address(address), port, *who)

        packed, ports = _void(ends["address"]), ends["port"]
        if mask is not None:
            index = index[mask]
        return list(map(endpoint, packed.tolist(), ports.tolist(), index.tolist()))

    def column(self, name: str, mask: Mask | None = None) -> list[Any]:
        """The values of a field, as its kind decodes them. mask chooses rows."""
        if name in IDENTITY:
            values, index = self.distinct(name)
            if len(values) == 1:
                return values * len(index if mask is None else index[mask])
            return [values[at] for at in (index if mask is None else index[mask]).tolist()]
        whole, _, part = name.partition(".")
        rows = self.rows[whole] if mask is None else self.rows[whole][mask]
        kind = self._means[whole]
        return kind.member(self, whole, rows, mask, part) if part else kind.decode(self, name, rows, mask)

    def truncated(self, name: str, mask: Mask | None) -> list[int]:
        """Which rows of mask have a cut value of a field."""
        if self._means.get(f"{name}_truncated") is not BOOL:
            return []
        cut = self.rows[f"{name}_truncated"]
        found: list[int] = np.flatnonzero(cut if mask is None else cut[mask]).tolist()
        return found

    def slices(self, where: npt.NDArray[Any], mask: Mask | None) -> list[bytes]:
        """The text that each of where's slices names, in the rows of mask."""
        if not where["length"].any():
            return [b""] * len(where)
        at = self._every if mask is None else np.flatnonzero(mask)
        starts = at * self._size + self._schema.text_offset + where["offset"]
        ends = starts + where["length"]
        data = self._bytes
        return [data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _void(addresses: npt.NDArray[Any]) -> npt.NDArray[np.void]:
    """Addresses of 16 bytes as void: in a string numpy takes zeros at the end for padding."""
    return addresses.astype("S16").view("V16")


def _distinct(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """The distinct values, and for each value which one it is. Does not sort if all are the same, as they often are."""
    if len(values) and (values == values[0]).all():
        return values[:1], np.zeros(len(values), np.intp)
    return np.unique(values, return_inverse=True)


def _remember(known: dict[K, V], key: K, value: V) -> None:
    """Keep a value, and drop the oldest ones beyond a bound."""
    if len(known) >= MOST_NAMES and key not in known:
        del known[next(iter(known))]
    known[key] = value


class Decoder:
    """One node's stream: knows its schema and the names of its cgroups."""

    def __init__(self, node: str, schema: Schema) -> None:
        """Decode events of node in schema's layout."""
        self.node = node
        self.schema = schema
        self.names: dict[int, Sequence[str]] = {}
        self._known = {*IDENTITY, *(field.name for field in schema.shown), *schema.parts}
        self._peers: dict[bytes, Owner] = {}

    def learn(self, containers: Iterable[pb.Container]) -> None:
        """Remember names that the agent sent."""
        for item in containers:
            _remember(self.names, item.cgroup_id, (item.namespace, item.pod, item.container, item.id))

    def rows(
        self, batch: pb.Batch, fields: Sequence[str], keep: Callable[[Table], Mask | None]
    ) -> list[tuple[int, Row, str]]:
        """The time of each event that keep chooses, its values of fields, and its container's id.

        None for a field that this schema does not have.
        """
        self.learn(batch.containers)
        for peer in batch.peers:
            _remember(self._peers, peer.address, Owner(peer.kind, peer.namespace, peer.name))
        found: list[tuple[int, Row, str]] = []
        for section in batch.sections:
            table = Table(self.schema, section, self.names, self.node, batch.clock_offset_ns, self._peers)
            mask = keep(table)
            if mask is not None and not mask.any():
                continue
            times = table.column("timestamp", mask)
            columns = [table.column(name, mask) if name in self._known else [None] * len(times) for name in fields]
            found += zip(times, zip(*columns, strict=True), table.column("containerId", mask), strict=True)
        found.sort(key=itemgetter(0))
        return found
