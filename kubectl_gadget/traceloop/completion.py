"""Shell completion of what recordings have, and of system calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from kubectl_gadget.completion import SECONDS, addresses_of, among, complete_cluster_pods, complete_pods, given, is_word

if TYPE_CHECKING:
    from kubectl_gadget.traceloop.instances import Instance


def complete_recordings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Pods and containers that have a recording, and the ids that begin so; else pods, with or without one."""
    found = {}
    for instance in _instances(ctx):
        container = instance.container
        found[container.pod or container.container] = "" if container.pod else instance.state
        if incomplete:
            found[container.id[:12]] = f"{instance.name}: {instance.state}"
    names = [name for name in sorted(found) if is_word(name) and name.startswith(incomplete)]
    items = [CompletionItem(name, help=found[name]) for name in names]
    return items or complete_pods(ctx, param, incomplete)


def complete_pods_and_recordings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """As complete_recordings, and the cluster's pods beside them: those that never ran have no recording."""
    items = complete_recordings(ctx, param, incomplete)
    if ctx.params.get("agent") or ctx.params.get("local") or "/" in incomplete:
        return items
    known = {item.value for item in items}
    return items + [item for item in complete_cluster_pods(ctx, param, incomplete) if item.value not in known]


def complete_recorded_containers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Containers that have a recording. click tells of no argument before an option that lacks its value."""
    return among({instance.container.container for instance in _instances(ctx)}, incomplete)


def complete_syscalls(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of system calls."""
    from gadget import syscalls

    return among({name for machine in syscalls.MACHINES for name in syscalls.numbers(machine)}, incomplete)


def _instances(ctx: click.Context) -> list[Instance]:
    """The recordings of the namespaces given so far that agents have; nothing if none answers at once."""
    addresses, namespaces = addresses_of(ctx), given(ctx, "namespace")
    if not addresses:
        return []
    from gadget._generated import gadget_pb2 as pb
    from gadget.errors import GadgetError
    from kubectl_gadget.agents.client import ask_once
    from kubectl_gadget.agents.targets import Agent
    from kubectl_gadget.traceloop.instances import Instance

    found = []
    try:
        for agent in (Agent(address, address) for address in addresses):
            reply = ask_once(agent, "TraceloopList", pb.TraceloopListRequest(), SECONDS)
            found += [Instance(agent, reply.node, item) for item in reply.items]
    except GadgetError:
        return []
    return [each for each in found if not namespaces or each.container.namespace in namespaces]
