"""Agents that mean harm."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import orjson

from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from tests.fakes import WholeAgent

EXECS = catalog.find("execsnoop").schema


def schema_text(**changes: Any) -> str:
    return orjson.dumps({**EXECS.to_json(), **changes}).decode()


class Hostile(WholeAgent):
    """Answers each question with what the test says."""

    schema_text = schema_text()
    first: pb.Batch | None = None

    def Run(self, requests: Iterator[pb.RunRequest], context: grpc.ServicerContext) -> Iterator[pb.RunReply]:
        """A run with the schema and the batch of the test."""
        next(requests)
        yield pb.RunReply(node=self.node, started=pb.Started(schema=self.schema_text, contract=1))
        self.started.set()
        for _ in range(3):
            yield pb.RunReply(node=self.node, batch=self.first)
        next(requests, None)
        yield pb.RunReply(node=self.node, summary=pb.Summary())


class Raw:
    """Answers every question with bytes."""

    def __init__(self, folder: Path, *answers: bytes) -> None:
        self.answers = answers
        self.address = f"unix://{folder}/raw-{time.monotonic_ns()}.sock"
        self._server = grpc.server(ThreadPoolExecutor(4), options=(("grpc.max_send_message_length", -1),))
        handlers = {}
        for name, method in pb.DESCRIPTOR.services_by_name["Agent"].methods_by_name.items():
            many = method.server_streaming
            kind: Any = {
                (False, False): grpc.unary_unary_rpc_method_handler,
                (False, True): grpc.unary_stream_rpc_method_handler,
                (True, True): grpc.stream_stream_rpc_method_handler,
            }[method.client_streaming, many]
            handlers[name] = kind(lambda _, __, many=many: iter(self.answers) if many else self.answers[0])
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("gadget.v1.Agent", handlers),))
        self._server.add_insecure_port(self.address)
        self._server.start()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
