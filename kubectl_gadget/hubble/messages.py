"""Flows as messages: what `observe -o jsonpb` writes, as protobuf has it."""

from __future__ import annotations

from typing import Any

from google.protobuf import struct_pb2

from gadget._generated import observer_pb2


def message_of(response: dict[str, Any], time_ns: int) -> observer_pb2.GetFlowsResponse:
    """The message for a line of -o jsonpb. Three kinds of values are written differently there."""
    flow = dict(response["flow"])
    time = {"seconds": time_ns // 10**9, "nanos": time_ns % 10**9}
    flow["time"], flow["is_reply"] = time, {"value": flow["is_reply"]}
    extensions = struct_pb2.Struct()
    extensions.update(flow.pop("extensions")["value"])
    message = observer_pb2.GetFlowsResponse(flow=flow, node_name=response["node_name"], time=time)
    message.flow.extensions.Pack(extensions)
    return message
