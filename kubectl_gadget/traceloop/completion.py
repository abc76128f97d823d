"""Shell completion of what recordings have, and of system calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from kubectl_gadget.completion import SECONDS, addresses_of, among, complete_pods, given

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
    items = [CompletionItem(name, help=found[name]) for name in sorted(found) if name and name.startswith(incomplete)]
    return items or complete_pods(ctx, param, incomplete)


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
    import grpc

    from gadget._generated import gadget_pb2 as pb
    from gadget._generated import gadget_pb2_grpc as rpc
    from gadget.errors import GadgetError
    from kubectl_gadget.streams import connect
    from kubectl_gadget.traceloop.instances import Instance

    found = []
    try:
        for address in addresses:
            with connect(address) as channel:
                reply = rpc.AgentStub(channel).TraceloopList(pb.TraceloopListRequest(), timeout=SECONDS)
            found += [Instance(address, address, reply.node, item) for item in reply.items]
    except (GadgetError, grpc.RpcError):
        return []
    return [each for each in found if not namespaces or each.container.namespace in namespaces]
