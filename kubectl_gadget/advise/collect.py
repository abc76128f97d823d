"""Flows and what is needed to understand them, from the agents and from the API server, with the user's rights."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv6Address

import msgspec

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, Unreachable
from gadget.kube.api import ApiError, ApiServer, not_allowed
from kubectl_gadget.advise.domains import MOST as MOST_NAMES
from kubectl_gadget.advise.domains import is_domain
from kubectl_gadget.advise.flows import (
    MOST_COUNTED,
    Flow,
    FlowContext,
    Header,
    Lost,
    NamedPort,
    NodeAddresses,
    Protocol,
    RememberedPod,
)
from kubectl_gadget.advise.networks import normalize
from kubectl_gadget.advise.objects import KINDS, trim
from kubectl_gadget.agents.client import ask, malformed
from kubectl_gadget.agents.targets import Agent, Targets

ANSWER_SECONDS = 60.0
LARGEST_PORT = 65535
#: Remarks, and reasons of losses, of one node that are told.
MOST_NOTES = 100
#: Where the API server has each kind.
_GROUPS = {
    "": ("Pod", "Service", "Namespace", "Node"),
    "discovery.k8s.io": ("EndpointSlice",),
    "apps": ("ReplicaSet", "Deployment", "StatefulSet", "DaemonSet"),
    "batch": ("Job", "CronJob"),
    "networking.k8s.io": ("NetworkPolicy",),
}
PATHS = {
    kind: f"/{f'apis/{group}' if group else 'api'}/v1/{kind.lower()}s".replace("policys", "policies")
    for group, kinds in _GROUPS.items()
    for kind in kinds
}
#: IANA's numbers. What else there is, such as GRE, has no ports that a policy could be about.
_PROTOCOLS: dict[int, Protocol] = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMP", 132: "SCTP"}


@dataclass
class HeardFlows:
    """What the agents told at one moment, in nanoseconds since 1970."""

    time_ns: int
    began_ns: int
    context: FlowContext
    flows: list[Flow]


def hear(targets: Targets) -> HeardFlows:
    """Every agent's flows. One that fails becomes a note; GadgetError if all do."""
    now = time.time_ns()
    context = FlowContext(Header(now, now, ()))
    flows: list[Flow] = []
    failures: list[GadgetError] = []
    nodes: list[str] = []
    began = now
    with ThreadPoolExecutor(16) as pool:
        for target, answer in zip(targets, pool.map(partial(_ask, targets, now), targets), strict=True):
            if isinstance(answer, GadgetError):
                failures.append(answer)
                context.notes.append(f"without the traffic of {target}: {answer}")
                continue
            nodes += answer.context.header.nodes
            began = min(began, answer.began_ns)
            for name in ("notes", "lost", "nodes", "pods"):
                getattr(context, name).extend(getattr(answer.context, name))
            flows += answer.flows
    if not nodes:
        raise failures[0] if failures else Unreachable("no agent answered")
    context.header = Header(began, now, tuple(sorted(nodes)))
    return HeardFlows(now, began, context, flows)


def _ask(targets: Targets, now_ns: int, target: str) -> HeardFlows | GadgetError:
    """What one agent told, if all of it makes sense."""
    try:
        agent = targets.reach(target)
        return _read(agent, list(ask(agent, "Flows", pb.FlowsRequest(), ANSWER_SECONDS)), now_ns)
    except GadgetError as error:
        return error
    except ValueError as error:
        return malformed(target, error)


def _read(agent: Agent, replies: list[pb.FlowsReply], now_ns: int) -> HeardFlows:
    """One agent's flows, and the rest of what it told. ValueError if it makes no sense."""
    if not replies:
        raise ValueError("it is empty")
    node, head = replies[0].node, replies[0].head
    context = FlowContext(Header(now_ns, now_ns, (node,)), notes=list(head.notes[:MOST_NOTES]))
    context.lost += [Lost(node, loss.reason, loss.count) for loss in head.losses[:MOST_NOTES]]
    context.nodes.append(NodeAddresses(node, tuple(map(normalize, head.addresses)), _time(head.began_ns)))
    return HeardFlows(now_ns, head.began_ns, context, list(_flows(node, replies, context, now_ns)))


