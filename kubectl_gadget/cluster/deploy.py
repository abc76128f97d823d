"""Makes the agents in a cluster, watches them come up, and removes them."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from gadget.errors import GadgetError, Unreachable
from kubectl_gadget.cluster import manifests
from kubectl_gadget.cluster.agents import AgentPod, cluster_agents, describe_agents, list_agents, not_allowed
from kubectl_gadget.cluster.api import ApiError, ApiServer
from kubectl_gadget.cluster.kubeconfig import read_context
from kubectl_gadget.cluster.options import Cluster
from kubectl_gadget.text import escape

APPLY = "application/apply-patch+yaml"
POLL_SECONDS = 0.3
END_SECONDS = 10.0
LOG_LINES = 3
_PATHS = {
    "Namespace": "/api/v1/namespaces",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "DaemonSet": "/apis/apps/v1/namespaces/{}/daemonsets",
}


def deploy(cluster: Cluster, objects: list[dict[str, Any]], seconds: float) -> None:
    """Make objects, and wait until every node has an agent that serves. GadgetError if one has not in time."""
    api = ApiServer(read_context(cluster.flags))
    for item in objects:
        if item["kind"] == "Namespace" and not _is_ours(_find(api, item)):
            continue  # it was there before: undeploy will leave it, too
        with _explained(item, "create"):
            made = api.request("PATCH", f"{_path(item)}?fieldManager=kubectl-gadget&force=true", item, APPLY)
    what = "created" if made["metadata"]["generation"] == 1 else "updated"
    click.echo(f"{made['metadata']['name']}  DaemonSet {what} in namespace {cluster.namespace}")
    began = time.monotonic()
    agents = _wait(api, cluster.namespace, objects[-1], began + seconds)
    about = describe_agents(api, cluster.namespace) if any(agent.ready for agent in agents) else {}
    width = max((len(agent.node) for agent in agents), default=0)
    for agent in agents:
        state = "ready" if agent.ready else "not ready"
        click.echo(f"  {agent.node:{width}}  {state:9}  {agent.problem or about.get(agent.node, '')}".rstrip())
        for line in _last_words(api, cluster.namespace, agent) if agent.hopeless else ():
            click.echo(f"  {'':{width}}    {line}")
    ready = sum(agent.ready for agent in agents)
    told = f"{ready} of {len(agents)} node{'' if len(agents) == 1 else 's'} ready in {time.monotonic() - began:.1f} s"
    if ready < len(agents) or not agents:
        raise Unreachable(told)
    click.echo(f"{told}. Try: kubectl gadget execsnoop -A")


def undeploy(cluster: Cluster, seconds: float) -> None:
    """Remove what deploy made, and wait until it is gone. GadgetError if it is not in time."""
    api = ApiServer(read_context(cluster.flags))
    objects = manifests.render(manifests.Settings("", namespace=cluster.namespace))
    _end_recorders(api, cluster.namespace)
    removed = []
    deadline = time.monotonic() + seconds
    for item in reversed(objects):
        found = _find(api, item)
        if not found or not _is_ours(found):
            continue
        with _explained(item, "delete"):
            api.request("DELETE", _path(item), {"propagationPolicy": "Foreground"})
        removed.append(item)
        while _find(api, item):  # agents end before they lose their rights
            if time.monotonic() > deadline:
                raise GadgetError(f"{_name(item)} is still there after {seconds:.0f} s: it may yet go")
            time.sleep(POLL_SECONDS)
    if not removed:
        raise GadgetError(f"nothing to remove: there are no agents in namespace {cluster.namespace}")
    click.echo(f"removed: {', '.join(map(_name, removed))}")


def _end_recorders(api: ApiServer, namespace: str) -> None:
    """Remove what the agents have pinned on their nodes, as far as they can be reached."""
    import grpc

    from gadget._generated import gadget_pb2 as pb
    from gadget._generated import gadget_pb2_grpc as rpc

    with cluster_agents(api, namespace, ()) as targets:
        try:
            reached = targets()
        except GadgetError:
            return  # there are no agents
        for node, address in reached.items():
            try:
                with grpc.insecure_channel(address()) as channel:
                    rpc.AgentStub(channel).End(pb.EndRequest(), timeout=END_SECONDS)
            except (GadgetError, grpc.RpcError) as error:
                why = error.code().name.lower() if isinstance(error, grpc.RpcError) else error
                click.echo(f"warning: {node}: /sys/fs/bpf/gadget may stay behind there: {why}", err=True)


def _name(item: dict[str, Any]) -> str:
    return f"{item['kind']} {item['metadata']['name']}"


def _path(item: dict[str, Any]) -> str:
    return f"{_PATHS[item['kind']].format(item['metadata'].get('namespace'))}/{item['metadata']['name']}"


def _find(api: ApiServer, item: dict[str, Any]) -> dict[str, Any]:
    """The object as the cluster has it; empty if it has none."""
    try:
        with _explained(item, "get"):
            found: dict[str, Any] = api.get(_path(item))
            return found
    except ApiError as error:
        if error.code == 404:
            return {}
        raise


def _is_ours(found: dict[str, Any]) -> bool:
    labels = found.get("metadata", {}).get("labels") or {}
    return not found or manifests.MANAGED_BY.items() <= labels.items()


@contextmanager
def _explained(item: dict[str, Any], verb: str) -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        raise not_allowed(error, f"{verb} {_name(item)}", item["metadata"].get("namespace", "")) from None


def _wait(api: ApiServer, namespace: str, daemon_set: dict[str, Any], deadline: float) -> list[AgentPod]:
    """Follow the rollout until it has ended one way or the other."""
    shown = ""
    while True:
        found = _find(api, daemon_set)
        state = found["status"]
        wanted = state.get("desiredNumberScheduled", 0)
        agents = list_agents(api, namespace)
        waiting = [agent for agent in agents if not agent.ready]
        current = state.get("observedGeneration") == found["metadata"]["generation"]
        if current and state.get("updatedNumberScheduled", 0) == wanted == len(agents):
            if all(agent.hopeless for agent in waiting):
                break
        elif current and (refused := _refusal(api, namespace)):
            raise GadgetError(f"the cluster makes no pods: {refused}")
        if time.monotonic() > deadline:
            break
        line = f"waiting: {len(agents) - len(waiting)} of {wanted} nodes ready"
        line += f"; {waiting[0].node}: {waiting[0].problem}" if waiting else ""
        if line != shown and sys.stderr.isatty():
            click.echo(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}", err=True, nl=False)
        shown = line
        time.sleep(POLL_SECONDS)
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)
    return agents


def _refusal(api: ApiServer, namespace: str) -> str:
    """Why pods of the DaemonSet are not even made, such as by a quota or a policy; empty if nobody said no."""
    fields = "involvedObject.kind=DaemonSet,reason=FailedCreate"
    try:
        events = api.get(f"/api/v1/namespaces/{namespace}/events", fieldSelector=fields)["items"]
    except ApiError:
        return ""
    return str(events[-1]["message"]) if events else ""


def _last_words(api: ApiServer, namespace: str, agent: AgentPod) -> list[str]:
    """The end of the log of an agent that does not serve: of its last try if it waits for the next."""
    for previous in ("true", "false"):
        with suppress(ApiError):
            path = f"/api/v1/namespaces/{namespace}/pods/{agent.name}/log?tailLines={LOG_LINES}&previous={previous}"
            if text := api.fetch("GET", path).decode(errors="replace").strip():
                return [escape(line) for line in text.splitlines()]
    return []
