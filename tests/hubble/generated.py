"""Flows and requests made up for the oracle: of few values, so that filters meet flows, and with some that make no sense."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from gadget._generated import flow_pb2, observer_pb2

SECOND = 10**9
BEGAN = 1_700_000_000
MOST = (1 << 64) - 1
NAMESPACES = ("", "default", "shop", "front", "shop-2")
NAMES = ("", "cart", "cart-0", "cart-0-x", "web-7f9c", "db")
ADDRESSES = (
    "",
    "10.0.0.1",
    "10.0.0.2",
    "10.0.1.1",
    "203.0.113.7",
    "::1",
    "fd77::1",
    "fd77::2",
    "::ffff:10.0.0.1",
    "fe80::1%eth0",
    "no address",
)
LABELS = (
    "k8s:app=web", "k8s:app=cart", "k8s:tier=front", "app=bare", "k8s:io.kubernetes.pod.namespace=shop", "reserved:world",
    "reserved:host", "k8s:empty=", "k8s:a.b/c-d=e.f", "cidr:10.0.0.0/8", "any:app=any", "k8s:app.kubernetes.io/name=web", ":x=y", "k8s:n=7",
)  # fmt: skip
DOMAINS = ("example.org", "api.example.org", "a_b.example.org", "EXAMPLE.org", "example.org.", "x.y.z")
NODES = ("", "node-a", "node-b.example.org", "default/node-a", "other/node-a", "other/node-b.example.org", "a/b/c")
CLUSTERS = ("", "default", "other")
KINDS = ("", "Deployment", "DaemonSet")
PORTS = (0, 80, 443, 8080, 40001, 65535)

_SELECTORS = (
    "app=web", "app==web", "app!=web", "k8s:app=web", "k8s:app in (web,cart)", "app in (web, cart),tier=front", "app notin (web)",
    "app", "!app", "! k8s:app", "reserved:world", "!reserved:world", "k8s:empty=", "n>6", "n<7", "n>x", "io.kubernetes.pod.namespace=shop",
    "a.b/c-d=e.f", "app=", "", " app = web ", "any:app=any", "cidr:10.0.0.0/8", "app in ()", "app=we b", "app=web,", ",app=web",
    "app,app=web", "app in (web", "k8s:app:x=y", "=web", "app.kubernetes.io/name=web", "app in (web),!tier", "unspec:app=bare",
    "app notin (web,cart),reserved:host", "app=web,app=cart", "-app", "app=-web", "x" * 64 + "=y", "app in (web,,cart)", "x=y",
)  # fmt: skip
_PATTERNS = (
    "example.org", "*.example.org", "*", "EXAMPLE.ORG", "example.org.", "example.org..", "", " example.org ", "a_b.*", "*_b.example.org",
    "api.*.org", "exam?le.org", "ex mple", "*.*", ".", "é.org", "x.y.z", "-", "\texample.org", "[a].org",
)  # fmt: skip
_NODES = (
    "node-a",
    "default/node-a",
    "other/",
    "/node-a",
    "*",
    "*/*",
    "o*/node-*",
    "node-b.*",
    "",
    "a/b/c",
    "/",
    "NODE-A",
    "node_a",
    "node?",
    "default/",
    "*.org",
)
_NAMES = (
    "cart",
    "shop/cart",
    "shop/",
    "/cart",
    "/",
    "",
    "front/web-",
    "shop/cart/0",
    "default/",
    "shop-2/db",
    "SHOP/cart",
    "//",
    "shop",
)
_IPS = (
    "10.0.0.1", "10.0.0.0/24", "10.0.0.7/24", "0.0.0.0/0", "::/0", "fd77::/16", "fd77::1", "::ffff:10.0.0.1", "::ffff:10.0.0.0/120", "::1/128",
    "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/-1", "10.0.0.1/024", "10.0.0", "010.0.0.1", "fe80::1%eth0", "fe80::1%eth0/64", "", "x", "/8",
    "10.0.0.1/+8", "FD77::1", "fd77:0::1", "10.0.0.0/255.0.0.0", "1.2.3.4.5", " 10.0.0.1", "10.0.0.1/ 8",
)  # fmt: skip
_PORTS = (
    "80",
    "443",
    "8080",
    "0",
    "65535",
    "65536",
    "-1",
    "",
    "http",
    "080",
    "+80",
    " 80",
    "0x50",
    "8_0",
    "٨٠",
    "40001",
    "00000080",
)
_PROTOCOLS = ("tcp", "UDP", "sctp", "icmp", "ICMPv4", "icmpv6", "dns", "http", "vrrp", "igmp", "arp", "", " tcp")
_QUERIES = (
    "example",
    "^api",
    "org$",
    "(",
    "a|b",
    "",
    "(?i)EXAMPLE",
    r"\d",
    r"(a+)+$",
    ".",
    "[[:alpha:]]",
    "(?P<x>e)",
    "x{1001}",
    r"\pL",
    "(?=x)",
)
_MASKS = (
    "time", "IP", "IP.source", "source", "source.pod_name", "source.labels", "destination.namespace", "l4", "l4.TCP", "l4.TCP.flags",
    "l4.UDP.source_port", "verdict", "is_reply", "Summary", "source_names", "l7", "l7.dns.query", "uuid", "event_type.type", "nose",
    "source.nose", "", "IP.source.x", "source_names.x", "l4.TCP.flags.SYN", "traffic_direction", "ethernet.source", "l7.http", "node_name",
    "destination.workloads", "trace_context.parent.trace_id", "interface", "policy_match_type", "drop_reason_desc", "ip",
)  # fmt: skip


def make_flow(random: Random, seconds: int) -> flow_pb2.Flow:
    """One of so many seconds."""

    def end() -> dict[str, Any]:
        workloads = [
            {"name": random.choice(NAMES), "kind": random.choice(KINDS)} for _ in range(random.choice((0, 0, 1, 2)))
        ]
        return {
            "identity": random.choice((0, 1, 2, 6, 1000, 1 << 25)), "namespace": random.choice(NAMESPACES),
            "pod_name": random.choice(NAMES), "labels": random.sample(LABELS, random.choice((0, 1, 2, 3))),
            "cluster_name": random.choice(CLUSTERS), "workloads": workloads,
        }  # fmt: skip

    ports = {"source_port": random.choice(PORTS), "destination_port": random.choice(PORTS)}
    flags = {name: random.random() < 0.4 for name in ("SYN", "ACK", "FIN", "RST", "NS", "CWR")}
    l4: dict[str, Any] = random.choice((
        {"TCP": {**ports, "flags": flags}}, {"TCP": {**ports, "flags": flags}}, {"TCP": ports}, {"UDP": ports}, {"SCTP": ports},
        {"ICMPv4": {"type": 8}}, {"ICMPv6": {"type": 128}}, {},
    ))  # fmt: skip
    values: dict[str, Any] = {
        "time": {"seconds": seconds, "nanos": random.choice((0, 1, 999_999_999))},
        "verdict": random.choice(flow_pb2.Verdict.values()),
        "IP": {"source": random.choice(ADDRESSES), "destination": random.choice(ADDRESSES), "ipVersion": random.randrange(3),
               "source_xlated": random.choice(ADDRESSES)},
        "l4": l4, "source": end(), "destination": end(), "node_name": random.choice(NODES),
        "source_names": random.sample(DOMAINS, random.randrange(3)), "destination_names": random.sample(DOMAINS, random.randrange(3)),
        "l7": {"dns": {"query": random.choice(DOMAINS)}}, "event_type": {"type": random.choice((0, 1, 4, 129)), "sub_type": random.randrange(4)},
        "source_service": {"name": random.choice(NAMES), "namespace": random.choice(NAMESPACES)},
        "destination_service": {"name": random.choice(NAMES), "namespace": random.choice(NAMESPACES)},
        "traffic_direction": random.randrange(3), "drop_reason_desc": random.choice((0, 133)),
        "is_reply": {"value": random.random() < 0.5}, "Summary": "",
    }  # fmt: skip
    for name in random.sample(list(values), random.randrange(8)):
        if name != "time":
            del values[name]
    return flow_pb2.Flow(**{**values, "Summary": str(random.random())})


def _filter(random: Random, odd: float) -> flow_pb2.FlowFilter:
    """One of up to four fields; with so large a chance one of its values is of all, else of those that make sense."""
    plain = random.random() >= odd

    def some(values: Sequence[Any], good: int | None = None) -> list[Any]:
        return random.choices(values[: good if plain else None], k=random.choice((1, 1, 2, 3)))

    def workloads() -> list[dict[str, str]]:
        return [{"name": random.choice(NAMES), "kind": random.choice(KINDS)} for _ in range(random.choice((1, 2)))]

    made = {
        **{f"{end}_pod": lambda: some(_NAMES, 5) for end in ("source", "destination")},
        **{f"{end}_service": lambda: some(_NAMES, 5) for end in ("source", "destination")},
        **{f"{end}_ip": lambda: some(_IPS, 10) for end in ("source", "destination")},
        "source_ip_xlated": lambda: some(_IPS, 10),
        **{f"{end}_label": lambda: some(_SELECTORS, 13) for end in ("source", "destination")},
        **{f"{end}_fqdn": lambda: some(_PATTERNS, 5) for end in ("source", "destination")},
        **{f"{end}_port": lambda: some(_PORTS, 5) for end in ("source", "destination")},
        **{f"{end}_identity": lambda: some((0, 1, 2, 6, 1000, 1 << 25)) for end in ("source", "destination")},
        **{f"{end}_workload": workloads for end in ("source", "destination")},
        **{f"{end}_cluster_name": lambda: some(CLUSTERS[::-1], 2) for end in ("source", "destination")},
        "verdict": lambda: some(flow_pb2.Verdict.values()),
        "event_type": lambda: [{"type": random.choice((0, 1, 4, 129)), "match_sub_type": random.random() < 0.5, "sub_type": random.randrange(4)}],
        "protocol": lambda: some(_PROTOCOLS, 10),
        "reply": lambda: some((True, False)),
        "dns_query": lambda: some(_QUERIES, 3),
        "tcp_flags": lambda: [dict.fromkeys(random.sample(("SYN", "ACK", "FIN", "RST", "NS"), random.randrange(3)), True)],
        "node_name": lambda: some(_NODES, 8),
        "ip_version": lambda: some((0, 1, 2)),
        "traffic_direction": lambda: some((0, 1, 2)),
        "drop_reason_desc": lambda: some((0, 133)),
    }  # fmt: skip
    assert set(made) == set(flow_pb2.FlowFilter.DESCRIPTOR.fields_by_name)
    return flow_pb2.FlowFilter(
        **{name: made[name]() for name in random.sample(list(made), random.choice((0, 1, 1, 1, 2, 2, 3)))}
    )


def make_request(random: Random, seconds: Sequence[int]) -> observer_pb2.GetFlowsRequest:
    """One of flows of those seconds."""
    odd = 0.15
    request = observer_pb2.GetFlowsRequest(
        whitelist=[_filter(random, odd) for _ in range(random.choice((0, 1, 1, 1, 2, 3)))],
        blacklist=[_filter(random, odd) for _ in range(random.choice((0, 0, 0, 1, 2)))],
        number=random.choice((0, 0, 1, 2, 3, 7, 20, 1000, MOST)),
        first=random.random() < 0.25,
    )
    for name in ("since", "until"):
        if random.random() < 0.25:
            moment = getattr(request, name)
            moment.seconds, moment.nanos = (
                random.choice(seconds) + random.choice((-1, 0, 0, 1)),
                random.choice((0, 1, 2, 999_999_999)),
            )
    if random.random() < 0.2:
        request.number = 1  # Hubble leaves in a masked flow what the one before it had
        known = random.random() < 0.7
        request.field_mask.CopyFrom(
            FieldMask(paths=random.choices(_MASKS[: 19 if known else None], k=random.choice((1, 2, 3))))
        )
    return request
