"""Makes the agents in a cluster, and watches them come up."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from gadget.errors import GadgetError, Unreachable
from gadget.kube.api import ApiError, ApiServer
from gadget.kube.kubeconfig import read_context
from gadget.text import counted, escape
from kubectl_gadget.cluster.agents import COMPONENT, AgentPod, describe_agents, list_agents
from kubectl_gadget.cluster.audit import keys, write_files
from kubectl_gadget.cluster.hubble import keys as hubble_keys
from kubectl_gadget.cluster.hubble import told as about_hubble
from kubectl_gadget.cluster.manifests import HUBBLE_SERVER, Settings, render
from kubectl_gadget.cluster.objects import explained, find, is_ours, path_of
from kubectl_gadget.cluster.options import HUBBLE, RECEIVER, SERVERS, ClusterOptions
from kubectl_gadget.cluster.remedies import Refusals, Remedies, lacks
from kubectl_gadget.progress import Progress
from kubectl_gadget.tell import write_line, write_lines

APPLY = "application/apply-patch+yaml"
POLL_SECONDS = 0.3
#: How long pods may be refused: a controller may not have seen yet that their service account is there.
REFUSED_SECONDS = 3.0
LOG_LINES = 3


def deploy(
    cluster: ClusterOptions,
    settings: Settings,
    seconds: float,
    may: Remedies = Remedies(),  # noqa: B008
    audit: Path | None = None,
    hubble: bool = False,
    refused_seconds: float = REFUSED_SECONDS,
) -> None:
    """Make agents, and wait until every node has one that serves. GadgetError if one has not in time.

    may says what to do about clusters that refuse something, as long as it was not asked for by name. audit: make a
    receiver of audit events too, and write what the API server needs into that folder. hubble: make Hubble's API too.
    """
    api = ApiServer(read_context(cluster.flags))
    began = time.monotonic()
    if audit:
        settings = replace(settings, audit=keys(api, cluster.namespace))
    if hubble:
        settings = replace(settings, hubble=hubble_keys(api, cluster.namespace))
    while True:
        objects = render(settings)
        if settings.critical_quota and not _make_quota(api, objects):
            settings, why = may.without_priority(settings)
            write_line(why)
            continue
        later = [each for each in objects if each["metadata"]["name"] == HUBBLE_SERVER and each["kind"] == "Deployment"]
        old = _apply(api, cluster.namespace, [each for each in objects if each not in later])
        look_for = may.less_than_rights(settings)
        daemon_set = objects[-1]
        agents, wanted, refusal = _wait(
            api, cluster.namespace, daemon_set, began + seconds, old, look_for, refused_seconds
        )
        other = may.find(settings, agents, refusal)
        if other is None:
            break
        settings, why = other
        write_line(why)
    if refusal and not agents:
        raise GadgetError(f"the cluster makes no pods: {refusal}")
    names = {RECEIVER: "the receiver of audit events"} if audit else {}
    if hubble and any(agent.ready for agent in agents):  # without agents it would end, again and again
        names[HUBBLE] = "Hubble's API"
        for item in later:
            _make(api, item)
    made = [each for each in objects if each["kind"] == "Deployment" and component_of(each) in names]
    servers = _wait_for_servers(api, cluster.namespace, began + seconds, made) if agents else []
    _show(api, cluster.namespace, [*agents, *servers])
    ready = sum(agent.ready for agent in agents)
    told = f"{ready} of {counted(wanted, 'node')} ready in {time.monotonic() - began:.1f} s"
    if refusal:
        raise Unreachable(f"{told}: the cluster makes no more pods: {refusal}")
    if not wanted:
        raise Unreachable(f"{told}: no node of the cluster fits --node-selector and --toleration")
    if ready < wanted:
        raise Unreachable(told)
    serving = {each.node for each in servers if each.ready}
    if missing := [words for name, words in names.items() if name not in serving]:
        raise Unreachable(f"{told}, but {' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not")
    write_line(f"{told}. Try: kubectl gadget execsnoop -A")
    if audit and settings.audit:
        write_lines(write_files(api, cluster.namespace, settings.audit, audit))
    if hubble:
        write_lines(about_hubble(cluster.namespace))


def _apply(api: ApiServer, namespace: str, objects: list[dict[str, Any]]) -> Refusals:
    """Make objects, or change them. Gives why pods were refused before."""
    before = find(api, objects[-1])
    old = _refusals(api, before)
    for item in objects:
        if item["kind"] == "Namespace" and not is_ours(find(api, item)):
            continue  # it was there before: undeploy will leave it, too
        made = _make(api, item)
    same = before and before["metadata"]["generation"] == made["metadata"]["generation"]
    what = "unchanged" if same else "updated" if before else "created"
    write_line(f"{made['metadata']['name']}  DaemonSet {what} in namespace {namespace}")
    return old


def _make(api: ApiServer, item: dict[str, Any]) -> dict[str, Any]:
    with explained(item, "create"):
        made: dict[str, Any] = api.request(
            "PATCH", f"{path_of(item)}?fieldManager=kubectl-gadget&force=true", item, APPLY
        )
        return made


def _make_quota(api: ApiServer, objects: list[dict[str, Any]]) -> bool:
    """Make the quota for critical pods, which is more than everyone may; whether it could be made."""
    (quota,) = (item for item in objects if item["kind"] == "ResourceQuota")
    try:
        api.request("PATCH", f"{path_of(quota)}?fieldManager=kubectl-gadget&force=true", quota, APPLY)
    except ApiError as error:
        write_line(f"the quota cannot be made: {error.message}")
        return False
    return True


def _show(api: ApiServer, namespace: str, agents: list[AgentPod]) -> None:
    """A line for each node, and below it the last words of an agent that does not come up."""
    about = describe_agents(api, namespace) if any(agent.ready for agent in agents) else {}
    width = max((len(agent.node) for agent in agents), default=0)
    for agent in agents:
        state = "ready" if agent.ready else "not ready"
        more = agent.problem or about.get(agent.node, "")
        write_line(f"  {agent.node:{width}}  {state:9}  {more}".rstrip())
        for line in _last_words(api, namespace, agent) if agent.hopeless else ():
            write_line(f"  {'':{width}}    {line}")


def _wait(
    api: ApiServer,
    namespace: str,
    daemon_set: dict[str, Any],
    deadline: float,
    old: Refusals,
    lacks_rights: bool,
    refused_seconds: float,
) -> tuple[list[AgentPod], int, str]:
    """Follow the rollout until it has ended one way or the other.

    Gives the agents, how many there should be, and why there are no more of them, if that is known. lacks_rights: also
    as soon as an agent says that it may not do what it has to.
    """
    progress = Progress()
    refused_since = 0.0
    try:
        while True:
            found = find(api, daemon_set)
            state = found["status"]
            wanted = state.get("desiredNumberScheduled", 0)
            agents = list_agents(api, namespace)
            waiting = [agent for agent in agents if not agent.ready]
            current = state.get("observedGeneration") == found["metadata"]["generation"]
            complete = current and state.get("updatedNumberScheduled", 0) == wanted == len(agents)
            lacking = lacks_rights and current and any(map(lacks, waiting))
            if lacking or (complete and all(agent.hopeless for agent in waiting)):
                return agents, wanted, ""
            refusals = _refusals(api, found) if current and not complete else {}
            now = time.monotonic()
            refused_since = (refused_since or now) if refusals.keys() - old.keys() else 0.0
            if now > deadline or (refused_since and now - refused_since >= refused_seconds):
                return agents, wanted, "" if complete else next(reversed(refusals.values()), "")
            lines = [f"  {agent.node}  {agent.problem}" for agent in waiting]
            progress.show([f"{len(agents) - len(waiting)} of {wanted} nodes ready", *lines])
            time.sleep(POLL_SECONDS)
    finally:
        progress.clear()


def component_of(deployment: dict[str, Any]) -> str:
    """What the pods of a Deployment are, by their label."""
    return str(deployment["spec"]["template"]["metadata"]["labels"][COMPONENT])


def _wait_for_servers(
    api: ApiServer, namespace: str, deadline: float, deployments: Sequence[dict[str, Any]]
) -> list[AgentPod]:
    """Wait until what Deployments make serves, or waiting is in vain; gives their pods, as far as there are any.

    A pod of an earlier deploy may serve until there is one that is as this deploy wants it: it is none of them.
    """
    while True:
        current = [component_of(each) for each in deployments if _is_current(find(api, each))]
        found = [each for each in list_agents(api, namespace, also=SERVERS) if each.node in current]
        settled = {each.node for each in found if each.ready or each.hopeless}
        if len(settled) == len(deployments) or time.monotonic() > deadline:
            return found
        time.sleep(POLL_SECONDS)


def _is_current(deployment: dict[str, Any]) -> bool:
    """Whether a Deployment's newest pod is of its newest template."""
    status = deployment.get("status") or {}
    seen = status.get("observedGeneration", 0) >= deployment.get("metadata", {}).get("generation", 0)
    return bool(seen and status.get("updatedReplicas"))


def _refusals(api: ApiServer, daemon_set: dict[str, Any]) -> Refusals:
    """Why pods of a DaemonSet are not even made, such as by a quota or a policy; empty if nobody said no."""
    if not daemon_set:
        return {}
    metadata = daemon_set["metadata"]
    fields = f"involvedObject.uid={metadata['uid']},reason=FailedCreate"
    try:
        events = api.get(f"/api/v1/namespaces/{metadata['namespace']}/events", fieldSelector=fields)["items"]
    except ApiError:
        return {}  # not everyone may see events
    events.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    return {event["metadata"]["resourceVersion"]: escape(event.get("message", "")) for event in events}


def _last_words(api: ApiServer, namespace: str, agent: AgentPod) -> list[str]:
    """The end of the log of an agent that does not serve: of its last try if it waits for the next."""
    for previous in ("true", "false"):
        with suppress(ApiError):
            path = f"/api/v1/namespaces/{namespace}/pods/{agent.name}/log?tailLines={LOG_LINES}&previous={previous}"
            if text := api.fetch("GET", path).decode(errors="replace").strip():
                return text.splitlines()
    return []
