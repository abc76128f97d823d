"""Requests to an agent's service, in this process and without a kernel: what it does with bytes that a client sends."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from unittest import mock

import grpc
from google.protobuf.message import DecodeError, Message

from agent.detect.service import Detect
from agent.flows.service import FlowsService
from agent.inspect.service import Inspector
from agent.run import source
from agent.server import AgentService
from agent.service import ServiceContext
from agent.standing.service import StandingRuns
from agent.traceloop.service import TraceloopService
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unsupported

#: What the first byte of the input chooses among; then comes the request.
METHODS: tuple[tuple[str, type[Message]], ...] = (
    ("Run", pb.RunRequest),
    ("Containers", pb.ContainersRequest),
    ("TraceloopRead", pb.TraceloopReadRequest),
    ("TraceloopEnds", pb.TraceloopEndsRequest),
    ("TraceloopDelete", pb.TraceloopDeleteRequest),
    ("Flows", pb.FlowsRequest),
    ("Inspect", pb.InspectRequest),
    ("KeptAlert", pb.KeptAlertRequest),
)
ANSWERS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION}
TRACKER: Any = SimpleNamespace(
    containers=list,
    find_addresses=list,
    generation=1,
    knows_labels=True,
    map_fd=-1,
    proc=Path("/proc"),
    mount=Path("/"),
    labels=lambda container: None,
)
SERVICES = {
    "traceloop": TraceloopService("node-a", None),
    "flows": FlowsService("node-a", TRACKER, None),
    "inspect": Inspector("node-a", TRACKER),
    "standing": StandingRuns("node-a", None),
    "detect": Detect(ServiceContext("node-a", TRACKER, Path("/none"), Path("/none"))),
}
SERVICE = AgentService("node-a", TRACKER, SERVICES)


class _Aborted(Exception):
    """A call has been ended with a status."""


class _Call:
    """The call of a client that is gone as soon as it has asked."""

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        assert code in ANSWERS, (code, details)
        assert details and "\n" not in details, details
        raise _Aborted

    def is_active(self) -> bool:
        return False

    def send_initial_metadata(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        assert all(name.endswith("-bin") or isinstance(value, str) for name, value in metadata)

    def peer(self) -> str:
        return "fuzz"


class _Object:
    """A gadget's object as far as settings and sizes go; to load it is refused."""

    def __init__(self, elf: bytes, name: str) -> None:
        self._size = len(elf)

    def has_programs(self, section: str) -> bool:
        return False

    def configure(self, offset: int, data: bytes) -> None:
        assert offset >= 0 and data

    def has_map(self, name: str) -> bool:
        return True

    def preallocate(self, *names: str) -> None:
        pass

    def preallocated_bytes(self, but: Collection[str]) -> int:
        return 0

    def resize(self, name: str, size: int | None) -> int:
        assert size is None or size & (size - 1) == 0, size
        return size or 1

    def share(self, name: str, fd: int) -> None:
        pass

    def load(self) -> None:
        raise Unsupported("no kernel")

    def close(self) -> None:
        pass


def request(data: bytes) -> None:
    """A request of any method."""
    name, kind = METHODS[data[0] % len(METHODS) if data else 0]
    try:
        message = kind.FromString(data[1:])
    except DecodeError:
        return  # which gRPC refuses itself
    with mock.patch.object(source, "BpfObject", _Object), contextlib.suppress(_Aborted):
        answer = getattr(SERVICE, name)(iter([message]) if name == "Run" else message, _Call())
        for _ in answer if name not in ("TraceloopDelete", "Inspect") else ():
            pass


def some_request() -> bytes:
    """A run with a setting, a selection and a ring."""
    selection = pb.Selection(namespaces=["shop,!old"], pods=["cart-0"], labels="app in (cart, web),!old")
    start = pb.Start(gadget="execsnoop", parameters={"host": "1"}, selection=selection, ring_bytes=1 << 20)
    return b"\0" + pb.RunRequest(start=start).SerializeToString()
