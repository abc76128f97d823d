"""Calls to one agent. Whatever the agent does, the caller gets a checked message or a GadgetError."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from gadget._generated import gadget_pb2 as pb
from gadget.deadline import bounded
from gadget.errors import GadgetError, Malformed, Unreachable, Unsupported, UsageError
from kubectl_gadget.agents import contract, wire
from kubectl_gadget.agents.at_once import answers
from kubectl_gadget.agents.targets import Agent, Targets
from kubectl_gadget.tell import tell

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", wire.LARGEST),
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # what is waited for, else 60 s
)
#: The most bytes of all answers to one call that ends.
MOST_BYTES = 256 << 20
#: How long an agent may take for a short answer.
ANSWER_SECONDS = 10.0
#: What an agent says of a beginning that it does not know: see agent/answering.py.
_NO_BEGINNING = "a run begins with start or attach"
#: How many letters of an agent's own words an error shows.
LONGEST_DETAILS = 500
_SERVICE = pb.DESCRIPTOR.services_by_name["Agent"]
#: Agents that said they are on another node, and the user has been told so.
_told: set[Agent] = set()


def connect(address: str) -> grpc.Channel:
    """A channel to an agent at HOST:PORT or unix:///PATH."""
    return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)


def call(channel: grpc.Channel, method: str) -> Any:
    """A method of an agent. Its answers are bytes, for wire.parse: gRPC would log messages that it cannot parse."""
    described = _SERVICE.methods_by_name[method]
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, True): channel.stream_stream,
    }
    kind: Any = kinds[described.client_streaming, described.server_streaming]
    return kind(f"/{_SERVICE.full_name}/{method}", request_serializer=lambda message: message.SerializeToString())


def ask(
    agent: Agent, method: str, request: Message, timeout: float | None = None, *, endless: bool = False
) -> Iterator[Any]:
    """The answers of an agent, one or many. GadgetError with its name if it does not answer, or makes no sense."""
    described = _SERVICE.methods_by_name[method]
    kind: Any = GetMessageClass(described.output_type)
    size = 0
    try:
        with connect(agent.address) as channel:
            for data in _answers(channel, method, agent, request, timeout if endless else bounded(timeout)):
                reply, taken = wire.parse(kind, data)
                size += taken
                if size > MOST_BYTES and not endless:
                    raise ValueError(f"more than {MOST_BYTES >> 20} MiB")
                if warning := settle_node(agent, reply):
                    tell(warning)
                yield reply
    except grpc.RpcError as error:
        raise error_of(agent.target, error) from None
    except ValueError as error:
        raise malformed(agent.target, error) from None


def ask_once(agent: Agent, method: str, request: Message, timeout: float | None = ANSWER_SECONDS) -> Any:
    """The answer of an agent that gives one."""
    (reply,) = ask(agent, method, request, timeout)
    return reply


def ask_all(targets: Targets, method: str, request: Message, timeout: float | None = ANSWER_SECONDS) -> dict[str, Any]:
    """The answer of each agent, or the GadgetError that kept it from answering, by target."""

    def one(target: str) -> Any:
        try:
            return ask_once(targets.reach(target), method, request, timeout)
        except GadgetError as error:
            return error
        except Exception as error:  # whatever it is: the others are to be shown
            return Unreachable(f"{target}: {type(error).__name__}: {error}")

    return dict(zip(targets, answers({target: partial(one, target) for target in targets}), strict=True))


def _answers(
    channel: grpc.Channel, method: str, agent: Agent, request: Message, timeout: float | None
) -> Iterator[bytes]:
    if _SERVICE.methods_by_name[method].server_streaming:
        answers = done = call(channel, method)(request, timeout=timeout)
    else:
        answer, done = call(channel, method).with_call(request, timeout=timeout)
        answers = [answer]
    if method not in ("Describe", "End"):  # which any command line may say to any agent
        contract.check_metadata(agent.node, done.initial_metadata() or ())
    yield from answers


def malformed(target: str, error: ValueError) -> Malformed:
    """The error for an agent whose answer makes no sense."""
    return Malformed(f"{target}: its agent's answer cannot be used: {error}")


def settle_node(agent: Agent, reply: Any) -> str:
    """Set a reply's node to the one that its agent was reached on. Warns once if the agent says another one."""
    if not agent.node or not hasattr(reply, "node"):
        return ""
    claimed, reply.node = reply.node, agent.node
    if claimed in ("", agent.node.rpartition("/")[2]) or agent in _told:  # the cluster stands before it, if several do
        return ""
    _told.add(agent)
    return f"warning: {agent.node}: its agent says that it is on {claimed}: not believed"


def error_of(target: str, error: grpc.RpcError) -> GadgetError:
    """The error that a failed call stands for; the reverse of the agent's status_of."""
    code, details = error.code(), (error.details() or "")[:LONGEST_DETAILS]
    if code == grpc.StatusCode.UNIMPLEMENTED or details == _NO_BEGINNING:
        return Unsupported(f"{target}: its agent is older and cannot do this: update it with `kubectl gadget deploy`")
    if code == grpc.StatusCode.INVALID_ARGUMENT:
        return UsageError(details)
    if code == grpc.StatusCode.FAILED_PRECONDITION:
        return Unsupported(details)
    if code == grpc.StatusCode.UNAVAILABLE:
        return Unreachable(f"{target}: no agent answers there")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return Malformed(f"{target}: its agent sends a message of more than {wire.LARGEST >> 20} MiB")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unreachable(f"{target}: its agent has not answered in time")
    return GadgetError(f"{target}: {details or code.name.lower()}")
