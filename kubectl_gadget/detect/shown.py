"""`kubectl gadget alerts show`: one kept alert, and what led to it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from gadget.errors import GadgetError, Unsupported, UsageError
from kubectl_gadget.cluster.options import RECEIVER, cluster_options
from kubectl_gadget.completion import SECONDS, addresses_of, is_word
from kubectl_gadget.detect.given import option
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import not_empty, where_options
from kubectl_gadget.output import terminal
from kubectl_gadget.tell import tell, write_json, write_lines
from kubectl_gadget.where import find_targets

#: How many ids are listed.
MOST_IDS = 5
#: What an agent that a command starts for itself has not done, and the switches of one that does.
ALWAYS = {"lacking": "no alerts are kept", "switches": "--detect default"}

if TYPE_CHECKING:
    from gadget._generated import gadget_pb2 as pb
    from kubectl_gadget.agents.targets import Targets


def show_command() -> click.Command:
    """`alerts show`."""
    options: list[click.Parameter] = [
        click.Argument(["name"], metavar="ID", callback=not_empty, shell_complete=complete_alerts),
        *(each for each in where_options() if each.name in ("local", "agent")),
        *cluster_options(),
        option("-o", "--output", "form", heading="Output", type=click.Choice(["columns", "json"]), default="columns",
               help="Format."),
    ]  # fmt: skip
    title = "an alert and what led to it, also of a pod that is gone"
    return HeadedCommand("show", title, "kubectl gadget alerts show k7m2qp4", options, _show)


def _show(name: str, local: bool, agent: tuple[str, ...], form: str) -> None:
    with find_targets(agent, local, also=(RECEIVER,), **ALWAYS) as targets:
        reply = find_alert(targets(), name)
        from kubectl_gadget.detect.told import AlertStory

        told = AlertStory.of(reply)
        if form == "json":
            from gadget.rules.alerts import dumps

            write_json(dumps(told.json()).decode())
            return
        width = terminal.columns() if sys.stdout.isatty() else None
        write_lines("".join(f"{line}\n" for line in told.lines(width)))


def find_alert(targets: Targets, text: str) -> pb.KeptAlertReply:
    """The answer of the agent that keeps an alert, by its id or what the id begins with, in any case.

    Raises:
        UsageError: None does, or several ids begin so.
        GadgetError: None answers.

    """
    name = text.strip().lower()
    for reply in _ask(targets, name):
        if reply.alerts[0].id == name:
            return reply
    begun = {each.id for reply in _ask(targets, name, begins=True) for each in reply.alerts if each.id.startswith(name)}
    if len(begun) > 1:
        some = ", ".join(sorted(begun)[:MOST_IDS]) + ", …" * (len(begun) > MOST_IDS)
        raise UsageError(f"ids of several alerts begin with {text!r}: {some}")
    for full in begun:
        for reply in _ask(targets, full):
            if reply.alerts[0].id == full:
                return reply
    raise UsageError(f"no alert {text!r} is kept: `kubectl gadget alerts` shows the ids of those that are")


def _ask(targets: Targets, name: str, *, begins: bool = False) -> list[pb.KeptAlertReply]:
    """The answers with alerts in them. GadgetError if no agent answers."""
    from gadget._generated import gadget_pb2 as pb
    from kubectl_gadget.agents.client import ask_all

    answers = ask_all(targets, "KeptAlert", pb.KeptAlertRequest(id=name, begins=begins)).values()
    failures = [each for each in answers if isinstance(each, GadgetError)]
    if failures and len(failures) == len(answers):
        raise failures[0]
    for failure in failures:
        if begins and not isinstance(failure, Unsupported):  # else it is told once more
            tell(f"incomplete: {failure}")
    return [each for each in answers if isinstance(each, pb.KeptAlertReply) and each.alerts]


def complete_alerts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The ids of alerts that agents keep, the newest; nothing if none answers at once."""
    addresses = addresses_of(ctx)
    if not addresses:
        return []
    from gadget._generated import gadget_pb2 as pb
    from gadget.kinds.times import moment
    from gadget.text import escape
    from kubectl_gadget.agents.client import ask_once
    from kubectl_gadget.agents.targets import Agent

    request, found = pb.KeptAlertRequest(id=incomplete, begins=True), []
    for address in addresses:
        try:
            found += ask_once(Agent(address, address), "KeptAlert", request, SECONDS).alerts
        except GadgetError:
            continue
    return [
        CompletionItem(each.id, help=escape(f"{moment(each.time_ns)} {each.rule} {each.container.pod}".rstrip()))
        for each in sorted(found, key=lambda each: -each.time_ns)
        if is_word(each.id) and each.id.startswith(incomplete)
    ]
