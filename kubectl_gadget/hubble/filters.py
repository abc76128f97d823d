"""Hubble's filters: which flows a client asks for.

The meaning of each is that of Hubble's own code (pkg/hubble/filters), as it was read. What is not known here is
refused: to leave it out would show flows that were not asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network
from operator import attrgetter
from typing import Any

import re2  # type: ignore[import-untyped]  # google-re2
from google.protobuf import unknown_fields
from google.protobuf.message import Message

from gadget._generated import flow_pb2 as pb
from gadget.errors import UsageError
from gadget.selector import parse_labels

#: Whether a flow is meant.
Matches = Callable[[Any], bool]
#: Of a request: each flow that is kept may be compared with all of them.
MOST_VALUES = 1000
#: Of labels without one; selectors take it for any.
_NO_SOURCE = "unspec"
#: The cluster that nodes are in whose names have none.
_CLUSTER = "default"
_L4 = ("TCP", "UDP", "SCTP")
_PROTOCOLS = {
    "icmp": ("ICMPv4", "ICMPv6"),
    "icmpv4": ("ICMPv4",),
    "icmpv6": ("ICMPv6",),
    "tcp": ("TCP",),
    "udp": ("UDP",),
    "sctp": ("SCTP",),
    "vrrp": (),
    "igmp": (),
    "dns": ("dns",),
    "http": (),
}
_DOMAIN = r"(?:[-0-9_a-z]+(?:\.[-0-9_a-z]+)*)"
_KEY = re.compile(r"([\s!]*)([^\s=!,]*)")
_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS")
_TRUE: Matches = lambda flow: True  # noqa: E731


def compile_filters(allowed: Sequence[Any], denied: Sequence[Any]) -> Matches:
    """Whether a flow passes lists of filters. UsageError if one of them makes no sense, or is not known here."""
    if sum(map(_count, (*allowed, *denied))) > MOST_VALUES:
        raise UsageError(f"filters have more than {MOST_VALUES:,} values: ask for fewer")
    wanted, unwanted = [_compile(each) for each in allowed], [_compile(each) for each in denied]
    if not wanted and not unwanted:
        return _TRUE
    return lambda flow: (not wanted or any(each(flow) for each in wanted)) and not any(each(flow) for each in unwanted)


def _count(flow_filter: Any) -> int:
    """The number of values that a flow is compared with. A selector has several, with commas."""
    values = (value for _, values in flow_filter.ListFields() for value in values)
    return sum(1 + (value.count(",") if isinstance(value, str) else 0) for value in values)


def _compile(flow_filter: Any) -> Matches:
    _refuse_unknown(flow_filter)
    conditions = [CONDITIONS[field.name](value) for field, value in flow_filter.ListFields()]
    return lambda flow: all(condition(flow) for condition in conditions)


def _refuse_unknown(message: Message) -> None:
    if unknown := unknown_fields.UnknownFieldSet(message):
        name = message.DESCRIPTOR.full_name
        raise UsageError(f"field {unknown[0].field_number} of {name} is not supported here: flows have nothing like it")
    for _, value in message.ListFields():
        for each in value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else (value,):
            if isinstance(each, Message):
                _refuse_unknown(each)


def _one_of(get: Callable[[Any], Any]) -> Callable[[Collection[Any]], Matches]:
    def condition(values: Collection[Any]) -> Matches:
        wanted = frozenset(values)
        return lambda flow: get(flow) in wanted

    return condition


def _address(get: Callable[[Any], str]) -> Callable[[Sequence[str]], Matches]:
    def condition(values: Sequence[str]) -> Matches:
        exact = frozenset(value for value in values if "/" not in value)
        try:
            networks = [_network(value) for value in values if "/" in value]
            for value in exact:
                ip_address(value)
        except ValueError as error:
            raise UsageError(f"no address and no network: {error}") from None

        def matches(flow: Any) -> bool:
            text = get(flow)
            if not text or text in exact:
                return bool(text)
            try:
                address = ip_address(text)
            except ValueError:
                return False
            if "%" in text:  # what has a zone is in no network
                return False
            return any(address.version == network.version and address in network for network in networks)

        return matches

    return condition


def _network(text: str) -> Any:
    """A prefix as Go takes it: with a length, and without a zone."""
    address, _, length = text.partition("/")
    if not re.fullmatch(r"0|[1-9]\d{0,2}", length, re.ASCII) or "%" in address:
        raise ValueError(f"{text!r} is none")
    return ip_network(text, strict=False)


def _name(get: Callable[[Any], tuple[str, str]]) -> Callable[[Sequence[str]], Matches]:
    """NAMESPACE/PREFIX; without a slash the namespace is default, an empty part is any."""

    def condition(values: Sequence[str]) -> Matches:
        if not all(values):
            raise UsageError("the name of a pod or service must not be empty")
        wanted = [tuple(value.split("/")[:2]) if "/" in value else ("default", value) for value in values]

        def matches(flow: Any) -> bool:
            own, name = get(flow)
            if not own and not name:
                return False
            return any(name.startswith(prefix) and namespace in ("", own) for namespace, prefix in wanted)

        return matches

    return condition


def _pod(end: str) -> Callable[[Any], tuple[str, str]]:
    return attrgetter(f"{end}.namespace", f"{end}.pod_name")


def _service(end: str) -> Callable[[Any], tuple[str, str]]:
    return attrgetter(f"{end}_service.namespace", f"{end}_service.name")


def _port(name: str) -> Callable[[Sequence[str]], Matches]:
    def condition(values: Sequence[str]) -> Matches:
        for value in values:
            if not re.fullmatch(r"\d+", value, re.ASCII) or len(value.lstrip("0")) > 5 or int(value) > 65535:
                raise UsageError(f"port {value[:20]!r}: want 0 to 65535")
        wanted = frozenset(map(int, values))

        def matches(flow: Any) -> bool:
            protocol = flow.l4.WhichOneof("protocol")
            return protocol in _L4 and getattr(getattr(flow.l4, protocol), name) in wanted

        return matches

    return condition


def _label(end: str) -> Callable[[Sequence[str]], Matches]:
    get = attrgetter(f"{end}.labels")

    def condition(values: Sequence[str]) -> Matches:
        selectors = [parse_labels(_with_sources(value)) for value in values]

        def matches(flow: Any) -> bool:
            labels = _labels(tuple(get(flow)))
            return any(all(each.matches(labels) for each in selector) for selector in selectors)

        return matches

    return condition


@lru_cache(4096)
def _labels(texts: tuple[str, ...]) -> Mapping[str, str]:
    """Labels by SOURCE.KEY, and by any.KEY of whatever source: that is how selectors name them."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        source, colon, key = name.partition(":")
        source, key = (source, key) if colon and source else (_NO_SOURCE, key if colon else name)
        found.setdefault(f"{source}.{key}", value)
        found.setdefault(f"any.{key}", value)
    return found


