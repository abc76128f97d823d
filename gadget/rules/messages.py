"""Alerts as agents send them, and as the command line reads them. The agent may mean harm."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from gadget.errors import Malformed
from gadget.rules.alerts import Alert, dumps, valid
from gadget.rules.files import PRIORITIES
from gadget.rules.processes import Program

if TYPE_CHECKING:
    from gadget._generated import gadget_pb2 as pb

#: Bytes of an alert: of its text and of its fields each. A field has 4 KiB at most, an output about ten.
LONGEST = 256 << 10
#: Of all rule files that an agent is asked: gRPC takes messages of 4 MiB, and Falco's own rules have 0.3.
MOST_RULE_BYTES = 3 << 20
#: Alerts of one message.
MOST_ALERTS = 4096
MOST_TAGS = 256  # and fields
MOST_PROGRAMS = 64
#: Letters of a name, a command line or a path in an ancestry.
LONGEST_COMMAND = 1000
#: Of what led to an alert: bytes as they are sent, and as they are read.
LONGEST_PAST, LARGEST_PAST = 128 << 10, 4 << 20
_ID = re.compile(r"[a-z2-9]{0,16}")
_MOST_NS = 1 << 63
_SCALARS = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class SentRule:
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
    message.id = alert.id
    for each in alert.ancestry:
        texts = (valid(text)[:LONGEST_COMMAND] for text in each[1:])
        message.ancestry.add(pid=each.pid, **dict(zip(("name", "command", "path"), texts, strict=True)))
    return True


def pack(past: pb.Past) -> bytes:
    """What led to an alert, as the alert carries it; empty if that is too large."""
    data = past.SerializeToString()
    packed = zlib.compress(data, 1) if len(data) <= LARGEST_PAST else b""
    return packed if len(packed) <= LONGEST_PAST else b""


def unpack(data: bytes) -> bytes:
    """The bytes of a Past. ValueError if there are none, or too many."""
    if len(data) > LONGEST_PAST:
        raise ValueError("too long")
    reader = zlib.decompressobj()
    try:
        found = reader.decompress(data, LARGEST_PAST)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not reader.eof:
        raise ValueError("cut, or too long")
    return found


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
    if not _ID.fullmatch(message.id) or len(message.ancestry) > MOST_PROGRAMS or len(message.past) > LONGEST_PAST:
        raise ValueError("id, or ancestry")
    fields = orjson.loads(message.fields_json)
    if not isinstance(fields, dict) or not all(map(_is_plain, fields.values())):
        raise ValueError("fields")
    said = SentRule(message.rule, message.priority, message.source, frozenset(message.tags))
    return Alert(
        said,
        message.time_ns,
        message.output,
        fields,
        count=max(message.count, 1),
        cgroup_id=message.container.cgroup_id,
        pod=(message.container.namespace, message.container.pod),
        incomplete=tuple(message.incomplete),
        node=node,
        since_ns=message.since_ns if 0 < message.since_ns <= message.time_ns else 0,
        id=message.id,
        ancestry=tuple(Program(each.pid, each.name, each.command, each.path) for each in message.ancestry),
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, _SCALARS) or (
        isinstance(value, list) and all(isinstance(each, _SCALARS) for each in value)
    )
