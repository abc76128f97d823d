"""The command why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from gadget.schema import Field
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import Duration, Option, not_empty, where_options
from kubectl_gadget.output import Look, make_output, terminal
from kubectl_gadget.pods import KINDS
from kubectl_gadget.request import Selection, make_selection
from kubectl_gadget.tell import tell, write_line
from kubectl_gadget.traceloop.asked import ask_all, choose_one, need_recorder
from kubectl_gadget.traceloop.completion import complete_recorded_containers, complete_recordings
from kubectl_gadget.values import short_duration
from kubectl_gadget.where import default_namespace, find_selection, find_targets

if TYPE_CHECKING:
    from kubectl_gadget.traceloop.instances import Instance

FIELDS = [
    Field("ended", "age", 0, 0),
    *(Field(name, "identity", 0, 0) for name in ("namespace", "pod", "container")),
    Field("state", "identity", 0, 0),
    Field("why", "path", 0, 0),
]
_COLOURS = {"certain": terminal.RED, "head": terminal.BOLD, "before": terminal.DIM, "more": terminal.DIM}


class WhyCommand(HeadedCommand):
    """`why`: what ended a container, in a sentence."""

    def __init__(self) -> None:
        """Make the command."""
        heading = "Options"
        options: list[click.Parameter] = [
            click.Argument(["name"], metavar="[POD|KIND/NAME|ID]", required=False, callback=not_empty,
                           shell_complete=complete_recordings),
            Option(["--instance"], heading=heading, type=click.IntRange(1), metavar="N",
                   help="The Nth newest run of it instead; 1 is the newest."),
            Option(["--previous"], heading=heading, is_flag=True, help="The run before the newest."),
            Option(["--since"], heading=heading, type=Duration(), default="1h",
                   help="With -A: ends of the last while. [default: 1h]"),
            Option(["form", "-o", "--output"], heading="Output", type=click.Choice(["columns", "json"]),
                   default="columns", help="Format."),
        ]  # fmt: skip
        where = where_options(complete_recorded_containers)
        where = [option for option in where if option.name not in ("pod", "selector")] + cluster_options()
        title = "what ended a pod, or what it waits for; of -A every bad end"
        super().__init__("why", title, "kubectl gadget why cart -n shop", [*options, *where], _why)


def _why(
    name: str | None,
    instance: int | None,
    previous: bool,
    since: float,
    form: str,
    namespace: tuple[str, ...],
    all_namespaces: bool,
    container: tuple[str, ...],
    local: bool,
    agent: tuple[str, ...],
) -> None:
    asked = bool(namespace or all_namespaces)
    if not asked:
        namespace = default_namespace(agent, local)
    kind, slash, _ = (name or "").partition("/")
    pods = (name,) if name and slash and kind.partition(".")[0] in KINDS else ()
    selection = make_selection(namespace, all_namespaces, pods, container, "")
    need_recorder(agent, local)
    with find_targets(agent, local) as targets:
        selection = find_selection(selection, agent, local)
        found = ask_all(targets())
        if all_namespaces and not name:
            _table(found, selection, since, form)
            return
        chosen = choose_one(found, selection, None if pods else name, instance or 0, previous, anywhere=not asked)
        _one(chosen, found, form)


def _one(instance: Instance, every: Sequence[Instance], form: str) -> None:
    from kubectl_gadget.why import screen
    from kubectl_gadget.why.gather import gather
    from kubectl_gadget.why.judge import judge
    from kubectl_gadget.why.live import with_node

    facts = with_node(gather(instance, every), instance, every)
    findings = judge(facts)
    if form == "json":
        from kubectl_gadget.output.encode import encode
        from kubectl_gadget.output.stdout import write_all

        write_all(encode(screen.to_json(facts, findings)) + b"\n")
        return
    for kind, line in screen.lines(facts, findings, terminal.columns()):
        write_line(line, _COLOURS.get(kind, ""))


def _table(found: Sequence[Instance], selection: Selection, since: float, form: str) -> None:
    """Every bad end of the last while, of each container the newest, with its reason in a line."""
    from kubectl_gadget.traceloop import instances
    from kubectl_gadget.why.several import reasons

    chosen = instances.among(found, selection)
    rows = [
        (
            each.instance.item.ended_ns or None,
            *(getattr(each.instance.container, name) for name in ("namespace", "pod", "container")),
            each.state,
            each.why,
        )
        for each in reasons(chosen, since)
    ]
    output = make_output(form, FIELDS, {}, Look(failed={"state": bool}))
    output.start([], rows)
    if rows:
        output.write(rows)
    else:
        tell(f"nothing ended badly in the last {short_duration(int(since * 1e9))}")
