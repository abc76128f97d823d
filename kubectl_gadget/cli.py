"""kubectl-gadget: the command."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gadget import __version__, catalog
from gadget.catalog import command_of
from gadget.errors import GadgetError, NoCluster, UsageError
from kubectl_gadget import interrupts, stderr
from kubectl_gadget.tell import tell, write_lines

if TYPE_CHECKING:
    from kubectl_gadget.advise.commands import AdviseCommand
    from kubectl_gadget.headed import HeadedCommand
    from kubectl_gadget.hubble.command import HubbleCommand
    from kubectl_gadget.traceloop.commands import TraceloopCommand
    from kubectl_gadget.traceloop.instances import Instance

PROGRAM = "kubectl gadget"
INSTEAD = (
    "Trace this machine with --local, name an agent with --agent ADDRESS, or set KUBECONFIG and run "
    "`kubectl gadget deploy`"
)
EPILOG = "Most take -n NAMESPACE, -p POD, -l LABELS, -o json, --local; see COMMAND -h."


def _reasons(found: Sequence[Instance]) -> Mapping[tuple[str, int], str]:
    from kubectl_gadget.why.several import sentences

    return sentences(found)


#: Where each command that is written out is, by its name, in the order of the overview. A command line imports its own
#: alone. First what answers a question, then what is about agents and about the command line itself.
ANSWERS = {
    "why": "why.commands:WhyCommand",
    "story": "story.command:StoryCommand",
    "traceloop": "traceloop.commands:TraceloopCommand",
    "observe": "observe.command:ObserveCommand",
    "map": "map.command:MapCommand",
    "detect": "detect.commands:DetectCommand",
    "alerts": "detect.kept:AlertsCommand",
    "advise": "advise.commands:AdviseCommand",
    "profile": "profile.commands:ProfileCommand",
    "offcpu": "profile.commands:OffcpuCommand",
}
OTHERS = {
    "deploy": "cluster.commands:DeployCommand",
    "undeploy": "cluster.commands:UndeployCommand",
    "status": "about:StatusCommand",
    "containers": "commands:ContainersCommand",
    "runs": "standing.commands:RunsCommand",
    "attach": "attach:AttachCommand",
    "delete": "standing.commands:DeleteCommand",
    "replay": "commands:ReplayCommand",
    "hubble": "hubble.command:HubbleCommand",
    "list": "about:ListCommand",
    "help": "headed:HelpCommand",
    "version": "about:VersionCommand",
}
WRITTEN = ANSWERS | OTHERS


@cache
def _written(name: str) -> HeadedCommand | TraceloopCommand | AdviseCommand | HubbleCommand:
    module, _, kind = WRITTEN[name].partition(":")
    needs = [_reasons] if name == "traceloop" else []
    command: HeadedCommand | TraceloopCommand | AdviseCommand | HubbleCommand
    command = getattr(importlib.import_module(f"kubectl_gadget.{module}"), kind)(*needs)
    return command


class GadgetCommands(click.Group):
    """A command for each gadget of the catalogue, beside those that are written out."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        words = (command_of(gadget).partition(" ")[0] for gadget in catalog.load())
        return [*dict.fromkeys(words), *WRITTEN]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of that name."""
        if name in catalog.load() and command_of(name) == name:
            from kubectl_gadget.commands import GadgetCommand

            return GadgetCommand(catalog.find(name))
        if any(command_of(gadget).startswith(f"{name} ") for gadget in catalog.load()):
            from kubectl_gadget.commands import GadgetGroup

            return GadgetGroup(name)
        return _written(name) if name in WRITTEN else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The arguments; an error that says where an option of a command belongs."""
        given = [*args]
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            at = next((at for at, word in enumerate(given) if self.get_command(ctx, word)), None)
            if at is None or ctx.resilient_parsing or not _has(self.get_command(ctx, given[at]), error.option_name):
                raise
            import shlex  # that only a mistake needs

            right = shlex.join([given[at], *given[:at], *given[at + 1 :]])
            raise click.UsageError(f"{error.option_name} goes after the command: {PROGRAM} {right}", ctx) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments begin with; an error that names what there is."""
        if args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            from kubectl_gadget import aliases

            try:
                said, name, args = aliases.meaning(args, self.list_commands(ctx))
            except UsageError as error:
                if ctx.resilient_parsing:  # completion
                    return None, None, []
                raise click.UsageError(str(error), ctx) from None
            if sys.stderr.isatty() and not ctx.resilient_parsing:
                tell(f"{said} is {name} here")
            return super().resolve_command(ctx, [*name.split(), *args])
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands alone: of --help and --version they tell as well, and a screen has 24 lines."""
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What answers questions first. Of gadgets the names alone, as all has to fit on a screen."""
        groups: dict[str, list[str]] = {}
        for gadget in catalog.load().values():
            groups.setdefault(gadget.group.lower(), []).append(gadget.command)
        with formatter.section("Answers"):
            formatter.write_dl(_overview(ANSWERS))
        with formatter.section("Gadgets (`kubectl gadget list` says what each shows)"):
            formatter.write_dl([(group, ", ".join(names)) for group, names in groups.items()])
        with formatter.section("Agents, recordings, this command"):
            formatter.write_dl(_overview(OTHERS))


def _has(command: click.Command | None, option: str) -> bool:
    """Whether a command has an option."""
    return command is not None and any(option in param.opts for param in command.params)


def _overview(names: Iterable[str]) -> list[tuple[str, str]]:
    commands = ((name, _written(name)) for name in names)
    return [(name, command.title) for name, command in commands if getattr(command, "in_overview", True)]


@click.group(
    cls=GadgetCommands,
    help="Show what containers do, live and after death, from inside the kernel.",
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="%(version)s")
def cli() -> None:
    """Do nothing: subcommands do the work."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; an error is one line on stderr and its exit code."""
    code: Any = 0
    try:
        _run(arguments)
    except SystemExit as error:
        code = error.code
    if interrupts.was_heard():
        stderr.finish()
        interrupts.end(code)
    if code:
        sys.exit(code)


