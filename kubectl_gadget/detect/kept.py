"""`kubectl gadget alerts`: what the rules of agents that always judge have said."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from gadget.errors import UsageError
from gadget.text import meant
from kubectl_gadget.cluster.options import RECEIVER, cluster_options
from kubectl_gadget.detect.elsewhere import channels, to_options
from kubectl_gadget.detect.given import FORMS, PriorityType, complete_rule, is_id, option
from kubectl_gadget.detect.shown import ALWAYS, show_command
from kubectl_gadget.headed import HeadedGroup
from kubectl_gadget.options import DurationType, output_options, stream_options, where_options
from kubectl_gadget.pods import read_pods
from kubectl_gadget.stream.request import make_selection
from kubectl_gadget.where import find_targets

if TYPE_CHECKING:
    from gadget.rules.channels import Channels
    from kubectl_gadget.detect.live import AlertOutput


class AlertsCommand(HeadedGroup):
    """`alerts`: what agents keep, and what comes."""

    in_overview = False  # `detect` tells of it

    def __init__(self) -> None:
        """Make the command."""
        options: list[click.Parameter] = [
            option("-f", "--follow", is_flag=True, help="Go on with what comes."),
            option("--since", type=DurationType(), default=0.0, metavar="1h",
                   help="What happened in so long. [default: all that is kept]"),
            option("--priority", type=PriorityType(), help="Only alerts of that priority or a higher one."),
            option("--rule", "names", multiple=True, metavar="NAME", shell_complete=complete_rule,
                   help="Only alerts of these rules; a * stands for anything."),
            *(each for each in where_options() if each.name != "selector"),
            *cluster_options(),
            option("-o", "--output", "form", heading="Output", type=click.Choice(FORMS), default="columns",
                   help="columns; text: Falco's line; json: Falco's JSON, with id and ancestry. [default: columns]"),
            option("--by", heading="Output", default="", metavar="A,B", shell_complete=_complete_by,
                   help="Count alerts by rule, priority, node, namespace, pod, container: one table in the end."),
            *to_options(),
            *(each for each in (*stream_options(), *output_options()) if each.name in ("timeout", "strict")),
        ]  # fmt: skip
        title = "alerts of rules that always judge; see detect"
        example = "kubectl gadget alerts --since 1h -n shop"
        super().__init__("alerts", title, example, options, self._run, commands=[show_command()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments begin with; an id alone has its own."""
        if args[0] not in self.commands and is_id(args[0]) and not ctx.resilient_parsing:
            raise click.UsageError(f"{args[0]!r}: one alert is `kubectl gadget alerts show {args[0]}`", ctx)
        return super().resolve_command(ctx, args)

    def _run(
        self,
        follow: bool,
        since: float,
        priority: str | None,
        names: tuple[str, ...],
        namespace: tuple[str, ...],
        all_namespaces: bool,
        pod: tuple[str, ...],
        container: tuple[str, ...],
        local: bool,
        agent: tuple[str, ...],
        form: str,
        by: str,
        to: tuple[str, ...],
        to_ca: Path | None,
        to_cert: Path | None,
        to_key: Path | None,
        **rest: Any,
    ) -> None:
        if click.get_current_context().invoked_subcommand:
            return
        selection = make_selection(namespace, all_namespaces, pod, container, "")
        if any(name.is_workload for name in read_pods(pod)):
            raise UsageError("-p KIND/NAME: kept alerts have no owners of pods: choose by names, as -p 'cart-*'")
        fields = _fields(by, form)
        with find_targets(agent, local, also=(RECEIVER,), **ALWAYS) as targets:
            from kubectl_gadget.detect.live import KeptQuery, read

            asked = KeptQuery(
                selection, int((time.time() - since) * 1e9) if since else 0, follow, priority, names, **rest
            )
            sent = channels(to, to_ca, to_cert, to_key)
            read(asked, targets(), _output(fields, form, sent, follow=follow))


def _complete_by(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What alerts are counted by, behind what is there already."""
    from kubectl_gadget.detect.live import COUNTED_BY

    before, comma, start = incomplete.rpartition(",")
    free = [name for name in COUNTED_BY if name not in before.split(",")]
    return [CompletionItem(f"{before}{comma}{name}") for name in free if name.startswith(start)]


def _fields(by: str, form: str) -> list[str]:
    """What alerts are counted by. UsageError if that is none of what they have."""
    from kubectl_gadget.detect.live import COUNTED_BY

    fields = [name.strip() for name in by.split(",") if name.strip()]
    for name in fields:
        if name not in COUNTED_BY:
            there = f"there is {', '.join(COUNTED_BY)}"
            raise UsageError(f"--by {name}: {meant(name, COUNTED_BY) or there}")
    if fields and form == "text":
        raise UsageError("--by: a table is -o columns or json")
    return fields


def _output(fields: list[str], form: str, sent: Channels, *, follow: bool) -> AlertOutput:
    from kubectl_gadget.detect.live import AlertOutput, CountOutput
    from kubectl_gadget.detect.written import texts

    return CountOutput(fields, form, sent) if fields else AlertOutput(texts(form, kept=True), sent, endless=follow)
