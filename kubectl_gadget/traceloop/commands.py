"""The commands list, show and delete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from gadget.errors import UsageError
from gadget.schema import Column
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import DurationType, Option, not_empty, output_options, where_options
from kubectl_gadget.output import Extent, Look, find_form, make_output, write_table
from kubectl_gadget.output.terminal import has_colours
from kubectl_gadget.stream.nothing import where_of
from kubectl_gadget.stream.request import Selection, make_selection
from kubectl_gadget.tell import tell, write_line
from kubectl_gadget.traceloop.asked import ask_all, choose_one, need_recorder, pods_of
from kubectl_gadget.traceloop.completion import complete_recorded_containers, complete_recordings, complete_syscalls
from kubectl_gadget.where import default_namespace, find_selection, find_targets

if TYPE_CHECKING:
    from kubectl_gadget.traceloop.instances import Instance

#: Why recordings that ended badly did so, by their agent's target and their cgroup: kubectl_gadget/why, which knows us.
Reasons = Callable[[Sequence["Instance"]], Mapping[tuple[str, int], str]]

FIELDS = [
    *(Column(name, "identity") for name in ("node", "namespace", "pod", "container")),
    Column("containerId", "short_id"),
    Column("state", "identity"),
    Column("calls", "int"),
    Column("span", "duration"),
    Column("ended", "age"),
    Column("why", "text"),
]
MORE_FIELDS = [Column("started", "moment"), Column("exit_status", "int"), Column("oom", "bool")]


def _where(*without: str) -> list[click.Parameter]:
    options = where_options(complete_recorded_containers)
    return [option for option in options if option.name not in without] + cluster_options()


def _option(*names: str, **settings: Any) -> Option:
    return Option([*names], heading="Options", **settings)


def _argument(*, required: bool = True) -> click.Argument:
    metavar = "POD|ID" if required else "[POD|KIND/NAME|ID]"
    return click.Argument(
        ["name"], metavar=metavar, callback=not_empty, required=required, shell_complete=complete_recordings
    )


class TraceloopCommand(click.Group):
    """`traceloop`: what containers did just before now, or before they ended."""

    title = "the last system calls of containers, running and gone"

    def __init__(self, reasons: Reasons) -> None:
        """Make the group; reasons tells why recordings ended."""
        super().__init__("traceloop", help=f"Shows {self.title}.", short_help=self.title)
        self.context_settings = {"help_option_names": ["-h", "--help"]}
        for command in (_list_command(reasons), _show_command(), _delete_command()):
            self.add_command(command)


def _list_command(reasons: Reasons) -> click.Command:
    form, *_ = output_options()
    title = "the recordings there are, the newest end first"
    return HeadedCommand(
        "list", title, "kubectl gadget traceloop list -n shop", [*_where(), form], partial(_list, reasons)
    )


def _list(reasons: Reasons, local: bool, agent: tuple[str, ...], form: str, **selected: Any) -> None:
    if not (selected["namespace"] or selected["all_namespaces"]):
        selected["namespace"] = default_namespace(agent, local)
    selection = make_selection(**selected)
    need_recorder(agent, local)
    with find_targets(agent, local) as targets:
        selection = find_selection(selection, agent, local)
        from kubectl_gadget.traceloop import instances

        found = ask_all(targets())
        fields = FIELDS if find_form(form).extent == Extent.COLUMNS else [*FIELDS, *MORE_FIELDS]
        look = Look(narrow=("span", "calls", "containerId"), failed={"state": _is_bad})
        output = make_output(form, fields, {"containerId": "ID"}, look)
        chosen = instances.among(found, selection)
        if selection.labels and (unknown := sum(item.labels is None for item in chosen)):
            tell(f"{unknown} of pods whose labels are not known are listed all the same.")
        why = reasons(chosen)
        rows = [_row(item, why)[: len(fields)] for item in chosen]
        write_table(output, rows)
        if not rows:
            tell(instances.why_none(found, selection))


def _is_bad(state: str) -> bool:
    """Whether a recording's state tells of an end that nobody can have wanted."""
    return state not in ("running", "ended", "exited 0")


def _row(instance: Instance, why: Mapping[tuple[str, int], str]) -> tuple[Any, ...]:
    item, container = instance.item, instance.container
    return (
        instance.node,
        container.namespace,
        container.pod,
        container.container,
        container.id,
        instance.state,
        item.calls,
        item.last_ns - item.first_ns,
        None if item.running else item.ended_ns or None,
        why.get((instance.agent.target, container.cgroup_id), ""),
        item.started_ns or None,
        instance.exit_status,
        item.oom,
    )