def _with_sources(selector: str) -> str:
    """A selector whose keys may have a source, as k8s:app has, as Kubernetes has them: k8s.app, else any.app."""
    found, at = [], 0
    while at < len(selector):
        key = _KEY.match(selector, at)
        assert key
        source, colon, rest = key[2].partition(":")
        name = key[2] if colon and source != _NO_SOURCE else f"any:{rest if colon else source}"
        found += [key[1], name.replace(":", ".", 1)]
        at, depth = key.end(), 0
        while at < len(selector):
            letter = selector[at]
            depth += (letter == "(") - (letter == ")")
            found.append(letter)
            at += 1
            if letter == "," and not depth:
                break
    return "".join(found)


def _workload(end: str) -> Callable[[Sequence[Any]], Matches]:
    get = attrgetter(f"{end}.workloads")

    def condition(values: Sequence[Any]) -> Matches:
        wanted = [(value.name, value.kind) for value in values]
        return lambda flow: any(
            name in ("", own.name) and kind in ("", own.kind) for own in get(flow) for name, kind in wanted
        )

    return condition


def _domain(text: str) -> str:
    """A pattern of domains as a regular expression."""
    pattern = text.strip().removesuffix(".").lower()
    if not pattern or pattern.endswith(".") or not re.fullmatch(r"[-.*_0-9a-z]+", pattern):
        raise UsageError(f"{text[:80]!r} is no name of a domain, in which * stands for anything")
    return pattern.replace(".", r"\.").replace("*", "[-.0-9a-z]*")


def _node(text: str) -> str:
    """A pattern of CLUSTER/NODE as a regular expression; an empty part is any."""
    parts = text.split("/")
    if not text or len(parts) > 2:
        raise UsageError(f"{text[:80]!r} is no name of a node: want NODE, CLUSTER/NODE or CLUSTER/")
    return "/".join(_domain(part) if part else _DOMAIN for part in (["", *parts])[-2:])


