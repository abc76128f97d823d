"""The ends of connections, and addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from gadget.endpoints import NOWHERE, Endpoint
from gadget.errors import UsageError
from gadget.kinds.base import NONE, UNKNOWN, Compared, Cut, Described, Encoding, Kind, Source, Wanted
from gadget.kinds.texts import Identity
from gadget.text import escape

if TYPE_CHECKING:
    from gadget.kinds.base import Mask, Rows

_MEMBERS = {
    "addr": ("address", "IP address"),
    "port": ("int", "port"),
    "kind": ("identity", "pod, svc, node, container or raw: what is at the address"),
    "namespace": ("identity", "namespace of the pod or service"),
    "name": ("identity", "name of the pod, service, node or container"),
}


class Address(Identity):
    """An IP address as text."""

    def matcher(self, column: Described, wanted: Wanted) -> Callable[[Any], bool]:
        """Also a network."""
        return _network(column, wanted) or wanted.same


class End(Kind):
    """An address and a port, with the name of the pod, service or node that has it; None if it is not known."""

    parts: Mapping[str, str] = {"address": "chars", "port": "int"}
    part_sizes: Mapping[str, int] = {"address": 16}
    members = _MEMBERS
    shape = "endpoint"
    missing = UNKNOWN
    cut = Cut.HOST
    is_main = True
    usual = tight = considered = least = 21  # an IPv4 address and a port
    room = 38  # of pod/NAMESPACE/NAME:PORT, mostly
    encoding = Encoding.DISTINCT
    compared = Compared.VALUES

    def decode(self, source: Source, name: str, rows: Rows, mask: Mask) -> list[Any]:
        """With names."""
        return [None if value is NOWHERE else value for value in source.endpoints(name, rows, mask)]

    def member(self, source: Source, name: str, rows: Rows, mask: Mask, which: str) -> list[Any]:
        """Also of one that is not known."""
        return [getattr(value, which) for value in source.endpoints(name, rows, mask)]

    def plain(self, value: Any) -> str:
        """As columns have it."""
        return "" if value is None else str(value)

    def matcher(self, column: Described, wanted: Wanted) -> Callable[[Any], bool]:
        """A network, an address or a name, with or without a port."""
        if inside := _network(column, wanted):
            return lambda end: end is not None and inside(end.addr)

        def test(end: Endpoint | None) -> bool:
            if end is None:
                return wanted.same("")
            plain = str(end._replace(kind="raw"))
            shown = (str(end), plain, end.addr)
            return any(map(wanted.same, (*shown, *(text.rpartition(":")[0] for text in shown[:2]))))

        return test

    def text(self, column: Described) -> Callable[[Any], str]:
        """HOST:PORT, HOST being the name if there is one; else what stands for none."""
        return lambda value: escape(str(value)) if value else self.missing

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """An object of its parts."""
        return {
            column.name: lambda value: {key: _some(part) for key, part in value._asdict().items()} if value else None
        }

    def flat(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """Its members."""

        def member(which: str) -> Callable[[Any], Any]:
            return lambda value: getattr(value, which) if value else None

        return {f"{column.name}.{which}": member(which) for which in Endpoint._fields}


class SomeEnd(End):
    """An end that a socket need not have, such as the other one of a socket that listens."""

    missing = NONE


def _some(value: Any) -> Any:
    return None if value == "" else value


def _network(column: Described, wanted: Wanted) -> Callable[[str], bool] | None:
    """A test for the network that is wanted; None if the text is no network."""
    address, slash, bits = wanted.text.partition("/")
    if not slash or wanted.has_pattern or not re.fullmatch(r"[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", address):
        return None
    try:
        network = ip_network(f"{address}/{bits}", strict=False)
    except ValueError:
        raise UsageError(f"--filter: {wanted.text!r} is no network: want {column.name}==10.0.0.0/8") from None

    def inside(text: str) -> bool:
        try:
            return ip_address(text) in network
        except ValueError:  # an end that is not known
            return False

    return inside
