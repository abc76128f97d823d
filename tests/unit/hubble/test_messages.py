"""What clients of `hubble serve` get of a flow."""

from __future__ import annotations

import pytest
from google.protobuf import json_format

from gadget._generated import observer_pb2
from kubectl_gadget.hubble.ring import FlowRing
from kubectl_gadget.hubble.session import RingOutput
from kubectl_gadget.observe.hubble import Flows
from kubectl_gadget.observe.lines import FIELDS
from kubectl_gadget.output import all_fields
from tests.unit.observe.flows import FLOWS, GADGET, table


def test_same_as_jsonpb(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Clients are served what `observe -o jsonpb` writes, to the last field."""
    rows = list(zip(*(table().column(name) for name in FIELDS), strict=True))
    Flows(GADGET, all_fields(GADGET.schema)).write(rows)
    written = capsysbinary.readouterr().out.decode().splitlines()
    output = RingOutput(GADGET, all_fields(GADGET.schema))
    output.ring = FlowRing(len(FLOWS))
    output.write(rows)
    kept = list(output.ring.backwards())[::-1]
    for line, slot in zip(written, kept, strict=True):
        wanted = json_format.Parse(line, observer_pb2.GetFlowsResponse())
        assert slot.message(output.message) == wanted  # as it is made
        assert slot.message(output.message) == wanted  # as it is kept then
