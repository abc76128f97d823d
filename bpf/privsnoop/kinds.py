"""What a privileged call asked for, as one text: each call has arguments of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from gadget.kinds.base import NONE, Compared, Cut, Described, Encoding, Kind, Source, Wanted
from gadget.kinds.numbers import Flags, Words
from gadget.kinds.texts import Text
from gadget.text import escape

if TYPE_CHECKING:
    from gadget.kinds.base import Mask, Rows

_NO_ID = (1 << 32) - 1


class Asked(NamedTuple):
    """The arguments of a call that say what it is about; those of other calls say nothing."""

    request: int
    namespaces: int
    id: int
    tpid: int
    name: str


class PrivilegeDetail(Kind):
    """What a privileged call asked for, in one text."""

    parts: Mapping[str, str] = {
        "request": "words",
        "namespaces": "flags",
        "id": "int",
        "tpid": "pid",
        "name": "text",
    }
    shape = "privilege"
    cut = Cut.END
    usual = tight = considered = 24
    encoding = Encoding.DISTINCT
    compared = Compared.VALUES

    def decode(self, source: Source, name: str, rows: Rows, mask: Mask) -> list[Any]:
        """Its parts."""
        numbers = [rows[part].tolist() for part in Asked._fields[:-1]]
        names = Text("text").decode(source, name, rows["name"], mask)
        return [Asked(*values) for values in zip(*numbers, names, strict=True)]

    def matcher(self, column: Described, wanted: Wanted) -> Callable[[Any], bool]:
        """As a column has it."""
        text = self._text(column)
        return lambda value: wanted.same(text(value))

    def text(self, column: Described) -> Callable[[Any], str]:
        """The request and its target, the namespaces, the id or the name."""
        text = self._text(column)
        return lambda value: escape(text(value)) or NONE

    def json(self, column: Described) -> dict[str, Callable[[Any], Any]]:
        """The same; null if there is nothing to say."""
        text = self._text(column)
        return {column.name: lambda value: (text(value) or None) if value else None}

    def _text(self, column: Described) -> Callable[[Asked], str]:
        of_part = {part.name: part for part in getattr(column, "parts", ())}
        request = Words("words").names(of_part["request"])
        namespaces = Flags("flags").names(of_part["namespaces"])

        def text(value: Asked) -> str:
            said = [
                request(value.request) if value.request else "",
                namespaces(value.namespaces).replace("CLONE_", "") if value.namespaces else "",
                str(value.id) if value.id != _NO_ID else "",
                str(value.tpid) if value.tpid else "",
                value.name,
            ]
            return " ".join(filter(None, said))

        return text


KINDS = (PrivilegeDetail("privilege_detail"),)
