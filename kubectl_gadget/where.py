"""Finds the agents for --agent, --local or the options of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from gadget.errors import GadgetError, UsageError
from gadget.pod_choice import PodChoice
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.pods import PodName, read_pods
from kubectl_gadget.stream.request import Selection


@contextmanager
def find_targets(
    agents: Sequence[str], local: bool, *, also: Sequence[str] = (), lacking: str = "", switches: str = ""
) -> Iterator[Callable[[], Targets]]:
    """Gives a function that waits for the targets: agents by address, this machine's, or else the cluster's.

    also: what else there is in a cluster, by RECEIVER or HUBBLE, which is reached as agents are. lacking: what an agent
    that a command starts for itself does not have; --local is Unsupported then where no agent runs, and says which
    switches one needs.
    """
    if agents and local:
        raise UsageError("--local and --agent: this machine's agent or those that are named, not both")
    if agents:
        yield lambda: Targets({address: partial(str, address) for address in agents})
    elif local:
        from kubectl_gadget.agents.local import local_agent, need_agent

        if lacking:
            need_agent(lacking, switches and f" {switches}")
        with local_agent() as address:
            yield lambda: Targets({"this machine": address})
    else:
        from gadget.kube.api import api_server
        from gadget.kube.kubeconfig import read_context
        from kubectl_gadget.cluster.agents import cluster_agents
        from kubectl_gadget.cluster.options import chosen_clusters

        cluster, *others = chosen_clusters()
        if others:
            from kubectl_gadget.cluster.several import agents_of

            with agents_of((cluster, *others), also=also) as targets:
                yield targets
            return
        api = api_server(read_context(cluster.flags))
        with cluster_agents(api, cluster.namespace, cluster.nodes, also=also) as targets:
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
    from kubectl_gadget.cluster.options import chosen_clusters
    from kubectl_gadget.cluster.workloads import find_pods

    apis = [api_server(read_context(cluster.flags)) for cluster in chosen_clusters()]

    def find(name: PodName) -> tuple[list[PodChoice], list[str]]:
        """The pods of a workload, of each cluster that has it; what is wrong with it if none has."""
        found, errors = [], []
        for api in apis:
            try:
                found.append(find_pods(api, name, selection.namespaces))
            except GadgetError as error:
                errors.append(error)
        if not found:
            raise errors[0]
        return [each for choices, _ in found for each in choices], [each for _, pods in found for each in pods]

    return selection.resolve(find)


def default_namespace(agents: Sequence[str], local: bool) -> tuple[str, ...]:
    """The namespaces that a command is about if nobody says: those of the contexts, as kubectl has them; else all."""
    if agents or local:
        return ()
    from gadget.kube.kubeconfig import read_context
    from kubectl_gadget.cluster.options import chosen_clusters

    return tuple(dict.fromkeys(read_context(cluster.flags).namespace for cluster in chosen_clusters()))
