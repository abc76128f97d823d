"""Batches to rows: packed events become Python values, column by column, and only those that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from gadget.endpoints import (
    NOWHERE,
    OWN_END,
    RAW,
    UNSPECIFIED,
    Endpoint,
    Name,
    is_everybodys,
    name_of,
    show_address,
)
from gadget.schema import IDENTITY, CutArgs, Row, Schema

if TYPE_CHECKING:
    from gadget._generated import gadget_pb2 as pb

NOBODY = ("", "", "", "")
#: Names of cgroups, and of addresses, that a stream keeps; an agent tells of 16,384 at a time.
MOST_NAMES = 1 << 16

Mask = npt.NDArray[np.bool_]
K = TypeVar("K")
V = TypeVar("V")


@lru_cache(4096)
def decode_text(data: bytes) -> str:
    r"""Bytes of a process as text; what is not UTF-8 becomes \xNN."""
    return data.decode("utf-8", "backslashreplace")


class Table:
    """The rows of one section: every value by field name, decoded when first asked for."""

    def __init__(
        self,
        schema: Schema,
        section: pb.Section,
        names: Mapping[int, Sequence[str]],
        node: str,
        clock: int,
        peers: Mapping[bytes, Name] | None = None,
    ) -> None:
        """Decode section, whose timestamps lack clock nanoseconds, with the names of its node's cgroups.

        peers are the names of addresses.
        """
        self._schema = schema
        self._names = names
        self._peers = peers or {}
        self._node = node
        self._clock = clock
        self._size = section.record_size
        self._bytes = section.rows
        self._kinds = {field.name: field.kind for field in schema.fields}
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
        kind = self._kinds.get(name)  # none for a part of a field
        if kind == "comm":
            comms, index = _distinct(self.rows[name])
            return [decode_text(comm) for comm in comms.tolist()], index
        values = self.column(name)
        if kind == "args":
            values = [" ".join(value) for value in values]
        elif kind == "endpoint":
            values = ["" if value is None else str(value) for value in values]
        return values, self._every

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """A numeric field, of all rows; times since 1970."""
        whole, _, part = name.partition(".")
        if self._kinds.get(name) == "timestamp":
            return self.rows[name].astype(np.int64) + self._clock
        return self.rows[whole][part] if part else self.rows[whole]

    def addresses(self, name: str) -> list[bytes]:
        """The distinct addresses in an endpoint field, of 16 bytes each, whose name the row itself does not tell."""
        packed = self._packed(name)
        if name == OWN_END:
            ids, index = self._cgroups
            packed = packed[np.array([self._owner(int(cgroup)) == RAW for cgroup in ids], bool)[index]]
        return [bytes(item) for item in np.unique(packed)]

    def own_ends(self) -> dict[bytes, Name]:
        """Who has which address, as the rows' own ends tell it."""
        if self._kinds.get(OWN_END) != "endpoint":
            return {}
        ids, index = self._cgroups
        owners = [self._owner(int(cgroup)) for cgroup in ids]
        ends = set(zip(self._packed(OWN_END).tolist(), index.tolist(), strict=True))
        return {address: owners[at] for address, at in ends if owners[at] != RAW and not is_everybodys(address)}

    def _owner(self, cgroup: int) -> Name:
        return name_of(*self._names.get(cgroup, NOBODY))

    def _packed(self, name: str) -> npt.NDArray[np.void]:
        """An endpoint field's addresses. As void: in a string numpy takes zeros at the end for padding."""
        return self.rows[name]["address"].astype("S16").view("V16")

    def _endpoints(self, name: str, mask: Mask | None) -> list[Endpoint]:
        ids, index = self._cgroups
        owners = [self._owner(int(cgroup)) if name == OWN_END else RAW for cgroup in ids]

        def endpoint(address: bytes, port: int, at: int) -> Endpoint:
            if not port and address in UNSPECIFIED:
                return NOWHERE
            who = owners[at]
            if who == RAW or is_everybodys(address):
                who = self._peers.get(address, RAW)
            return Endpoint(show_address(address), port, *who)

        packed, ports = self._packed(name), self.rows[name]["port"]
        if mask is not None:
            packed, ports, index = packed[mask], ports[mask], index[mask]
        return list(map(endpoint, packed.tolist(), ports.tolist(), index.tolist()))

    def column(self, name: str, mask: Mask | None = None) -> list[Any]:
        """The values of a field: int, str, bool, or a list of str for arguments. mask chooses rows."""
        if name in IDENTITY:
            values, index = self.distinct(name)
            if len(values) == 1:
                return values * len(index if mask is None else index[mask])
            return [values[at] for at in (index if mask is None else index[mask]).tolist()]
        whole, _, part = name.partition(".")
        if part:
            return [getattr(value, part) for value in self._endpoints(whole, mask)]
        kind = self._kinds[name]
        if kind == "endpoint":
            return [None if value is NOWHERE else value for value in self._endpoints(name, mask)]
        rows = self.rows[name] if mask is None else self.rows[name][mask]
        if kind == "timestamp":
            rows = rows.astype(np.int64) + self._clock
        if kind == "comm":
            if len(rows) and (rows == rows[0]).all():
                return [decode_text(rows[0].tobytes().rstrip(b"\0"))] * len(rows)
            return [decode_text(value) for value in rows.tolist()]
        if kind not in _SLICES and kind != "full_path":
            plain: list[Any] = rows.tolist()
            return plain
        at = self._every if mask is None else np.flatnonzero(mask)
        if kind == "full_path":
            if rows["path"]["as_given"].all() and not rows["path"]["length"].any():  # it was not asked for
                return [""] * len(rows)
            directories = _paths(self._slices(rows["directory"], at), rows["directory"])
            return _full_paths(directories, _paths(self._slices(rows["path"], at), rows["path"]))
        texts = self._slices(rows, at)
        found = _SLICES[kind](texts, rows)
        if self._kinds.get(f"{name}_truncated") == "bool":
            for row in np.flatnonzero(self.rows[f"{name}_truncated"][at]).tolist():
                found[row] = CutArgs(found[row], last_too=bool(texts[row]) and not texts[row].endswith(b"\0"))
        return found

    def _slices(self, where: npt.NDArray[Any], at: npt.NDArray[np.intp]) -> list[bytes]:
        """The text that each of where's slices names, in the rows of those numbers."""
        if not where["length"].any():
            return [b""] * len(where)
        starts = at * self._size + self._schema.text_offset + where["offset"]
        ends = starts + where["length"]
        data = self._bytes
        return [data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]


