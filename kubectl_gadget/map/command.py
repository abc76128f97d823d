"""The command `map`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gadget import catalog
from gadget.errors import UsageError
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.observe.choosing import KINDS, of_ends
from kubectl_gadget.options import DurationType, Option, where_options
from kubectl_gadget.stream.request import make_request
from kubectl_gadget.tell import tell, write_line
from kubectl_gadget.where import default_namespace, find_targets

if TYPE_CHECKING:
    from kubectl_gadget.agents.targets import Targets
    from kubectl_gadget.map.owners import Owners

GADGET = "observe"
#: What of the past is shown at first.
USUAL_SECONDS = 3600.0


class MapCommand(HeadedCommand):
    """`map`: who talks to whom, on a page."""

    def __init__(self) -> None:
        """Make the command."""
        where = {option.name: option for option in where_options()}
        super().__init__(
            "map",
            "who talks to whom, live, on a page of this machine",
            "kubectl gadget map -n shop",
            [
                Option(["--since"], heading="Options", type=DurationType(), default=USUAL_SECONDS, metavar="10m",
                       help="Begin with what was kept in so long. [default: 1h]"),
                Option(["--policy"], heading="Options", type=click.Path(path_type=Path), metavar="FILE|DIR",
                       help="Judge what was seen by these policies, not by the cluster's."),
                Option(["--port"], heading="Options", type=click.IntRange(1, 65535), default=None, metavar="N",
                       help="Port of 127.0.0.1 that the page is at. [default: any]"),
                Option(["--no-open"], heading="Options", is_flag=True, help="Say where it is, and open no browser."),
                where["namespace"],
                where["all_namespaces"],
                where["local"],
                where["agent"],
                *cluster_options(),
            ],
            self._run,
        )  # fmt: skip

    def _run(
        self,
        since: float,
        policy: Path | None,
        port: int | None,
        no_open: bool,
        namespace: tuple[str, ...],
        all_namespaces: bool,
        local: bool,
        agent: tuple[str, ...],
        **rest: Any,
    ) -> None:
        if namespace and all_namespaces:
            raise UsageError("-n and -A: choose one")
        if not (namespace or all_namespaces):
            namespace = default_namespace(agent, local)
        gadget = catalog.find(GADGET)
        (by_namespace,) = (kind for kind in KINDS if kind.name == "namespace")
        began = time.time_ns() - int(since * 1e9)
        request = make_request(
            gadget, {}, "json", "", (*of_ends(by_namespace, "", namespace), f"timestamp>={began}"), "",
            standing=GADGET, reads=GADGET, since_ns=began, follow=True,
        )  # fmt: skip
        title = f"Flows of {' '.join(namespace) or 'all namespaces'}"
        with find_targets(agent, local) as targets:
            from kubectl_gadget.cluster.directory import find_directory
            from kubectl_gadget.map.alerts import Alerts, watched
            from kubectl_gadget.map.opening import opened
            from kubectl_gadget.map.server import MapServer
            from kubectl_gadget.map.session import MapSession
            from kubectl_gadget.page import document
            from kubectl_gadget.stream.begin import begin  # grpc, while a local agent starts
            from kubectl_gadget.stream.session import stream

            reached = targets()
            judge = _judge(reached, agent, local, namespace, policy)
            page = document(
                title, live=True, empty=_why_empty(namespace, local=local), policies=judge is not None,
                labels=not (agent or local),
            )  # fmt: skip
            with begin(request, reached) as streams, MapServer(port or 0, page, judge) as server:
                owners = _owners(agent, local)
                directory = find_directory(reached, namespace, cluster=not (agent or local))
                write_line(server.url)
                alerts = Alerts(owners)
                with opened(server.url, wanted=not no_open), watched(reached, began, alerts.add):
                    tell("Whoever has this address can see the page; Ctrl-C ends it.")
                    stream(request, reached, streams, directory, MapSession.on(server, owners, alerts))


def _owners(agents: Sequence[str], local: bool) -> Owners:
    from kubectl_gadget.map.owners import Owners, ask_cluster

    if agents or local:
        return Owners()
    from gadget.kube.api import api_server
    from gadget.kube.kubeconfig import read_context
    from kubectl_gadget.cluster.options import chosen_clusters

    apis = [api_server(read_context(cluster.flags)) for cluster in chosen_clusters()]
    return Owners(lambda: ask_cluster(apis))


def _judge(
    targets: Targets, agents: Sequence[str], local: bool, namespaces: tuple[str, ...], file: Path | None
) -> Callable[..., dict[str, Any]] | None:
    """What judges what was seen: by the policies of a file, or of the cluster if there is one and no other."""
    from kubectl_gadget.cluster.options import chosen_clusters
    from kubectl_gadget.map.policies import judging

    if agents or local:
        return judging(targets, file, namespaces) if file else None
    cluster, *others = chosen_clusters()
    if others:
        if file:
            raise UsageError("--policy: judged for one cluster at a time")
        return None
    from gadget.kube.api import api_server
    from gadget.kube.kubeconfig import read_context

    return judging(targets, file, namespaces, api_server(read_context(cluster.flags)))


def _why_empty(namespaces: Sequence[str], *, local: bool) -> str:
    """An explanation for a user who sees nothing."""
    where = f"namespace {', '.join(namespaces)}" if namespaces else "any container"
    lines = [
        f"No flow of {where} has been seen yet.",
        "Agents keep what leaves or reaches containers, since they run: nothing over loopback, nothing of processes "
        "outside containers.",
    ]
    lines += ["-A shows all namespaces."] if namespaces else []
    lines += [] if local else ["kubectl gadget status tells which agents there are, and how many flows they keep."]
    return "\n".join(lines)