def _flows(node: str, replies: list[pb.FlowsReply], context: FlowContext, now_ns: int) -> Iterator[Flow]:
    """The flows in replies; the pods, and what is missing, go into context."""
    pods = {pod.uid: pod for reply in replies for pod in reply.pods}
    for pod in pods.values():
        if pod.namespace:
            known = _pod(node, pod, now_ns)
            context.pods.append(replace(known, first=_time(pod.since_ns) or known.first))
            context.pods += [
                replace(
                    known, addresses=(normalize(each.address),), first=_time(each.first_ns), last=_time(each.last_ns)
                )
                for each in pod.former
            ]
    left_out: Counter[str] = Counter()
    for reply in replies:
        for flow in reply.flows:
            owner = pods.get(flow.uid)
            if owner is None:
                left_out["of pods that came and went while no agent was there"] += 1
            elif not owner.namespace:
                left_out["of containers that belong to no pod"] += 1
            else:
                yield _flow(node, owner, flow)
    for why, count in left_out.items():
        context.notes.append(f"{node}: without {count} flows {why}")


def _pod(node: str, pod: pb.FlowPod, now_ns: int) -> RememberedPod:
    return RememberedPod(
        namespace=pod.namespace,
        name=pod.name,
        uid=pod.uid,
        labels=dict(pod.labels),
        owner=pod.owner,
        addresses=tuple(map(normalize, pod.addresses)),
        first=_time(pod.first_ns),
        last=_time(pod.last_ns) or now_ns,
        node=node,
        host_network=pod.host_network,
        ports=tuple(NamedPort(port.name, port.protocol, port.port) for port in pod.ports),
    )


def _flow(node: str, pod: pb.FlowPod, flow: pb.Flow) -> Flow:
    if flow.port > LARGEST_PORT or max(flow.count, flow.failed, flow.older) > MOST_COUNTED:
        raise ValueError("a flow with numbers that make no sense")
    return Flow(
        node=node,
        namespace=pod.namespace,
        pod=pod.name,
        uid=pod.uid,
        direction="ingress" if flow.ingress else "egress",
        protocol=_PROTOCOLS.get(flow.protocol, "OTHER"),
        peer=_show(flow.peer),
        port=flow.port,
        count=flow.count,
        first=_time(flow.first_ns),
        last=_time(flow.last_ns),
        failed=flow.failed,
        older=bool(flow.older),
        host_network=pod.host_network,
        local=_show(flow.local),
        names=tuple(filter(is_domain, flow.names[:MOST_NAMES])),
    )


def _time(nanoseconds: int) -> int:
    if nanoseconds < 0:
        raise ValueError("a time before 1970")
    return nanoseconds


def _show(address: bytes) -> str:
    parsed = IPv6Address(address)
    return str(parsed.ipv4_mapped or parsed)


def between(before: HeardFlows, after: HeardFlows) -> HeardFlows:
    """What happened from one moment to the other."""

    def key(flow: Flow) -> tuple[str, str, str, str, str, int]:
        return flow.node, flow.uid, flow.direction, flow.protocol, flow.peer, flow.port

    had = {key(flow): flow for flow in before.flows}
    flows = []
    for flow in after.flows:
        if flow.last < before.time_ns:
            continue
        known = had.get(key(flow))
        # an entry that was evicted meanwhile began to count anew
        counted = known is not None and flow.count >= known.count and flow.failed >= known.failed
        count, failed = (known.count, known.failed) if known and counted else (0, 0)
        # a talk may go on, and be no new one
        new = {"count": max(flow.count - count, 1), "failed": flow.failed - failed}
        flows.append(msgspec.structs.replace(flow, first=max(flow.first, before.time_ns), **new))
    context = replace(after.context, header=replace(after.context.header, from_ns=before.time_ns))
    return replace(after, began_ns=before.time_ns, context=context, flows=flows)


def look_up(api: ApiServer, context: FlowContext, namespaces: Sequence[str] = ()) -> None:
    """Add what the API server has to context; of what the user may not list of all namespaces, that of some.

    What is missing becomes a note.
    """
    assert set(PATHS) == set(KINDS)
    named = [name for name in namespaces if not name.startswith("!")]

    def in_namespaces(kind: str) -> list[Mapping[str, object]]:
        group, _, plural = PATHS[kind].rpartition("/")
        found = [item for name in named for item in api.list(f"{group}/namespaces/{name}/{plural}")]
        context.notes.append(f"{plural} of {', '.join(named)} only: you may not list those of all namespaces")
        return [{**item, "kind": kind} for item in found]

    def one(kind: str) -> list[Mapping[str, object]] | GadgetError:
        try:
            return [{**item, "kind": kind} for item in api.list(PATHS[kind])]
        except ApiError as error:
            if error.code == 403 and named and kind not in ("Node", "Namespace"):
                with suppress(ApiError):
                    return in_namespaces(kind)
            return not_allowed(error, f"list {PATHS[kind].rpartition('/')[2]}", "")
        except GadgetError as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(one, PATHS):
            try:
                if isinstance(found, GadgetError):
                    raise found
                context.objects += [trimmed for item in found if (trimmed := trim(item))]
            except (GadgetError, ValueError) as error:
                context.notes.append(f"names may be missing: {error}")
