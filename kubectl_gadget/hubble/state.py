"""How a server in a cluster is, for `status`: it answers as agents do, on an address of its own."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from gadget import CONTRACT, __version__
from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc
from gadget.errors import GadgetError
from gadget.text import counted
from kubectl_gadget.cluster.options import HUBBLE
from kubectl_gadget.hubble.server import Server

_THREADS = 4


class HubbleState(gadget_pb2_grpc.AgentServicer):
    """Answers `status`, and probes. A context manager."""

    def __init__(self, address: str, of: Server) -> None:
        """GadgetError if the address cannot be bound."""
        self._of = of
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS, thread_name_prefix="state"), options=[("grpc.so_reuseport", 0)]
        )
        gadget_pb2_grpc.add_AgentServicer_to_server(self, self._server)
        serves = health.HealthServicer()
        serves.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(serves, self._server)
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise GadgetError(f"--status {address}: {error}") from None

    def Describe(self, request: pb.DescribeRequest, context: grpc.ServicerContext) -> pb.DescribeReply:
        """Version, and how many flows there are."""
        observer = self._of.observer
        text = f"{observer.kept:,} flows, {counted(observer.readers, 'client')}"
        return pb.DescribeReply(
            node=HUBBLE,
            version=__version__,
            kernel=os.uname().release,
            contract=CONTRACT,
            services=[pb.ServiceStatus(name=HUBBLE, text=text)],
        )

    def __enter__(self) -> HubbleState:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
