"""Options: those that every gadget has, and those made from a gadget's parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from gadget import parameters
from gadget.catalog import Gadget
from gadget.errors import UsageError
from gadget.schema import TABLE, Parameter
from kubectl_gadget.completion import (
    Complete,
    among,
    complete_containers,
    complete_fields,
    complete_filter,
    complete_namespaces,
    complete_pods,
)
from kubectl_gadget.output import Form, all_forms, find_form, listed, usual

#: Of the options that may be given several times, those for which nothing means nothing.
MAY_BE_EMPTY = ("filter_", "as_group", "as_user_extra")
#: Between tables, unless the gadget says otherwise.
USUAL_SECONDS = 1.0
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
#: Ten years: a lock waits for 292 of them at most (PY_TIMEOUT_MAX), and what is older was before eBPF.
LONGEST_SECONDS = 10 * 365 * 86_400
_SECONDS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600, "d": 86_400}


class SizeType(click.ParamType[int]):
    """Bytes, such as 512K or 16M."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes from text."""
        found = re.fullmatch(r"(\d+)([kmg]?)(i?b)?", str(value).lower())
        if not found:
            self.fail(f"{value!r} is no size: want 512K, 16M", param, ctx)
        size = int(found[1]) * _UNITS[found[2]]
        if size > 1 << 30:
            self.fail(f"{value}: at most 1G", param, ctx)
        return size


class DurationType(click.ParamType[float]):
    """Seconds, such as 30s or 1m30s."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds from text."""
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", str(value))
        if not parts or "".join(a + b for a, b in parts) != str(value):
            self.fail(f"{value!r} is no duration: want 500ms, 30s, 5m, 2h, 1d", param, ctx)
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
        if seconds > LONGEST_SECONDS:
            self.fail(f"{str(value)[:20]}: at most {LONGEST_SECONDS // 3600}h", param, ctx)
        return seconds


class ParameterType(click.ParamType[str]):
    """A gadget's parameter, kept as text once it is known to fit."""

    def __init__(self, parameter: Parameter) -> None:
        """Accept what the parameter does."""
        self._parameter = parameter
        self.name = parameter.means.metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the value."""
        try:
            parameters.encode(self._parameter, str(value))
        except UsageError as error:
            raise click.UsageError(str(error), ctx) from None
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Its words, if it has any."""
        return among({*self._parameter.means.words(self._parameter)}, incomplete)


class FormType(click.ParamType[str]):
    """A form of output, kept as text once it is known to be one."""

    name = "form"

    def __init__(self, own: Mapping[str, str] | None = None, without: str = "") -> None:
        """One of those that all have but one, or of a command's own: names and what completion says of them."""
        self._own, self._without = dict(own or {}), without

    @property
    def _common(self) -> list[Form]:
        return [form for form in all_forms().values() if form.name != self._without]

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """A word: all that there are would be longer than a line."""
        return "FORM"

    @property
    def names(self) -> str:
        """All that there are."""
        return ", ".join([*(form.written for form in self._common), *self._own])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the value."""
        try:
            if value not in self._own:
                form = find_form(str(value), self._own)
                if form.name not in {each.name for each in self._common}:
                    raise UsageError(f"{value!r}: there is nothing here that it could draw")
        except UsageError as error:
            self.fail(f"{error}.", param, ctx)
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Their names."""
        names = {f"{form.name}{'=' * bool(form.takes)}": form.help for form in self._common} | self._own
        return [CompletionItem(name, help=text) for name, text in names.items() if name.startswith(incomplete)]


