"""The command `detect`. No part of it needs an agent: it reads rules, and events from files or a webhook."""

from __future__ import annotations

from pathlib import Path

import click

from gadget.errors import UsageError
from kubectl_gadget.detect.check import check_command, list_command
from kubectl_gadget.detect.explain import explain_command, test_command
from kubectl_gadget.detect.facts import verify_command
from kubectl_gadget.detect.given import FILE, PriorityType, given_rules, narrowed, option, rules_option
from kubectl_gadget.detect.tune import tune_command
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.tell import tell

FORMS = ("columns", "text", "json")
_TLS = {
    "ca": "Whom to trust at https:// places, in PEM.",
    "cert": "Our own certificate for them.",
    "key": "Its key.",
}


class DetectCommand(HeadedCommand, click.Group):
    """`detect`: what rules say of events."""

    def __init__(self) -> None:
        """Make the group."""
        options: list[click.Parameter] = [
            option("--k8s-audit", "where", multiple=True, metavar="FILE|DIR|-|URL",
                   help="Audit events of Kubernetes: files, folders, standard input, or a URL to serve as the API "
                   "server's webhook, such as http://127.0.0.1:9765/k8s-audit."),
            option("-f", "--follow", is_flag=True, help="Go on with what is written to the file, after what is in it."),
            rules_option(),
            option("--priority", type=PriorityType(), help="Only rules of that priority or a higher one."),
            option("--tag", "tags", multiple=True, metavar="TAG", help="Only rules with one of these tags."),
            option("--rule", "names", multiple=True, metavar="NAME",
                   help="Only these rules, also those that are off; a * stands for anything."),
            option("--rule-matching", "matching", type=click.Choice(["all", "first"]), default="all",
                   help="Whether all rules count that fire on an event, or the first alone, as in Falco. "
                   "[default: all]"),
            option("-o", "--output", "form", heading="Output", type=click.Choice(FORMS), default="columns",
                   help="columns; text: Falco's line; json: Falco's JSON. [default: columns]"),
            option("--to", heading="Output", multiple=True, metavar="PLACE",
                   help="Send alerts there too: file:PATH, http://HOST/PATH, https://…, slack:URL, otlp:URL, "
                   "program:COMMAND, syslog[:HOST:PORT]."),
            *(option(f"--to-{name}", f"to_{name}", heading="Output", type=FILE, metavar="FILE", help=text)
              for name, text in _TLS.items()),
        ]  # fmt: skip
        title = "what rules in Falco's language say of events"
        super().__init__("detect", title, "kubectl gadget detect --k8s-audit audit.log", options, _detect)
        self.invoke_without_command = True
        for command in (
            list_command(),
            check_command(),
            explain_command(),
            test_command(),
            tune_command(),
            verify_command(),
        ):
            self.add_command(command)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """And what else can be done with rules."""
        super().format_help(ctx, formatter)
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(90)) for name, command in self.commands.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named; where that is a file, what it was meant for."""
        if args and args[0] not in self.commands and Path(args[0]).exists():
            raise click.UsageError(f"no such command {args[0]!r}: an audit log is given as --k8s-audit {args[0]}, and "
                                   f"rules as --rules {args[0]}", ctx)  # fmt: skip
        return super().resolve_command(ctx, args)


def _detect(
    where: tuple[str, ...],
    follow: bool,
    rules: tuple[Path, ...],
    priority: str | None,
    tags: tuple[str, ...],
    names: tuple[str, ...],
    matching: str,
    form: str,
    to: tuple[str, ...],
    **tls: Path | None,
) -> None:
    if click.get_current_context().invoked_subcommand:
        return
    if not where:
        raise UsageError("say what to judge: --k8s-audit audit.log")
    from gadget.rules.channels import Channels, Patience, Tls, make
    from gadget.rules.fields import AUDIT
    from kubectl_gadget.detect.judge import judge, own_name

    known = given_rules(rules)
    for warning in known.warnings:
        tell(f"warning: {warning}")
    chosen, patience = narrowed(known, priority, tags, names, AUDIT), Patience()
    keys = Tls(tls["to_ca"], tls["to_cert"], tls["to_key"])
    channels = Channels([make(place, own_name(), keys, patience, tell) for place in to], patience.drain)
    judge(where, chosen, form, channels, follow=follow, first=matching == "first")
