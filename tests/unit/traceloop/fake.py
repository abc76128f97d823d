"""An agent that has the recordings that a test makes up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from gadget.errors import UsageError
from kubectl_gadget.agents.targets import Agent
from kubectl_gadget.traceloop.instances import Instance
from tests.unit.traceloop.replies import reply


def item(
    pod: str, container: str, container_id: str, *, namespace: str = "shop", cgroup: int = 7, **values: Any
) -> pb.TraceloopItem:
    """A recording of a container."""
    who = pb.Container(cgroup_id=cgroup, namespace=namespace, pod=pod, container=container, id=container_id)
    return pb.TraceloopItem(container=who, **values)


class FakeRecorder(rpc.AgentServicer):
    """Serves on a Unix socket in a folder. A context manager: it is gone in the end."""

    def __init__(
        self, folder: Path, items: list[pb.TraceloopItem], replies: list[pb.TraceloopReadReply] | None = None
    ) -> None:
        """Serve those recordings, with those replies to whoever reads one."""
        self.items, self.replies = {each.container.cgroup_id: each for each in items}, replies or []
        self.deleted: list[str] = []
        #: whose ends are told in a layout that makes no sense
        self.damaged: set[int] = set()
        self.address = f"unix://{folder}/{time.monotonic_ns()}.sock"
        self._server = grpc.server(ThreadPoolExecutor(4))
        rpc.add_AgentServicer_to_server(self, self._server)
        self._server.add_insecure_port(self.address)
        self._server.start()

    def __enter__(self) -> FakeRecorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()

    def instance(self) -> Instance:
        """Its first recording."""
        return Instance(Agent(self.address, self.address), "node-a", next(iter(self.items.values())))

    def TraceloopList(self, request: pb.TraceloopListRequest, context: grpc.ServicerContext) -> pb.TraceloopListReply:
        """All of them."""
        return pb.TraceloopListReply(node="node-a", items=self.items.values())

    def TraceloopRead(
        self, request: pb.TraceloopReadRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.TraceloopReadReply]:
        """The replies."""
        yield from self.replies

    def TraceloopEnds(
        self, request: pb.TraceloopEndsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.TraceloopReadReply]:
        """The first reply, for each that is known."""
        for key in request.cgroup_ids:
            if key in self.items:
                sent = pb.TraceloopReadReply()
                sent.CopyFrom(next(iter(self.replies), reply()))
                sent.item.container.cgroup_id = key
                sent.layout = "{" if key in self.damaged else sent.layout
                yield sent

    def TraceloopDelete(
        self, request: pb.TraceloopDeleteRequest, context: grpc.ServicerContext
    ) -> pb.TraceloopDeleteReply:
        """Forget one."""
        if request.cgroup_id not in self.items:
            raise UsageError("gone")
        self.deleted.append(self.items.pop(request.cgroup_id).container.id)
        return pb.TraceloopDeleteReply()
