"""What all commands have in common: the order of their help."""

from __future__ import annotations

from typing import Any

import click

from kubectl_gadget.options import Option

_TRUE, _FALSE = {"true", "t", "1"}, {"false", "f", "0"}  # strconv.ParseBool of Go


class HeadedCommand(click.Command):
    """A command whose help shows an example first, then options under their headings."""

    def __init__(
        self, name: str, title: str, example: str, params: list[click.Parameter], run: Any, verb: str = "Shows"
    ) -> None:
        """A command that calls run with the values of params; what it does is verb and title."""
        self.title, self.example, self.verb = title, example, verb
        settings = {"help_option_names": ["-h", "--help"]}
        super().__init__(name, callback=run, short_help=title, params=params, context_settings=settings)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with switches also as kubectl's are written: --switch=true, --switch=false."""
        switches = {
            name
            for param in self.params
            if isinstance(param, click.Option) and param.is_flag and not param.secondary_opts
            for name in param.opts
        }
        end = args.index("--") if "--" in args else len(args)
        kept = []
        for arg in args[:end]:
            name, equals, value = arg.partition("=")
            if equals and name in switches and value.lower() in _TRUE | _FALSE:
                kept += [name] if value.lower() in _TRUE else []
            else:
                kept.append(arg)
        return super().parse_args(ctx, kept + args[end:])

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Title, example, options."""
        formatter.write(f"{self.verb} {self.title}.\n\n  {self.example}\n\n")
        self.format_usage(ctx, formatter)
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record and not isinstance(param, click.Argument):
                headings.setdefault(param.heading if isinstance(param, Option) else "Output", []).append(record)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records, col_max=26)