class Option(click.Option):
    """An option that help shows under a heading."""

    def __init__(self, *args: Any, heading: str, **kwargs: Any) -> None:
        """A click option under heading."""
        super().__init__(*args, **kwargs)
        self.heading = heading

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Names and help; of forms with all that there are."""
        record = super().get_help_record(ctx)
        if record and isinstance(self.type, FormType):
            return record[0], f"{self.type.names}. {record[1]}".strip()
        return record

    def consume_value(self, ctx: click.Context, opts: Mapping[str, Any]) -> tuple[Any, Any]:
        """The value. An empty one, as of a shell's variable that is not set, is refused where it would mean much.

        So is the next option, where a value is missing.
        """
        value, source = super().consume_value(ctx, opts)
        given = value if isinstance(value, (list, tuple)) else [value]
        if not self.is_flag:
            others = {name for param in ctx.command.params for name in param.opts if name.startswith("--")}
            for each in given:
                if isinstance(each, str) and each in others:
                    raise click.UsageError(f"{max(self.opts, key=len)} has no value before {each}", ctx)
        if "" in given and self.default != "" and self.name not in MAY_BE_EMPTY:
            raise click.UsageError(f"{max(self.opts, key=len)} '': empty", ctx)
        return value, source


def not_empty(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """The value of an argument. Refused if it is empty."""
    if str(value).strip() in ("", "."):  # Path("") is "."
        raise click.UsageError(f"{param.make_metavar(ctx)} {str(value).strip('.')!r}: empty", ctx)
    return value


def gadget_options(gadget: Gadget) -> list[click.Parameter]:
    """A gadget's own options: a switch for each bool, an option with a value for each other parameter."""
    options: list[click.Parameter] = []
    for item in gadget.parameters:
        dashed = item.name.replace("_", "-")
        text = f"{item.doc[0].upper()}{item.doc[1:]}{listed(item)}."
        if item.means.is_switch:
            on = int(item.default, 16) != 0
            names = f"--{dashed}/--no-{dashed}" if on else f"--{dashed}"
            options.append(
                Option([f"param_{item.name}", names], heading="Options", is_flag=True, default=None,
                       help=text + (" [default: yes]" if on else ""))
            )  # fmt: skip
        else:
            text += f" [default: {default}]" if (default := usual(item)) else ""
            options.append(
                Option([f"param_{item.name}", f"--{dashed}"], heading="Options", type=ParameterType(item), help=text)
            )
    return options


def where_options(containers: Complete = complete_containers) -> list[click.Parameter]:
    """Options that choose machines and containers; containers completes names of containers."""
    heading = "Where"

    def names(*flags: str, what: str, complete: Complete | None = None) -> Option:
        return Option([*flags], heading=heading, multiple=True, metavar="A,B|!C", help=what, shell_complete=complete)

    return [
        names("-n", "--namespace", what="Namespaces; !name leaves one out.", complete=complete_namespaces),
        Option(["-A", "--all-namespaces"], heading=heading, is_flag=True, help="All namespaces."),
        names("-p", "--pod", what="Pods; where a command takes [POD], the same without -p.", complete=complete_pods),
        names("-c", "--container", what="Containers of a pod, by name.", complete=containers),
        Option(["-l", "--selector"], heading=heading, default="", metavar="SELECTOR",
               help="Pods with labels: k=v, k!=v, k in (a,b), k notin (a,b), k, !k."),
        Option(["--local"], heading=heading, is_flag=True, help="Trace this machine; needs root."),
        Option(["--agent"], heading=heading, multiple=True, metavar="ADDRESS",
               help="Talk to the agent at HOST:PORT or unix:///PATH. Repeatable."),
    ]  # fmt: skip


def output_options(conditions: Complete = complete_filter, form: str = "columns") -> list[click.Parameter]:
    """How much is shown, and how, in form unless another one is asked for; conditions completes those of --filter."""
    heading = "Output"
    return [
        Option(["form", "-o", "--output"], heading=heading, type=FormType(), default=form, help=""),
        Option(
            ["--fields"],
            heading=heading,
            default="",
            metavar="A,B|+A,-B",
            shell_complete=complete_fields,
            help="Fields to show, or to add and leave out.",
        ),
        Option(
            ["filter_", "--filter"],
            heading=heading,
            multiple=True,
            metavar="EXPR",
            shell_complete=conditions,
            help="Only events like 'comm==sh && (uid!=0 || path==/etc/*)'. Operators: == != < <= > >= ~ !~ (regular "
            "expression).",
        ),
        Option(
            ["--count-by"],
            heading=heading,
            default="",
            metavar="A,B",
            shell_complete=complete_fields,
            help="Count events by the values of fields: live on a terminal, one table in the end otherwise.",
        ),
        Option(
            ["--max-events"],
            heading=heading,
            type=click.IntRange(1),
            default=None,
            metavar="N",
            help="End after N events.",
        ),
        Option(["--strict"], heading=heading, is_flag=True, help="Exit with 3 if anything was lost or a node failed."),
    ]


