"""Alerts as agents send them, and as the command line reads them. The agent may mean harm."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from gadget.errors import Malformed
from gadget.rules.alerts import Alert, dumps, valid
from gadget.rules.files import PRIORITIES

if TYPE_CHECKING:
    from gadget._generated import gadget_pb2 as pb

#: Bytes of an alert: of its text and of its fields each. A field has 4 KiB at most, an output about ten.
LONGEST = 256 << 10
#: Of all rule files that an agent is asked: gRPC takes messages of 4 MiB, and Falco's own rules have 0.3.
MOST_RULE_BYTES = 3 << 20
#: Alerts of one message.
MOST_ALERTS = 4096
MOST_TAGS = 256  # and fields
_MOST_NS = 1 << 63
_SCALARS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class Said:
    """What an alert that was sent says of its rule."""

    name: str
    priority: str
    source: str
    tags: frozenset[str]


def fill(message: pb.Alert, alert: Alert) -> bool:
    """Put an alert into a message, without its container. False if it is too large to be sent."""
    output, fields = valid(alert.text), dumps(alert.fields)
    if max(len(output.encode()), len(fields)) > LONGEST:
        return False
    rule = alert.rule
    message.rule, message.priority, message.source = valid(rule.name), rule.priority, rule.source
    message.time_ns, message.output, message.fields_json = alert.time_ns, output, fields
    message.tags.extend(sorted(valid(each) for each in rule.tags))
    message.count, message.since_ns = alert.count, alert.since_ns
    message.incomplete.extend(alert.incomplete)
    return True


def check(node: str, messages: Collection[pb.Alert]) -> None:
    """Malformed unless each is an alert that can be shown."""
    try:
        if len(messages) > MOST_ALERTS:
            raise ValueError("too many")
        for each in messages:
            read(each)
    except (ValueError, RecursionError):
        raise Malformed(f"{node}: its agent sends alerts that make no sense") from None


def read(message: pb.Alert, node: str = "") -> Alert:
    """The alert of a message from a node. ValueError if it is none."""
    if message.priority not in PRIORITIES or not 0 < message.time_ns < _MOST_NS or not message.rule:
        raise ValueError(message.priority)
    if (
        max(len(message.output), len(message.fields_json)) > LONGEST
        or max(len(message.tags), len(message.incomplete)) > MOST_TAGS
    ):
        raise ValueError("too long")
    fields = orjson.loads(message.fields_json)
    if not isinstance(fields, dict) or not all(map(_is_plain, fields.values())):
        raise ValueError("fields")
    said = Said(message.rule, message.priority, message.source, frozenset(message.tags))
    return Alert(
        said,
        message.time_ns,
        message.output,
        fields,
        count=max(message.count, 1),
        cgroup_id=message.container.cgroup_id,
        incomplete=tuple(message.incomplete),
        node=node,
        since_ns=message.since_ns if 0 < message.since_ns <= message.time_ns else 0,
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, _SCALARS) or (
        isinstance(value, list) and all(isinstance(each, _SCALARS) for each in value)
    )
