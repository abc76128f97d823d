"""Shell completion of values, from running agents and the cluster."""

from __future__ import annotations

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

SECONDS = 2.0

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_namespaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Namespaces that the agents know of, else the cluster's."""
    return _among({namespace for namespace, _ in _pods(ctx)} or _kubectl("namespaces"), incomplete)


def complete_pods(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Pods of the namespaces given so far."""
    chosen = [name for item in ctx.params.get("namespace") or () for name in item.split(",")]
    found = {pod for namespace, pod in _pods(ctx) if not chosen or namespace in chosen}
    return _among(found or _kubectl("pods", *(f"--namespace={name}" for name in chosen[:1])), incomplete)


def _among(names: set[str], incomplete: str) -> list[CompletionItem]:
    """Completions of the last name of a list such as a,!b."""
    last = incomplete.rpartition(",")[2].lstrip("!")
    before = incomplete[: len(incomplete) - len(last)]
    return [CompletionItem(before + name) for name in sorted(names) if name and name.startswith(last)]


def _pods(ctx: click.Context) -> set[tuple[str, str]]:
    """Namespace and pod of every container that running agents know; nothing if none answers at once."""
    from gadget.errors import GadgetError
    from kubectl_gadget.local import running_agent

    addresses = list(ctx.params.get("agent") or ()) or [address for address in [running_agent()] if address]
    if not addresses:
        return set()
    from gadget._generated import gadget_pb2 as pb
    from kubectl_gadget.containers import list_containers

    try:
        replies = [
            reply for address in addresses for reply in list_containers(address, pb.ContainersRequest(), SECONDS)
        ]
    except GadgetError:
        return set()
    return {(item.container.namespace, item.container.pod) for reply in replies for item in reply.containers}


def _kubectl(*what: str) -> set[str]:
    import subprocess

    command = ["kubectl", "get", "--output=name", f"--request-timeout={SECONDS:.0f}s", *what]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 1, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return set()
    return {line.partition("/")[2] for line in done.stdout.splitlines()}
