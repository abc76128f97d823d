"""What was seen, as `check` looks at it: the ends of each connection as the evaluator knows them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kubectl_gadget.advise import cluster, evaluate
from kubectl_gadget.advise.check import Flow
from kubectl_gadget.advise.observation import Connection, Observation
from kubectl_gadget.advise.talks import Choice, Settings, shown


def namespaces_of(observation: Observation) -> Mapping[str, Mapping[str, str]]:
    """The labels of each namespace that is known."""
    found = (item["metadata"] for item in observation.context.objects if item["kind"] == "Namespace")
    return {item["name"]: item.get("labels") or {} for item in found}


def flows_of(observation: Observation, settings: Settings) -> Iterator[Flow]:
    """The connections that settings ask for; attempts that failed are none."""
    choice = Choice(settings)
    for connection in observation.connections():
        evidence = connection.evidence
        if evidence.last < settings.since or not (evidence.count or settings.failed):
            continue
        ends = (connection.source, connection.target)
        if any(end.workload is not None and choice.has(end.workload) for end in ends):
            yield _flow(connection, len(settings.namespaces) == 1)


def _flow(connection: Connection, short: bool) -> Flow:
    """A connection; with short names of what is in one namespace, where it is clear which."""
    source, target, evidence = connection.source, connection.target, connection.evidence
    within = source.namespace if short and source.namespace == target.namespace else ""
    return Flow(
        source=_end(source, is_own_node=connection.from_own_node),
        target=_end(target),
        protocol=connection.protocol,
        port=connection.port,
        count=evidence.count or evidence.refused,
        last_ns=evidence.last,
        source_name=shown(source.workload or source, within),
        target_name=shown(target.workload or target, within),
    )


def _end(end: cluster.End, *, is_own_node: bool = False) -> evaluate.End:
    return evaluate.End(
        address=end.address,
        namespace=end.namespace,
        pod=end.name if end.kind == "pod" else "",
        labels=end.labels,
        named_ports={(port.protocol, port.name): port.port for port in end.ports},
        host_network=end.host_network or end.kind == "node",
        is_own_node=is_own_node,
    )
