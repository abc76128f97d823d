"""The commands list, show and delete."""

from __future__ import annotations

from typing import Any

import click

from gadget.errors import GadgetError, Unsupported
from gadget.schema import Field
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import Duration, Option, output_options, where_options
from kubectl_gadget.output import make_output
from kubectl_gadget.request import Selection, make_selection
from kubectl_gadget.targets import Targets
from kubectl_gadget.traceloop.completion import complete_recorded_containers, complete_recordings, complete_syscalls
from kubectl_gadget.where import default_namespace, find_targets

FIELDS = [
    *(Field(name, "identity", 0, 0) for name in ("node", "namespace", "pod", "container")),
    Field("id", "short_id", 0, 0),
    Field("state", "identity", 0, 0),
    Field("calls", "int", 0, 0),
    Field("span", "duration", 0, 0),
    Field("ended", "age", 0, 0),
]
MORE_FIELDS = [Field("started", "moment", 0, 0), Field("exit_status", "int", 0, 0), Field("oom", "bool", 0, 0)]


def _where(*without: str) -> list[click.Parameter]:
    options = where_options(complete_recorded_containers)
    return [option for option in options if option.name not in without] + cluster_options()


def _option(*names: str, **settings: Any) -> Option:
    return Option([*names], heading="Options", **settings)


def _argument() -> click.Argument:
    return click.Argument(["name"], metavar="POD|ID", shell_complete=complete_recordings)


class TraceloopCommand(click.Group):
    """`traceloop`: what containers did just before now, or before they ended."""

    title = "the last system calls of containers, running and gone"

    def __init__(self) -> None:
        """Make the group."""
        super().__init__("traceloop", help=f"Shows {self.title}.", short_help=self.title)
        self.context_settings = {"help_option_names": ["-h", "--help"]}
        for command in (_list_command(), _show_command(), _delete_command()):
            self.add_command(command)


def _list_command() -> click.Command:
    form, *_ = output_options()
    title = "the recordings there are, the newest end first"
    return HeadedCommand("list", title, "kubectl gadget traceloop list -n shop", [*_where(), form], _list)


def _list(local: bool, agent: tuple[str, ...], form: str, **selected: Any) -> None:
    if not (selected["namespace"] or selected["all_namespaces"]):
        selected["namespace"] = default_namespace(agent, local)
    selection = make_selection(**selected)
    with find_targets(agent, local) as targets:
        from kubectl_gadget.traceloop import instances

        found, failures = instances.ask(targets())
        _fail(failures, bool(found))
        fields = FIELDS if form == "columns" else [*FIELDS, *MORE_FIELDS]
        output = make_output(form, fields, {})
        chosen = instances.among(found, selection)
        if selection.labels and (unknown := sum(item.labels is None for item in chosen)):
            click.echo(f"{unknown} of pods whose labels are not known are listed all the same.", err=True)
        rows = [_row(item)[: len(fields)] for item in chosen]
        output.start([], rows)
        if rows:
            output.write(rows)


def _row(instance: Any) -> tuple[Any, ...]:
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
        item.started_ns or None,
        instance.exit_status,
        item.oom,
    )


def _fail(failures: list[GadgetError], some: bool) -> None:
    """Say which agents failed; it is an error if none answered. An agent without a recorder is no failure of others."""
    if failures and not some:
        raise failures[0]
    for failure in failures:
        if not isinstance(failure, Unsupported):
            click.echo(f"incomplete: {failure}", err=True)


def _show_command() -> click.Command:
    options = [
        _argument(),
        _option("--instance", type=click.IntRange(1), metavar="N", help="The Nth newest instead; 1 is the newest."),
        _option("--previous", is_flag=True, help="The one before the newest."),
        _option("--tail", type=click.IntRange(1), metavar="N", help="Only the last N lines."),
        _option("--since", type=Duration(), default=0.0, help="Only the last while before its end, such as 5s."),
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
    title = "the last system calls of a container: of the newest that ended badly, else of the newest"
    example = "kubectl gadget traceloop show cart-6c9f7d5b8-x2x7l --tail 20"
    return HeadedCommand("show", title, example, [*options, *_where("pod", "selector")], _show)


def _show(
    name: str,
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
    import os
    import sys

    from gadget.syscalls import match

    view["colour"] = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    names = match(syscalls) if syscalls else frozenset()
    if not (namespace or all_namespaces):
        namespace = default_namespace(agent, local)
    selection = make_selection(namespace, all_namespaces, (), container, "")
    with find_targets(agent, local) as targets:
        from kubectl_gadget.traceloop import instances, show

        found = _find(targets(), selection, name)
        show.show(
            instances.choose(found, name, instance or 0, previous), show.View(names=names, tail=tail or 0, **view)
        )


def _find(targets: Targets, selection: Selection, name: str) -> Any:
    from kubectl_gadget.traceloop import instances

    found, failures = instances.ask(targets)
    _fail(failures, bool(found))
    return instances.named(instances.among(found, selection), name)


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
    with find_targets(agent, local) as targets:
        from gadget._generated import gadget_pb2 as pb
        from gadget._generated import gadget_pb2_grpc as rpc
        from kubectl_gadget.streams import connect
        from kubectl_gadget.traceloop.instances import one_owner

        for instance in one_owner(_find(targets(), selection, name), name):
            with connect(instance.address) as channel:
                request = pb.TraceloopDeleteRequest(cgroup_id=instance.container.cgroup_id)
                rpc.AgentStub(channel).TraceloopDelete(request)
            click.echo(f"deleted {instance.title}")
