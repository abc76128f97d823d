"""Which fields of a flow a client wants: a FieldMask of names as flow.proto has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from gadget.errors import UsageError

#: Fields of Hubble's Flow that no flow here has: clients may ask for them all the same.
NOT_SERVED = frozenset({
    "uuid", "emitter", "drop_reason", "auth_type", "ethernet", "tunnel", "node_labels", "reply", "policy_match_type",
    "trace_reason", "file", "ip_trace_id", "debug_capture_point", "interface", "proxy_port", "trace_context",
    "sock_xlate_point", "socket_cookie", "cgroup_id", "policy_log", "aggregate",
})  # fmt: skip
#: Of those that are served: what a client may not know that we have not.
_NESTED_NOT_SERVED = frozenset({("l4", "VRRP"), ("l4", "IGMP"), ("l7", "http"), ("l7", "kafka")})
#: Names of fields, each with those of it that are wanted, all if there are none.
Tree = dict[str, "Tree"]


def parse_mask(paths: Sequence[str], root: Any) -> Tree:
    """The fields of a message that are wanted. UsageError for a path of none."""
    tree: Tree = {}
    for path in paths:
        names = path.split(".")
        if names[0] in NOT_SERVED or tuple(names[:2]) in _NESTED_NOT_SERVED:
            continue
        at, message, is_whole = tree, root, False
        for name in names:
            field = message.fields_by_name.get(name) if message else None
            if field is None:
                raise UsageError(f"field_mask: {path!r} is no field of {root.full_name}")
            message = None if field.is_repeated else field.message_type
            is_whole = is_whole or (name in at and not at[name])  # all of it is wanted already
            at = {} if is_whole else at.setdefault(name, {})
        at.clear()
    return tree


def copy(source: Any, target: Any, tree: Tree) -> None:
    """Copy the wanted fields of a message into an empty one."""
    for name, below in tree.items():
        value = getattr(source, name)
        if isinstance(value, Message):
            if source.HasField(name):
                part = getattr(target, name)
                if below:
                    part.SetInParent()
                    copy(value, part, below)
                else:
                    part.CopyFrom(value)
        elif source.DESCRIPTOR.fields_by_name[name].is_repeated:
            getattr(target, name).extend(value)
        else:
            setattr(target, name, value)
