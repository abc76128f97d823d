"""The tables of docs/authoring.md: macros and helpers of bpf/include, by their comments, with examples from gadgets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tools import DOCS, replaced

PAGE = DOCS / "authoring.md"
BPF, TESTS = PAGE.parents[1] / "bpf", PAGE.parents[1] / "tests" / "gadgets"
#: The headers in the order in which an author meets them, each with a title.
HEADERS = {
    "fields.h": "Fields and parameters",
    "gadget.h": "Events and losses",
    "filter.h": "What the user chose",
    "packets.h": "Packets",
    "owner.h": "The owners of sockets",
    "quota.h": "Tables of a gadget's own",
    "table.h": "Tables",
    "histogram.h": "Histograms",
    "snapshot.h": "Snapshots",
    "readings.h": "Readings",
    "walk.h": "Walks",
    "text.h": "Text",
    "syscalls.h": "System calls",
    "calls.h": "The calls of a gadget",
    "sockets.h": "Sockets",
    "signals.h": "Signals",
    "drift.h": "Differences between kernels",
}
_COMMENT = r"/\*(?P<comment>(?:(?!\*/).)*)\*/\n"
_MACRO = r"#define (?P<macro>[A-Za-z_]+\([a-z_, ]*\))"
_FUNCTION = r"static __(?:always_|no)inline [a-z_0-9 ]+?\**(?P<function>[a-z_0-9]+)\((?P<parameters>[^)]*)\)\n\{"
_DOCUMENTED = re.compile(rf"{_COMMENT}(?:{_MACRO}|{_FUNCTION})", re.DOTALL)


def page() -> str:
    """The page, with its generated parts as they should be."""
    text = PAGE.read_text()
    for header in HEADERS:
        text = replaced(text, header, _table(header))
    return text


def _table(header: str) -> str:
    rows = ["| | what it does | example |", "|---|---|---|"]
    for name, parameters, comment in _documented((BPF / "include" / header).read_text()):
        if example := _example(name):
            shown = example.replace("|", "\\|")
            rows.append(f"| `{name}({parameters})` | {comment} | `{shown}` |")
    return "\n".join(rows)


def _documented(text: str) -> Iterator[tuple[str, str, str]]:
    """Name, parameters and comment of each macro and function that has a comment."""
    for found in _DOCUMENTED.finditer(text):
        comment = re.sub(r"\s*\n \* ?", " ", found["comment"]).strip()
        if found["macro"]:
            name, _, parameters = found["macro"].rstrip(")").partition("(")
        else:
            name = found["function"]
            parts = [part.split()[-1].lstrip("*") for part in found["parameters"].split(",")]
            parameters = ", ".join(part for part in parts if part != "void")
        yield name, parameters, comment


def _example(name: str) -> str:
    """The shortest statement of a gadget that uses it, else of another program or a test; empty if there is none."""
    sources = sorted(path for path in BPF.glob("*/*.[ch]") if path.parent.name != "include")
    gadgets = [path for path in sources if (path.parent / "gadget.toml").exists()]
    for paths in (gadgets, [path for path in sources if path not in gadgets], sorted(TESTS.glob("*/*.bpf.c"))):
        found = [
            " ".join(use.split())
            for path in paths
            for use in re.findall(rf"^[ \t]*([^\n/#]*\b{name}\((?:(?!;|\n\n|\{{).)*;?)", path.read_text(), re.M | re.S)
        ]
        if found:
            return min(found, key=lambda use: (not use.endswith(";"), len(use)))
    return ""
