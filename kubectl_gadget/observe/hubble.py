"""Flows as Hubble's: lines of JSON, which `hubble observe --input-file` and what reads it take, or of text.

Field names are those of flow.proto. What Hubble has no field for, as the process and bytes, is in Summary, which its
command line prints, and in extensions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

from gadget.endpoints import RAW, Endpoint
from gadget.kinds.times import DURATION_UNKNOWN, rfc3339
from gadget.schema import Row
from gadget.text import escape
from gadget.workload import name_by_pod
from kubectl_gadget.observe.lines import FIELDS, FlowText, domain_of, process_of
from kubectl_gadget.observe.opinion import ALLOWED, DENIED, Opinion, told
from kubectl_gadget.output.encode import encode
from kubectl_gadget.output.stdout import write_all, write_text

#: What became of a flow, in Hubble's words; ERROR is all that it has for what came to nothing.
_VERDICTS = {
    "forwarded": "FORWARDED",
    "dropped": "DROPPED",
    "rejected": "DROPPED",
    "refused": "ERROR",
    "unreachable": "ERROR",
    "no answer": "ERROR",
}
#: Of pkg/monitor/api: a trace point, and where a packet is that leaves; 0 is where it comes.
_TRACE, _TO_STACK = 4, 3
#: Reserved identities, of nodes and of all that is outside.
_WORLD, _REMOTE_NODE = 2, 6
_RESERVED = {_WORLD: "(world)", _REMOTE_NODE: "(remote-node)"}
#: Identities below that are reserved, or of a cluster's own networks by their highest byte.
_LEAST_IDENTITY = 3 << 24


class Flows(FlowText):
    """Writes an object of GetFlowsResponse for each row. Behind its fields may be the row of the other end."""

    #: what policies would do to a row, by its fields and words
    judge: Callable[[Mapping[str, Any], Mapping[str, str]], Opinion] | None = None

    def write(self, rows: Sequence[Row]) -> None:
        """Write lines."""
        write_all(b"".join([encode(self.response(row)) + b"\n" for row in rows]))

    def response(self, values: Row) -> dict[str, Any]:
        """The object of a row."""
        row = dict(zip(FIELDS, values[: len(FIELDS)], strict=True))
        other = dict(zip(FIELDS, values[-1], strict=True)) if len(values) > len(FIELDS) and values[-1] else None
        word = self.words(row)
        egress = word["direction"] == "egress"
        source, destination = (row["src"], row["dst"]) if egress else (row["dst"], row["src"])
        time = rfc3339(row["timestamp"])
        verdict = _VERDICTS.get(word["verdict"], "VERDICT_UNKNOWN")
        if word["verdict"] == "no answer" and word["type"] != "failed":  # it may still come; of UDP none was expected
            verdict = "TRACED" if word["type"] == "waiting" else "FORWARDED"
        flow: dict[str, Any] = {
            "time": time,
            "verdict": verdict,
            "IP": {
                "source": source.addr if source else "",
                "destination": destination.addr if destination else "",
                "ipVersion": f"IPv{row['version']}",
            },
            "l4": {word["protocol"].upper(): _ports(source, destination, word)},
            "source": _end(source),
            "destination": _end(destination),
            "Type": "L3_L4",
            "node_name": row["node"],
            "event_type": {"type": _TRACE, **({"sub_type": _TO_STACK} if egress else {})},
            "traffic_direction": word["direction"].upper(),
            "trace_observation_point": "TO_STACK" if egress else "TO_ENDPOINT",
            "is_reply": False,
            "Summary": f"{word['verdict']}{process_of(row)}{domain_of(row, word)} {self.how(row, word)}".rstrip(),
            "extensions": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": _extensions(row, word)},
        }
        if destination and destination.kind == "svc":
            flow["destination_service"] = {"name": destination.name, "namespace": destination.namespace}
        elif row["domain"] and (destination is None or destination.kind == RAW.kind):
            flow["destination_names"] = [row["domain"]]
        more = flow["extensions"]["value"]
        if other:
            more |= {f"other_{name}": other[name] for name in ("pid", "comm") if other[name]}
        if self.judge:
            _judge(flow, self.judge(other or row, self.words(other or row)))
        return {"flow": flow, "node_name": row["node"], "time": time}


class CompactFlows(Flows):
    """Writes flows as `hubble observe` does where nothing else is asked for (compact)."""

    def write(self, rows: Sequence[Row]) -> None:
        """Write lines."""
        write_text("".join([f"{_compact(row[0], self.response(row)['flow'])}\n" for row in rows]))


def _compact(time_ns: int, flow: Mapping[str, Any]) -> str:
    time = datetime.fromtimestamp(time_ns // 10**9, UTC)
    source, destination = (
        f"{_host(flow, end)} {_RESERVED.get(identity := flow[end]['identity'], f'(ID:{identity})')}"
        for end in ("source", "destination")
    )
    moment = f"{time:%b} {time.day:2} {time:%H:%M:%S}.{time_ns // 10**6 % 1000:03}"
    point = flow["trace_observation_point"].lower().replace("_", "-")
    return escape(f"{moment}: {source} -> {destination} {point} {flow['verdict']} ({flow['Summary']})")


def _host(flow: Mapping[str, Any], end: str) -> str:
    """An end by its name, else its address."""
    service = flow.get(f"{end}_service", {})
    space, name = service.get("namespace") or flow[end].get("namespace"), flow[end].get("pod_name")
    named = "/".join(filter(None, [space, name or service["name"]])) if name or service else ""
    host = named or ",".join(flow.get(f"{end}_names", ())) or flow["IP"][end]
    (ports,) = flow["l4"].values()
    port = ports[f"{end}_port"]
    return f"{f'[{host}]' if ':' in host else host}:{port}" if port else host


def _judge(flow: dict[str, Any], opinion: Opinion) -> None:
    """Have a flow say what policies would do to it: AUDIT is Hubble's word for what they would deny and that passed."""
    if not opinion.word:
        return
    flow["Summary"] += told(opinion)[1]
    flow["extensions"]["value"] |= {"policy": opinion.word, "policy_why": opinion.why}
    if opinion.word == DENIED and flow["verdict"] == "FORWARDED":
        flow["verdict"] = "AUDIT"
    done = opinion.word if opinion.word in (ALLOWED, DENIED) else ""
    for side, policies in (("egress", opinion.egress), ("ingress", opinion.ingress)):
        if done and policies:
            flow[f"{side}_{done}_by"] = [
                {"name": name, "namespace": namespace, "kind": "NetworkPolicy"} for namespace, name in policies
            ]