def _run(arguments: list[str] | None) -> None:
    if sys.stdout is None:  # Python has it so where it was closed
        fail("standard output is closed", 1)
    try:
        if arguments is None:  # this process is the command
            interrupts.watch()
        cli.main(arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        write_lines(f"{error.ctx.get_help() if error.ctx else error.format_message()}\n")
    except click.UsageError as error:
        fail(f"{error.format_message().removesuffix('.')}{_see(error)}", 2)
    except (click.Abort, KeyboardInterrupt):
        with suppress(OSError):
            sys.stdout.flush()
        interrupts.end(interrupts.INTERRUPTED)
    except BrokenPipeError:
        # the reader has seen enough, as with `| head`; nothing more can be said on stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:  # a full disk behind stdout, above all
        where = error.filename or (_stdout_file() if error.errno in _FULL else "")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what it did not take is not tried again
        fail(f"{where and f'{where}: '}{error.strerror or error}", 1)
    except NoCluster as error:
        fail(f"{error}. {INSTEAD}", error.exit_code)
    except GadgetError as error:
        fail(str(error), error.exit_code)


#: Of these errors of a write none names the file.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _stdout_file() -> str:
    """The file that standard output is, else what it is called: writing to it names none in errors."""
    with suppress(OSError):
        link = Path("/proc/self/fd/1").readlink()
        if link.is_absolute() and link.is_file():
            return str(link)
    return "standard output"


def _see(error: click.UsageError) -> str:
    return f" ({error.ctx.command_path} --help)" if error.ctx else ""


def fail(message: str, code: int) -> Any:
    """Say what is wrong, and end."""
    text = message.replace("\n", " ")
    tell(f"error: {text[0].lower() if text[1:2].islower() else text[0]}{text[1:]}")
    if code:
        sys.exit(code)
