"""The agents of several clusters at once, each called by its cluster's context and its node, as Hubble does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

from gadget.errors import GadgetError, UsageError
from gadget.kube.api import api_server
from gadget.kube.kubeconfig import read_context
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.cluster.agents import cluster_agents
from kubectl_gadget.cluster.options import ClusterOptions


@contextmanager
def agents_of(clusters: Sequence[ClusterOptions], *, also: Sequence[str] = ()) -> Iterator[Callable[[], Targets]]:
    """Gives a function that waits for the agents of all clusters, as cluster_agents does for one.

    A cluster that cannot be asked is a target of its own, which cannot be reached: the others go on. UsageError if none
    has a node that is wanted.
    """
    with ExitStack() as stack:
        finds: dict[str, Callable[[], Targets]] = {}
        for cluster in clusters:
            api = api_server(read_context(cluster.flags))
            found = cluster_agents(api, cluster.namespace, cluster.nodes, of_several=True, also=also)
            finds[cluster.context] = stack.enter_context(found)
        yield partial(_find, finds, clusters[0].nodes)


def _find(finds: Mapping[str, Callable[[], Targets]], nodes: Sequence[str]) -> Targets:
    targets, failed = Targets(), Targets()
    looks: dict[str, Callable[[], Targets]] = {}
    for context, find in finds.items():
        try:
            found = find()
        except GadgetError as error:
            failed[context] = partial(_fail, type(error)(f"{context}: {error}"))
            continue
        targets |= _named(context, found)
        if found.look:
            looks[context] = found.look
    wanted = {name for item in nodes for name in item.split(",") if name}
    if unknown := wanted - {name.rpartition("/")[2] for name in targets} if not failed else set():
        raise UsageError(f"no agent on node {', '.join(sorted(unknown))}: there is {', '.join(sorted(targets))}")
    every = Targets(targets | failed)
    every.are_nodes, every.look = True, partial(_look, looks)
    return every


def _look(looks: Mapping[str, Callable[[], Targets]]) -> Targets:
    """The present targets. A cluster that cannot be asked has none; its streams then say that it is away."""
    targets, errors = Targets(), []
    for context, look in looks.items():
        try:
            targets |= _named(context, look())
        except GadgetError as error:
            errors.append(type(error)(f"{context}: {error}"))
    if errors and not targets:
        raise errors[0]
    targets.are_nodes = True
    return targets


def _named(context: str, targets: Targets) -> Targets:
    return Targets({f"{context}/{node}": reach for node, reach in targets.items()})


def _fail(error: GadgetError) -> str:
    raise error