def _names(get: Callable[[Any], Sequence[str]], as_pattern: Callable[[str], str]) -> Callable[[Sequence[str]], Matches]:
    def condition(values: Sequence[str]) -> Matches:
        pattern = _expression("|".join(map(as_pattern, values)))
        return lambda flow: any(pattern.fullmatch(name) for name in get(flow))

    return condition


def _node_names(flow: Any) -> Sequence[str]:
    name = flow.node_name
    return [] if not name else [name if "/" in name else f"{_CLUSTER}/{name}"]


def _query(values: Sequence[str]) -> Matches:
    patterns = [_expression(value) for value in values]
    return lambda flow: (
        flow.l7.WhichOneof("record") == "dns" and any(pattern.search(flow.l7.dns.query) for pattern in patterns)
    )


def _expression(pattern: str) -> Any:
    """An expression as Go has them, whose search takes time that grows with the text alone."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        raise UsageError(f"regular expression {pattern[:80]!r}: {error}") from None


def _protocol(values: Sequence[str]) -> Matches:
    for value in values:
        if value.lower() not in _PROTOCOLS:
            raise UsageError(f"protocol {value[:20]!r}: want {', '.join(_PROTOCOLS)}")
    wanted = {name for value in values for name in _PROTOCOLS[value.lower()]}
    return lambda flow: flow.l4.WhichOneof("protocol") in wanted or flow.l7.WhichOneof("record") in wanted


def _reply(values: Sequence[bool]) -> Matches:
    wanted = frozenset(values)
    return lambda flow: (flow.HasField("is_reply") or flow.verdict == pb.DROPPED) and flow.is_reply.value in wanted


def _event_type(values: Sequence[Any]) -> Matches:
    wanted = [(value.type, value.match_sub_type, value.sub_type) for value in values]
    return lambda flow: (
        flow.HasField("event_type")
        and any(
            kind in (0, flow.event_type.type) and (not exact or below == flow.event_type.sub_type)
            for kind, exact, below in wanted
        )
    )


def _flags(values: Sequence[Any]) -> Matches:
    wanted = [[flag for flag in _FLAGS if getattr(value, flag)] for value in values]
    return lambda flow: (
        flow.l4.TCP.HasField("flags") and any(all(getattr(flow.l4.TCP.flags, flag) for flag in each) for each in wanted)
    )


def _drop_reason(values: Sequence[int]) -> Matches:
    wanted = frozenset(values)
    return lambda flow: flow.verdict == pb.DROPPED and flow.drop_reason_desc in wanted


def _identity(end: str) -> Callable[[Sequence[int]], Matches]:
    def condition(values: Sequence[int]) -> Matches:
        wanted = frozenset(values)
        return lambda flow: flow.HasField(end) and getattr(flow, end).identity in wanted

    return condition


def _cluster(end: str) -> Callable[[Sequence[str]], Matches]:
    def condition(values: Sequence[str]) -> Matches:
        if not all(values):
            raise UsageError("the name of a cluster must not be empty")
        return _one_of(attrgetter(f"{end}.cluster_name"))(values)

    return condition


def _of_end(end: str) -> dict[str, Callable[[Any], Matches]]:
    return {
        f"{end}_ip": _address(attrgetter(f"IP.{end}")),
        f"{end}_pod": _name(_pod(end)),
        f"{end}_fqdn": _names(attrgetter(f"{end}_names"), _domain),
        f"{end}_label": _label(end),
        f"{end}_port": _port(f"{end}_port"),
        f"{end}_service": _name(_service(end)),
        f"{end}_identity": _identity(end),
        f"{end}_workload": _workload(end),
        f"{end}_cluster_name": _cluster(end),
    }


#: What makes of the values of each field of a FlowFilter whether a flow is meant.
CONDITIONS: Mapping[str, Callable[[Any], Matches]] = {
    **_of_end("source"),
    **_of_end("destination"),
    "source_ip_xlated": _address(attrgetter("IP.source_xlated")),
    "verdict": _one_of(attrgetter("verdict")),
    "event_type": _event_type,
    "protocol": _protocol,
    "reply": _reply,
    "dns_query": _query,
    "tcp_flags": _flags,
    "node_name": _names(_node_names, _node),
    "ip_version": _one_of(attrgetter("IP.ipVersion")),
    "traffic_direction": _one_of(attrgetter("traffic_direction")),
    "drop_reason_desc": _drop_reason,
}
