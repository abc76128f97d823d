"""The table of options in docs/traceloop.md."""

from __future__ import annotations

import click

from kubectl_gadget.options import Option
from kubectl_gadget.traceloop.commands import TraceloopCommand
from tools import DOCS, replaced

PAGE = DOCS / "traceloop.md"


def page() -> str:
    """The page, with its generated part as it should be."""
    return replaced(PAGE.read_text(), "options of show", _table())


def _table() -> str:
    show = TraceloopCommand(lambda found: {}).commands["show"]
    rows = ["| option of `show` | meaning |", "|---|---|"]
    for option in show.params:
        if isinstance(option, Option) and option.heading in ("Options", "Output"):
            value = "" if option.is_flag else f" {option.metavar or option.make_metavar(click.Context(show))}"
            names = ", ".join(f"`{name}`" for name in option.opts)
            rows.append(f"| {names}{value.replace('|', ' or ')} | {option.help} |")
    return "\n".join(rows)
