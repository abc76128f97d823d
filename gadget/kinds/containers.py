"""A second container of an event, beside the container in its header."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from gadget.kinds.base import NONE, Compared, Cut, Described, Encoding, Kind, Source, Wanted
from gadget.text import escape

if TYPE_CHECKING:
    from gadget.kinds.base import Mask, Rows


class ContainerNames(NamedTuple):
    """The names of a container."""

    namespace: str
    pod: str
    container: str
    containerId: str  # noqa: N815 - as in JSON

    def __str__(self) -> str:
        return "/".join(filter(None, self[:3])) or self.containerId[:12]


class OtherContainer(Kind):
    """A container beside the one that the event is of; None outside containers."""

    size = 8
    shape = "container"
    members: Mapping[str, tuple[str, str]] = {
        "namespace": ("identity", "namespace"),
        "pod": ("identity", "pod"),
        "container": ("identity", "name"),
        "containerId": ("identity", "id"),
    }
    cut = Cut.MIDDLE
    usual = tight = 20
    encoding = Encoding.DISTINCT
    compared = Compared.VALUES

    def decode(self, source: Source, name: str, rows: Rows, mask: Mask) -> list[Any]:
        """With names."""
        return [ContainerNames(*names) if any(names) else None for names in source.containers(rows)]

    def member(self, source: Source, name: str, rows: Rows, mask: Mask, which: str) -> list[Any]:
        """Empty outside containers."""
        return [getattr(ContainerNames(*names), which) for names in source.containers(rows)]

    def plain(self, value: Any) -> str:
        """As columns have it."""
        return "" if value is None else str(value)

    def matcher(self, column: Described, wanted: Wanted) -> Callable[[Any], bool]:
        """NAMESPACE/POD/CONTAINER, or the beginning of that up to a slash."""

        def test(value: ContainerNames | None) -> bool:
            parts = self.plain(value).split("/")
            return any(wanted.same("/".join(parts[:count])) for count in range(1, len(parts) + 1))

        return test

    def text(self, column: Described) -> Callable[[Any], str]:
        """NAMESPACE/POD/CONTAINER."""
        return lambda value: escape(str(value)) if value else NONE

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """An object of its names."""
        return {
            column.name: lambda value: {key: part or None for key, part in value._asdict().items()} if value else None
        }

    def flat(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """Its names."""

        def member(which: str) -> Callable[[Any], Any]:
            return lambda value: getattr(value, which) if value else None

        return {f"{column.name}.{which}": member(which) for which in ContainerNames._fields}
