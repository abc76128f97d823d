"""The tables of docs/fields.md: kinds of values, by gadget/kinds, and the fields of all gadgets, by the catalogue."""

from __future__ import annotations

from gadget import catalog
from gadget.kinds import KINDS, Kind
from gadget.schema import Column
from kubectl_gadget.output import all_fields
from tools import DOCS, replaced

PAGE = DOCS / "fields.md"
#: The kinds that C itself has: no typedef says them.
_IN_C = {"bool": "`bool`", "int": "an integer", "enum": "an enum", "identity": "none: the agent adds it"}


def page() -> str:
    """The page, with its generated parts as they should be."""
    return replaced(replaced(PAGE.read_text(), "kinds", _kinds()), "fields", _fields())


def _kinds() -> str:
    rows = ["| kind | in C | what it is | in a column | in JSON |", "|---|---|---|---|---|"]
    for name, kind in sorted(KINDS.items()):
        if name in _IN_C or (kind.in_events and name in _typedefs()):
            told = (_in_c(kind), _line(type(kind).__doc__), _own(kind, "text"), _own(kind, "json"))
            rows.append(f"| {name} | {' | '.join(told)} |")
    return "\n".join(rows)


def _in_c(kind: Kind) -> str:
    family = f"`gadget_…_{kind.name}`, of an enum" if kind.is_family else f"`gadget_{kind.name}`"
    return _IN_C.get(kind.name, family)


def _typedefs() -> set[str]:
    """Kinds that a gadget can have by a typedef of a header, or by the name of a typedef of its own."""
    header = "".join(path.read_text() for path in (PAGE.parents[1] / "bpf/include").glob("*.h"))
    families = {name for name, kind in KINDS.items() if kind.is_family}
    return families | {name for name in KINDS if f" gadget_{name};" in header or f" gadget_{name}[" in header}


def _fields() -> str:
    found: dict[tuple[str, str], tuple[Column, list[str]]] = {}
    for gadget in catalog.load().values():
        for field in all_fields(gadget.schema).values():
            found.setdefault((field.name, field.kind), (field, []))[1].append(gadget.name)
    every = len(catalog.load())
    rows = ["| field | kind | gadgets | JSON |", "|---|---|---|---|"]
    for (name, kind), (field, gadgets) in found.items():
        keys = ", ".join(f"`{key}`" for key in field.means.json(field))
        rows.append(f"| {name} | {kind} | {'all' if len(gadgets) == every else ', '.join(gadgets)} | {keys} |")
    return "\n".join(rows)


def _own(kind: Kind, method: str) -> str:
    """What a kind says of a method of its own."""
    mine, plain = getattr(type(kind), method), getattr(Kind, method)
    return "as it is" if mine is plain else _line(mine.__doc__)


def _line(text: str | None) -> str:
    """The first line of a docstring, for a cell of a table."""
    return (text or "").partition("\n")[0].replace("|", "\\|").rstrip(".")
