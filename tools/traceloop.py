"""The table of options in docs/traceloop.md."""

from __future__ import annotations

import click

from kubectl_gadget.options import Option
from kubectl_gadget.traceloop.commands import TraceloopCommand
from tools import DOCS

PAGE = DOCS / "traceloop.md"
BEGIN, END = "<!-- options of show: made by `make docs` -->", "<!-- end -->"


def page() -> str:
    """The page, with its generated part as it should be."""
    before, rest = PAGE.read_text().split(BEGIN)
    return f"{before}{BEGIN}\n\n{_table()}\n\n{END}{rest.split(END)[1]}"


def _table() -> str:
    show = TraceloopCommand(lambda found: {}).commands["show"]
    rows = ["| option of `show` | meaning |", "|---|---|"]
    for option in show.params:
        if isinstance(option, Option) and option.heading in ("Options", "Output"):
            value = "" if option.is_flag else f" {option.metavar or option.make_metavar(click.Context(show))}"
            names = ", ".join(f"`{name}`" for name in option.opts)
            rows.append(f"| {names}{value.replace('|', ' or ')} | {option.help} |")
    return "\n".join(rows)