def _ports(source: Endpoint | None, destination: Endpoint | None, word: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "source_port": source.port if source else 0,
        "destination_port": destination.port if destination else 0,
    }
    if word["protocol"] == "tcp":
        flag = {"ended": "RST" if word["reason"] in ("reset", "aborted") else "FIN"}.get(word["type"], "SYN")
        found["flags"] = {flag: True}
    return found


def _end(end: Endpoint | None) -> dict[str, Any]:
    """An end as Hubble has it: the same identity for all pods of a workload."""
    if end is None or end.kind == RAW.kind:
        return {"identity": _WORLD, "labels": ["reserved:world"]}
    if end.kind == "node":
        return {"identity": _REMOTE_NODE, "labels": ["reserved:remote-node"]}
    name = name_by_pod(end.name)
    hashed = crc32(f"{end.namespace}/{name}".encode(errors="replace"))
    found: dict[str, Any] = {
        "identity": hashed if hashed >= _LEAST_IDENTITY else hashed + _LEAST_IDENTITY,
        "namespace": end.namespace,
        "labels": [f"k8s:io.kubernetes.pod.namespace={end.namespace}"],
    }
    return found if end.kind == "svc" else {**found, "pod_name": end.name, "workloads": [{"name": name}]}


def _extensions(row: Mapping[str, Any], word: Mapping[str, str]) -> dict[str, Any]:
    """Values for which Hubble has no field. Numbers are doubles there, so larger ones are text."""
    values = {
        "type": word["type"],
        "verdict": word["verdict"],
        "reason": word["reason"],
        "pid": row["pid"],
        "comm": row["comm"],
        "drop": row["drop"],
        "domain": row["domain"],
        "domain_by": word["domain_by"] if row["domain"] else "",
        "error": word["error"] if row["error"] else "",
        "sent": row["sent"],
        "received": row["received"],
        "retransmits": row["retransmits"],
        "duration": row["duration"],
        "rtt": row["rtt"],
    }
    return {
        name: str(value) if isinstance(value, int) and value > 1 << 53 else value
        for name, value in values.items()
        if value not in (None, "", DURATION_UNKNOWN)
    }