def _distinct(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """The distinct values, and for each which one it is. Without sorting where all are the same, as they often are."""
    if len(values) and (values == values[0]).all():
        return values[:1], np.zeros(len(values), np.intp)
    return np.unique(values, return_inverse=True)


def _texts(texts: list[bytes], rows: npt.NDArray[Any]) -> list[Any]:
    return [decode_text(text) for text in texts]


def _args(texts: list[bytes], rows: npt.NDArray[Any]) -> list[Any]:
    return [decode_text(text).removesuffix("\0").split("\0") if text else [] for text in texts]


def _full_paths(directories: list[str], paths: list[str]) -> list[Any]:
    def join(directory: str, path: str) -> str:
        if not directory or not path:
            return path
        return f"{directory.rstrip('/')}/{path.removeprefix('./').removeprefix('/')}"

    return list(map(join, directories, paths)) if any(paths) else paths


def _paths(texts: list[bytes], rows: npt.NDArray[Any]) -> list[Any]:
    def path(text: bytes, as_given: bool, cut: bool) -> str:
        if as_given:
            return decode_text(text)
        return ("…" if cut else "") + "/" + "/".join(decode_text(text).split("/")[-2::-1])

    if rows["as_given"].all():
        return list(map(decode_text, texts))
    flags = zip(texts, rows["as_given"].tolist(), rows["cut"].tolist(), strict=True)
    return [path(*item) for item in flags]


_SLICES: dict[str, Callable[[list[bytes], npt.NDArray[Any]], list[Any]]] = {
    "text": _texts,
    "args": _args,
    "path": _paths,
}


def _remember(known: dict[K, V], key: K, value: V) -> None:
    """Keep a value, and as many others as there is room for."""
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
        self._peers: dict[bytes, Name] = {}

    def learn(self, containers: Iterable[pb.Container]) -> None:
        """Remember names that the agent sent."""
        for item in containers:
            _remember(self.names, item.cgroup_id, (item.namespace, item.pod, item.container, item.id))

    def rows(
        self, batch: pb.Batch, fields: Sequence[str], keep: Callable[[Table], Mask | None]
    ) -> list[tuple[int, Row, str]]:
        """The time of each event that keep chooses, its values of fields, and its container's id.

        None for a field that there is not.
        """
        self.learn(batch.containers)
        for peer in batch.peers:
            _remember(self._peers, peer.address, Name(peer.kind, peer.namespace, peer.name))
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
