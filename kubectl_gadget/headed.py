"""What all commands have in common: the order of their help."""

from __future__ import annotations

from collections.abc import Iterable, Set
from itertools import islice
from typing import Any

import click
from click.shell_completion import CompletionItem

from kubectl_gadget.completion import complete_pods
from kubectl_gadget.options import FormType, Option, not_empty
from kubectl_gadget.output.terminal import CHOICES, COLOR
from kubectl_gadget.tell import write_lines

#: The argument of commands that have -p and no other argument.
_PODS = "pods"
_TRUE, _FALSE = {"true", "t", "1"}, {"false", "f", "0"}  # strconv.ParseBool of Go
#: What is taken for one of ours where a command has that.
_SAME = {"--timeout": "--duration"}
#: What other tools call some of ours.
_MEANT = {
    "--last": "--tail",
    "--lines": "--tail",
    "--limit": "--max-events",
    "--count": "--max-events",
    "--failed": "--verdict",
    "--fqdn": "--dns",
    "--to-fqdn": "--to-dns",
}


def _as_click_has_it(args: list[str], switches: Set[str], valued: Set[str]) -> list[str]:
    """Arguments as kubectl takes them in click's words: --switch=true, --switch=false, -n=shop, -Ao=json."""
    kept: list[str] = []
    rest = iter(args)
    for arg in rest:
        name, equals, value = arg.partition("=")
        if arg == "--":
            return [*kept, arg, *rest]
        if name not in valued and _SAME.get(name) in valued:
            name = _SAME[name]
            arg = f"{name}{equals}{value}"
        if arg in valued:  # what follows is its value, whatever it looks like
            kept += [arg, *islice(rest, 1)]
        elif equals and name in switches and value.lower() in _TRUE | _FALSE:
            kept += [name] if value.lower() in _TRUE else []
        elif equals and name[:1] == "-" and name[1:2] != "-" and f"-{name[-1]}" in valued:
            together = all(f"-{letter}" in switches for letter in name[1:-1])
            kept += [name, value] if together else [arg]  # else it is the value of an option before: -lapp=cart
        else:
            kept.append(arg)
    return kept


def _color() -> Option:
    """--color, which commands do not see: what writes to standard output does."""

    def keep(ctx: click.Context, param: click.Parameter, value: str) -> None:
        ctx.meta[COLOR] = value

    return Option(["--color"], heading="Output", type=click.Choice(CHOICES), default="auto", expose_value=False,
                  callback=keep, help="Colours. auto: on a terminal, unless NO_COLOR is set.")  # fmt: skip


def _pods() -> click.Argument:
    """Pods that are named without -p; HeadedCommand puts them there."""

    def check(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            not_empty(ctx, param, value)
        return values

    return click.Argument([_PODS], nargs=-1, metavar="[POD]...", callback=check, shell_complete=complete_pods)


def _choices(param: click.Parameter) -> Set[str]:
    """The forms of a command whose -o has a choice of its own; none of any other option."""
    return {*getattr(param.type, "choices", ())} if param.name == "form" else set()


class HeadedCommand(click.Command):
    """A command whose help shows an example first, then options under their headings."""

    #: Whether `kubectl gadget --help` lists it, which has to fit on a screen.
    in_overview = True

    def __init__(
        self, name: str, title: str, example: str, params: list[click.Parameter], run: Any, verb: str = "Shows"
    ) -> None:
        """A command that calls run with the values of params; what it does is verb and title."""
        self.title, self.example, self.verb = title, example, verb
        settings = {"help_option_names": ["-h", "--help"]}
        if any(isinstance(param.type, FormType) or {"columns", "text"} & _choices(param) for param in params):
            params = [*params, _color()]
        has_argument = any(isinstance(param, click.Argument) for param in params)
        if any("--pod" in param.opts for param in params) and not has_argument and not isinstance(self, click.Group):
            params = [_pods(), *params]
        super().__init__(name, callback=run, short_help=title, params=params, context_settings=settings)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with switches also as kubectl's are written: --switch=true, --switch=false."""
        options = [param for param in self.params if isinstance(param, click.Option)]
        switches = {name for option in options if option.is_flag and not option.secondary_opts for name in option.opts}
        valued = {name for option in options if not option.is_flag for name in option.opts}
        ctx.allow_extra_args = True  # they are refused here, in more helpful words
        try:
            rest = super().parse_args(ctx, _as_click_has_it(args, switches, valued))
        except click.NoSuchOption as error:
            visible = [name for option in options if not option.hidden for name in option.opts]
            meant = _MEANT.get(error.option_name, "")
            message = f"{error.message} Did you mean {meant!r}?" if meant in visible else None
            if error.option_name in ("-p", "--pod") and "--workload" in visible:
                message = f"{error.message} Pods are chosen by their workload: -w, --workload."
            raise click.NoSuchOption(error.option_name, message, () if message else visible, ctx) from None
        if rest and not self.allow_extra_args and not ctx.resilient_parsing:
            ctx.fail(f"unexpected argument {rest[0]!r}")
        if pods := ctx.params.pop(_PODS, ()):
            ctx.params["pod"] = (*ctx.params["pod"], *pods)
        return rest

    def make_parser(self, ctx: click.Context) -> Any:
        """Find short options as long ones: else click looks for names that are like -A before it takes it."""
        parser = super().make_parser(ctx)
        parser._long_opt.update(parser._short_opt)
        return parser

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Title, example, options."""
        what = click.formatting.wrap_text(f"{self.verb} {self.title}.", formatter.width)
        formatter.write(f"{what}\n\n  {self.example}\n\n")
        self.format_usage(ctx, formatter)
        headings: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            heading = getattr(param, "heading", "" if isinstance(param, click.Argument) else "Output")
            if record and heading:
                headings.setdefault(heading, []).append(record)
        for heading, records in headings.items():
            with formatter.section(heading):
                formatter.write_dl(records, col_max=26)


class HeadedGroup(HeadedCommand, click.Group):
    """A command that does something by itself, and has commands below it."""

    def __init__(self, *args: Any, commands: Iterable[click.Command], **named: Any) -> None:
        """A HeadedCommand of the other arguments. run is to return at once if a command below it is asked for."""
        super().__init__(*args, **named)
        self.invoke_without_command = True
        for command in commands:
            self.add_command(command)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """And the commands below it."""
        super().format_help(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(90)) for name, command in self.commands.items()])


class HelpCommand(HeadedCommand):
    """`help`: what --help shows, of any command."""

    def __init__(self) -> None:
        """Make the command."""
        names = click.Argument(["names"], nargs=-1, metavar="[COMMAND]", shell_complete=_complete_command)
        super().__init__("help", "how to use a command", "kubectl gadget help traceloop show", [names], self._run)

    def _run(self, names: tuple[str, ...]) -> None:
        ctx = click.get_current_context().find_root()
        rest = [*names]
        while rest:
            if not isinstance(ctx.command, click.Group):
                raise click.UsageError(f"{ctx.command_path} has no commands", ctx)
            name, command, rest = ctx.command.resolve_command(ctx, rest)
            assert command
            ctx = click.Context(command, ctx, name)
        write_lines(f"{ctx.get_help()}\n")


def _complete_command(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The commands below those that were given so far."""
    command: click.Command | None = ctx.find_root().command
    for name in ctx.params.get("names") or ():
        command = command.get_command(ctx, name) if isinstance(command, click.Group) else None
    names = command.list_commands(ctx) if isinstance(command, click.Group) else []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