def _show_command() -> click.Command:
    options = [
        _argument(required=False),
        _option("--instance", type=click.IntRange(1), metavar="N", help="The Nth newest instead; 1 is the newest."),
        _option("--previous", is_flag=True, help="The one before the newest."),
        _option("--tail", type=click.IntRange(1), metavar="N", help="Only the last N lines."),
        _option("--since", type=DurationType(), default=0.0, help="Only the last while before its end, such as 5s."),
        _option("--syscalls", multiple=True, metavar="A,B*", help="Only these system calls; * stands for anything.",
                shell_complete=complete_syscalls),
        _option("--failed", is_flag=True, help="Only calls that failed."),
        _option("--pid", type=int, default=0, metavar="PID", help="Only this process or thread."),
        _option("-T", "--durations", is_flag=True, help="Add how long each call waited without running, in seconds."),
        _option("--all", is_flag=True, help="What the container's runtime did before the container's program, too."),
        _option("-f", "--follow", is_flag=True, help="Go on with the calls that come."),
        Option(["form", "-o", "--output"], heading="Output", type=click.Choice(["columns", "json"]), default="columns",
               help="Format."),
    ]  # fmt: skip
    title = "the last system calls of a container: of the newest that ended badly, else of the newest that is named"
    example = "kubectl gadget traceloop show cart-6c9f7d5b8-x2x7l --tail 20"
    return HeadedCommand("show", title, example, [*options, *_where("pod", "selector")], _show)


def _show(
    name: str | None,
    instance: int | None,
    tail: int | None,
    previous: bool,
    syscalls: tuple[str, ...],
    namespace: tuple[str, ...],
    all_namespaces: bool,
    container: tuple[str, ...],
    local: bool,
    agent: tuple[str, ...],
    **view: Any,
) -> None:

    from gadget.syscalls import match

    view["colour"] = has_colours()

    names = match(syscalls) if syscalls else frozenset()
    asked = bool(namespace or all_namespaces)
    if not asked:
        namespace = default_namespace(agent, local)
    pods = pods_of(name, agent, local)
    selection = make_selection(namespace, all_namespaces, pods, container, "")
    need_recorder(agent, local)
    with find_targets(agent, local) as targets:
        selection = find_selection(selection, agent, local)
        from kubectl_gadget.traceloop import show

        chosen = choose_one(
            ask_all(targets()), selection, None if pods else name, instance or 0, previous, anywhere=not asked
        )
        show.show(chosen, show.View(names=names, tail=tail or 0, **view))


def _find(targets: Targets, selection: Selection, name: str) -> Any:
    """What a name stands for in the namespaces that are selected, and nowhere else: it is about to be deleted."""
    from kubectl_gadget.traceloop import instances

    found = ask_all(targets)
    try:
        return instances.named(instances.among(found, selection), name)
    except UsageError as error:
        try:
            elsewhere = instances.named(found, name)
        except UsageError:
            raise error from None
        there = elsewhere[0].container
        raise UsageError(f"no recording of {name!r} in {where_of(selection)}: it is in -n {there.namespace}") from None


def _delete_command() -> click.Command:
    title = "a container's recordings; one that runs is recorded no more"
    options = [_argument(), *_where("pod", "selector")]
    return HeadedCommand("delete", title, "kubectl gadget traceloop delete 0c81d2aa37fe", options, _delete, "Deletes")


def _delete(
    name: str,
    namespace: tuple[str, ...],
    all_namespaces: bool,
    container: tuple[str, ...],
    local: bool,
    agent: tuple[str, ...],
) -> None:
    if not (namespace or all_namespaces):
        namespace = default_namespace(agent, local)
    selection = make_selection(namespace, all_namespaces, (), container, "")
    need_recorder(agent, local)
    with find_targets(agent, local) as targets:
        from gadget._generated import gadget_pb2 as pb
        from kubectl_gadget.agents.client import ask_once
        from kubectl_gadget.traceloop.instances import one_owner

        for instance in one_owner(_find(targets(), selection, name), name):
            request = pb.TraceloopDeleteRequest(cgroup_id=instance.container.cgroup_id)
            ask_once(instance.agent, "TraceloopDelete", request)
            write_line(f"deleted {instance.title}")
