"""Shell completion of values, from running agents and the cluster."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from kubectl_gadget.pods import KINDS

if TYPE_CHECKING:
    from gadget._generated import gadget_pb2 as pb
    from gadget.schema import Column

SECONDS = 2.0
#: Where a click context keeps the options of the cluster.
CLUSTER = "kubectl_gadget.cluster"
#: The options of the cluster that are not kubectl's.
_OWN = ("node", "gadget_namespace")

#: The letters of names in Kubernetes and container runtimes. A shell takes them for a plain word.
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_namespaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Namespaces that the agents know of, else the cluster's."""
    return among({namespace for namespace, *_ in _containers(ctx)} or _get(ctx, "namespaces"), incomplete)


def complete_pods(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Pods of the namespaces given so far, or after KIND/ the cluster's objects of that kind."""
    chosen = given(ctx, "namespace")
    kind, slash, _ = incomplete.rpartition(",")[2].lstrip("!").partition("/")
    if slash and KINDS.get(kind, "pods") != "pods":
        names = _get(ctx, KINDS[kind], *(f"--namespace={name}" for name in chosen[:1]))
        return among({f"{kind}/{name}" for name in names}, incomplete)
    found = {pod for namespace, pod, _ in _containers(ctx) if not chosen or namespace in chosen}
    return among(found, incomplete) if found else complete_cluster_pods(ctx, param, incomplete)


def complete_cluster_pods(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The cluster's pods, of the namespaces given so far."""
    return among(_get(ctx, "pods", *(f"--namespace={name}" for name in given(ctx, "namespace")[:1])), incomplete)


def complete_nodes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The cluster's nodes."""
    return among(_get(ctx, "nodes"), incomplete)


def complete_contexts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The contexts of the kubeconfig."""
    names = _kubectl("config", "get-contexts", "--output=name", *_flags(ctx, ("kubeconfig",)))
    last = incomplete.rpartition(",")[2]
    return [_item(incomplete, last, name) for name in names if name.startswith(last) and name.isprintable()]


def complete_fields(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Fields of the command's events, in a list such as a,+b,-c."""
    last = incomplete.rpartition(",")[2].lstrip("+-")
    return [_item(incomplete, last, field.name, field.doc) for field in _fields(ctx) if field.name.startswith(last)]


def complete_filter(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The field of a filter's last condition, or the words for its value."""
    return conditions(_fields(ctx), incomplete)


def conditions(fields: Iterable[Column], incomplete: str) -> list[CompletionItem]:
    """The same where a filter may ask for fields."""
    last = re.split(r"[,(]|&&|\|\||\s(?:and|or|not)\s", incomplete)[-1]
    found = re.fullmatch(r"\s*!?\s*([\w.]*)(?:(?:[=!]=|!?~)(.*))?", last)
    if not found:
        return []
    name, value = found.groups()
    if value is None:
        return [_item(incomplete, name, field.name, field.doc) for field in fields if field.name.startswith(name)]
    words = [word for field in fields if field.name == name for word in field.means.words(field)]
    return [_item(incomplete, value, word) for word in words if word.startswith(value)]


def _item(incomplete: str, last: str, whole: str, doc: str = "") -> CompletionItem:
    return CompletionItem(incomplete[: len(incomplete) - len(last)] + whole, help=doc or None)


def _fields(ctx: click.Context) -> list[Column]:
    """The fields of a gadget's command, or of the recording to replay."""
    from gadget.errors import GadgetError
    from kubectl_gadget.output import all_fields

    gadget = getattr(ctx.command, "gadget", None)
    if gadget is None and (header := recorded(ctx)):
        from gadget import catalog

        with suppress(GadgetError):
            gadget = catalog.find(header.gadget)
    return [*all_fields(gadget.schema).values(), *gadget.schema.parts.values()] if gadget else []


def recorded(ctx: click.Context) -> pb.RecordingHeader | None:
    """What the recording to replay is of; None if there is none."""
    from gadget.errors import GadgetError

    # what is left over: click takes arguments last, and not at all after an option whose value is still to come
    file = ctx.params.get("file") or next(iter(ctx.args), None)
    if file and str(file) != "-":
        from kubectl_gadget.stream.recording import Recording

        with suppress(GadgetError):
            return Recording(Path(file)).header
    return None


def complete_containers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Containers of the namespaces and pods given so far."""
    namespaces, pods = given(ctx, "namespace"), given(ctx, "pod")
    found = {
        container
        for namespace, pod, container in _containers(ctx)
        if (not namespaces or namespace in namespaces) and (not pods or pod in pods)
    }
    return among(found, incomplete)


def given(ctx: click.Context, option: str) -> list[str]:
    """The names that an option has been given so far."""
    return [name for item in ctx.params.get(option) or () for name in item.split(",")]


def among(names: set[str], incomplete: str) -> list[CompletionItem]:
    """Completions of the last name of a list such as a,!b."""
    last = incomplete.rpartition(",")[2].lstrip("!")
    before = incomplete[: len(incomplete) - len(last)]
    return [CompletionItem(before + name) for name in sorted(names) if is_word(name) and name.startswith(last)]


def is_word(name: str) -> bool:
    """Whether a name that others chose may be put on a command line, where a shell reads it."""
    return bool(_WORD.fullmatch(name))


def addresses_of(ctx: click.Context) -> list[str]:
    """Agents that can be asked at once: those of --agent, or this machine's."""
    from kubectl_gadget.agents.local import running_agent

    return list(ctx.params.get("agent") or ()) or [address for address in [running_agent()] if address]


def _containers(ctx: click.Context) -> set[tuple[str, str, str]]:
    """Namespace, pod and name of every container that running agents know; nothing if none answers at once."""
    from gadget.errors import GadgetError

    addresses = addresses_of(ctx)
    if not addresses:
        return set()
    from gadget._generated import gadget_pb2 as pb
    from kubectl_gadget.agents.targets import Agent
    from kubectl_gadget.stream.containers import list_containers

    try:
        replies = [
            reply
            for address in addresses
            for reply in list_containers(Agent(address, address), pb.ContainersRequest(), SECONDS)
        ]
    except GadgetError:
        return set()
    found = [item.container for reply in replies for item in reply.containers]
    return {(each.namespace, each.pod, each.container) for each in found}


def complete_standing(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The standing runs of agents that answer at once."""
    from gadget.errors import GadgetError

    names: set[str] = set()
    if addresses := addresses_of(ctx):
        from gadget._generated import gadget_pb2 as pb
        from gadget.standing import shown_name
        from kubectl_gadget.agents.client import ask_once
        from kubectl_gadget.agents.targets import Agent

        for address in addresses:
            with suppress(GadgetError):
                reply = ask_once(Agent(address, address), "StandingList", pb.StandingListRequest(), SECONDS)
                names |= {shown_name(status.run) for status in reply.runs}
    return [CompletionItem(name) for name in sorted(names) if is_word(name) and name.startswith(incomplete)]


def _get(ctx: click.Context, *what: str) -> set[str]:
    """Names of the cluster's objects."""
    found = _kubectl("get", "--output=name", f"--request-timeout={SECONDS:.0f}s", *_flags(ctx), *what)
    return {name.partition("/")[2] for name in found}


def _flags(ctx: click.Context, only: tuple[str, ...] = ()) -> list[str]:
    """Kubectl's flags as they were given so far."""
    flags = []
    for name, value in ctx.meta.get(CLUSTER, {}).items():
        if value and name not in _OWN and name != "request_timeout" and (not only or name in only):
            flag = f"--{name.strip('_').replace('_', '-')}"
            values = value if isinstance(value, tuple) else ["true" if value is True else value]
            flags += [f"{flag}={item}" for item in values]
    return flags


def _kubectl(*arguments: str) -> list[str]:
    """The lines that kubectl prints; none if it fails."""
    import subprocess

    command = ["kubectl", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 1, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines()
