"""What we serve of Hubble's messages, beside Hubble's own descriptors."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    field_mask_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

from gadget._generated import flow_pb2, observer_pb2, peer_pb2, relay_pb2
from gadget.errors import UsageError
from kubectl_gadget.hubble.filters import CONDITIONS
from kubectl_gadget.hubble.mask import NOT_SERVED, parse_mask

OURS = (flow_pb2, relay_pb2, observer_pb2, peer_pb2)


@pytest.fixture(scope="module")
def theirs(binaries: Path) -> descriptor_pool.DescriptorPool:
    """All that Hubble's own messages are, from its Go module."""
    done = subprocess.run([str(binaries / "oracle"), "descriptors"], stdout=subprocess.PIPE, check=True)
    pool = descriptor_pool.DescriptorPool()
    for known in (any_pb2, duration_pb2, field_mask_pb2, timestamp_pb2, wrappers_pb2, descriptor_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    for file in descriptor_pb2.FileDescriptorSet.FromString(done.stdout).file:
        pool.Add(file)
    return pool


def _messages(of: Any) -> list[Any]:
    found = list(of.values())
    return found + [below for message in found for below in _messages(message.nested_types_by_name)]


def _about(field: Any) -> tuple[Any, ...]:
    """What makes a field the same on the wire and in JSON."""
    message, enum, oneof = field.message_type, field.enum_type, field.containing_oneof
    return (
        field.name, field.json_name, field.number, field.type, field.is_repeated, field.has_presence,
        message and message.full_name, enum and enum.full_name, oneof and oneof.name,
    )  # fmt: skip


@pytest.mark.parametrize("module", OURS, ids=lambda module: module.DESCRIPTOR.name)
def test_subset(theirs: descriptor_pool.DescriptorPool, module: Any) -> None:
    """Every message, field, enum and call that we serve is Hubble's, by name, number and type."""
    for message in _messages(module.DESCRIPTOR.message_types_by_name):
        wanted = theirs.FindMessageTypeByName(message.full_name)
        for field in message.fields:
            assert _about(field) == _about(wanted.fields_by_name[field.name]), field.full_name
    for enum in module.DESCRIPTOR.enum_types_by_name.values():
        wanted = theirs.FindEnumTypeByName(enum.full_name)
        for value in enum.values:
            assert value.number == wanted.values_by_name[value.name].number, f"{enum.full_name}.{value.name}"
    for service in module.DESCRIPTOR.services_by_name.values():
        wanted = theirs.FindServiceByName(service.full_name)
        for call in service.methods:
            same = wanted.methods_by_name[call.name]
            assert (call.input_type.full_name, call.output_type.full_name, call.client_streaming, call.server_streaming) == (
                same.input_type.full_name, same.output_type.full_name, same.client_streaming, same.server_streaming
            )  # fmt: skip


def test_masks(theirs: descriptor_pool.DescriptorPool) -> None:
    """Whatever field of Hubble's Flow a client asks for by a mask is taken, and a name that Hubble has not is refused."""
    flow = theirs.FindMessageTypeByName("flow.Flow")
    paths = [field.name for field in flow.fields]
    paths += [f"{field.name}.{below.name}" for field in flow.fields if field.message_type and not field.is_repeated
              for below in field.message_type.fields if not field.message_type.full_name.startswith("google.")]  # fmt: skip
    for path in paths:
        parse_mask([path], flow_pb2.Flow.DESCRIPTOR)
    ours = set(flow_pb2.Flow.DESCRIPTOR.fields_by_name)
    assert {field.name for field in flow.fields} - ours == NOT_SERVED
    with pytest.raises(UsageError):
        parse_mask(["nose"], flow_pb2.Flow.DESCRIPTOR)


def test_filters(theirs: descriptor_pool.DescriptorPool) -> None:
    """A field of a filter that we know has a meaning here, and each of Hubble's that we do not is refused, by its number."""
    ours = flow_pb2.FlowFilter.DESCRIPTOR
    assert set(CONDITIONS) == set(ours.fields_by_name)
    others = set(theirs.FindMessageTypeByName("flow.FlowFilter").fields_by_name) - set(CONDITIONS)
    assert others == {
        "uuid", "node_labels", "http_status_code", "http_method", "http_path", "http_url", "http_header", "trace_id",
        "ip_trace_id", "encrypted", "interface", "experimental",
    }  # fmt: skip