def stream_options() -> list[click.Parameter]:
    """Options of streams: how long, how much at once, and where to."""
    heading = "Output"
    return [
        Option(
            ["timeout", "--duration"],
            heading=heading,
            type=DurationType(),
            default=0.0,
            help="End after a time, such as 30s or 5m.",
        ),
        Option(
            ["--record"],
            heading=heading,
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            help="Also keep all of it in a file, for `kubectl gadget replay FILE`.",
        ),
        Option(
            ["--buffer"],
            heading=heading,
            type=SizeType(),
            default=0,
            help="Size of each of the two kernel rings, such as 16M. [default: 8M, and 4M for long texts]",
        ),
    ]


def table_options(gadget: Gadget) -> list[click.Parameter]:
    """Options of gadgets with tables: how often, how many rows, and in which order."""
    heading = "Tables"
    seconds = gadget.interval or (USUAL_SECONDS if gadget.source == TABLE else 0)
    usual = f"{seconds:g}s" if seconds else "one alone"
    options: list[click.Parameter] = [
        Option(["--interval"], heading=heading, type=DurationType(), default=0.0, metavar="DURATION",
               help=f"Time between tables, such as 2s. [default: {usual}]"),
        Option(["--sort"], heading=heading, default="", metavar="A,-B", shell_complete=complete_fields,
               help="Fields to sort by; -NAME: the greatest first."
               + (f" [default: {','.join(gadget.sort)}]" if gadget.sort else "")),
        Option(["--top"], heading=heading, type=click.IntRange(1), default=None, metavar="N",
               help="Only the first N rows of each table."),
        Option(["--count"], heading=heading, type=click.IntRange(1), default=None, metavar="N",
               help="End after N tables."),
    ]  # fmt: skip
    if gadget.usual:
        text = f"Also {gadget.usual['without']}."
        options.append(Option(["every", "--all"], heading="Options", is_flag=True, help=text))
    if gadget.source == TABLE:
        text = "Sums since the start, not of each interval."
        options.append(Option(["--totals"], heading=heading, is_flag=True, help=text))
    return options


def standing_options(name: str = "the gadget", keep: str = "16M", *, tables: bool = False) -> list[click.Parameter]:
    """How to let a run stand, which then goes on without its client; what it is called, and how much is kept of it.

    Of tables nothing is kept but what is counted.
    """
    heading = "Standing run"
    metavar, help_ = "[NUMBER:]A,B", "Count events by these fields for Prometheus, or draw a NUMBER as a histogram."
    if tables:
        metavar, help_ = "NUMBER:A,B", "Add up a NUMBER of all tables by these fields for Prometheus."
    kept = Option(
        ["--keep"],
        heading=heading,
        type=SizeType(),
        default=None,
        metavar="64M",
        help=f"How much each agent keeps of it. [default: {keep}]",
    )
    return [
        Option(["--detach"], heading=heading, is_flag=True,
               help="Let it go on in the agents, and end: see the commands runs, attach and delete."),
        Option(["--name"], heading=heading, default=None, metavar="NAME",
               help=f"What it is called. [default: {name}]"),
        *([] if tables else [kept]),
        Option(["--metric"], heading=heading, multiple=True, metavar=metavar, help=f"{help_} Repeatable."),
        Option(["--print-only"], heading=heading, is_flag=True,
               help="Print the ConfigMap that defines it, and do nothing."),
    ]  # fmt: skip
