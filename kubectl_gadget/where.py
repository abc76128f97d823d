"""Finds what --agent, --local or the options of a cluster mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from gadget.errors import UsageError
from kubectl_gadget.pods import read_pods
from kubectl_gadget.request import Selection
from kubectl_gadget.targets import Targets


@contextmanager
def find_targets(agents: Sequence[str], local: bool) -> Iterator[Callable[[], Targets]]:
    """Gives a function that waits for the targets: agents by address, this machine's, or else the cluster's."""
    if agents:
        yield lambda: Targets({address: partial(str, address) for address in agents})
    elif local:
        from kubectl_gadget.local import local_agent

        with local_agent() as address:
            yield lambda: Targets({"this machine": address})
    else:
        from gadget.kube.api import api_server
        from gadget.kube.kubeconfig import read_context
        from kubectl_gadget.cluster.agents import cluster_agents
        from kubectl_gadget.cluster.options import chosen_cluster

        cluster = chosen_cluster()
        with cluster_agents(api_server(read_context(cluster.flags)), cluster.namespace, cluster.nodes) as targets:
            yield targets


def find_selection(selection: Selection, agents: Sequence[str], local: bool) -> Selection:
    """The selection with what its deployments, services and the like mean. UsageError if there is nobody to ask."""
    workloads = [name.written for name in read_pods(selection.pods) if name.is_workload]
    if not workloads:
        return selection
    if agents or local:
        how = "--local" if local else "--agent"
        raise UsageError(f"-p {workloads[0]}: who these are a cluster tells: with {how} name pods, or use -l")
    from gadget.kube.api import api_server
    from gadget.kube.kubeconfig import read_context
    from kubectl_gadget.cluster.options import chosen_cluster
    from kubectl_gadget.cluster.workloads import find_pods

    api = api_server(read_context(chosen_cluster().flags))
    return selection.resolve(lambda name: find_pods(api, name, selection.namespaces))


def default_namespace(agents: Sequence[str], local: bool) -> tuple[str, ...]:
    """The namespace that a command is about if nobody says: of a cluster the context's, as kubectl has it; else all."""
    if agents or local:
        return ()
    from gadget.kube.kubeconfig import read_context
    from kubectl_gadget.cluster.options import chosen_cluster

    return (read_context(chosen_cluster().flags).namespace,)
