"""A click command for each gadget of the catalogue."""

from __future__ import annotations

from typing import Any

import click

from gadget.catalog import Gadget
from kubectl_gadget.options import Option, gadget_options, output_options, where_options
from kubectl_gadget.request import make_request
from kubectl_gadget.targets import find_targets


class GadgetCommand(click.Command):
    """Runs one gadget. Its help shows an example first, then options under their headings."""

    def __init__(self, gadget: Gadget) -> None:
        """Make the command of gadget."""
        self.gadget = gadget
        super().__init__(
            gadget.name,
            callback=self._run,
            short_help=gadget.title,
            params=[*gadget_options(gadget), *where_options(), *output_options()],
            context_settings={"help_option_names": ["-h", "--help"]},
        )

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Title, example, options, fields."""
        formatter.write(f"Shows {self.gadget.title}.\n\n  {self.gadget.example}\n\n")
        self.format_usage(ctx, formatter)
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record:
                headings.setdefault(param.heading if isinstance(param, Option) else "Output", []).append(record)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records, col_max=26)
        with formatter.section("Fields"):
            formatter.write_dl([(field.name, field.doc) for field in self.gadget.schema.shown], col_max=26)

    def _run(
        self,
        local: bool,
        agent: tuple[str, ...],
        host: bool,
        form: str,
        fields: str,
        filter_: tuple[str, ...],
        max_events: int | None,
        timeout: float,
        strict: bool,
        buffer: int,
        **settings: Any,
    ) -> None:
        request = make_request(
            self.gadget,
            settings,
            form,
            fields,
            filter_,
            host=host,
            ring_bytes=buffer,
            max_events=max_events or 0,
            timeout=timeout,
            strict=strict,
        )
        with find_targets(agent, local) as targets:
            from kubectl_gadget.session import Session  # numpy and grpc: 0.2 s in which a local agent starts

            Session(request).run(targets())
