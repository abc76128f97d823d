"""Requests that make no sense, too many, or never end: each is answered, and the agent goes on serving."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event

import grpc
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent.answering import MAX_READERS, MAX_RUNS
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget.agents.client import connect
from tests.conftest import Agent, wait_until

ANSWER_SECONDS = 20.0
#: What a request may come to. Not among them: UNKNOWN, which is what a failure in the agent's own code becomes.
ANSWERS = {
    grpc.StatusCode.OK,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
#: Of these rings no more than a few at a time fit into a machine's memory.
BIG = 1 << 20

words = st.sampled_from(
    ["", "!", "!!", ",", "shop", "a=b", "a in (b", "0", "-1", "true", "0x10", "1e9", "9" * 30, "\0", "é" * 200]
)
texts = words | st.text(max_size=20)
names = st.sampled_from([*catalog.load()]) | texts
settings_of = st.dictionaries(
    st.sampled_from([item.name for gadget in catalog.load().values() for item in gadget.parameters]) | texts,
    texts,
    max_size=3,
)
selections = st.builds(
    pb.Selection,
    namespaces=st.lists(texts, max_size=3),
    pods=st.lists(texts, max_size=3),
    containers=st.lists(texts, max_size=3),
    labels=texts,
)
starts = st.builds(
    pb.Start,
    gadget=names,
    parameters=settings_of | st.just({}),
    selection=selections | st.just(pb.Selection()),
    ring_bytes=st.integers(0, BIG) | st.integers(1 << 31, (1 << 64) - 1),
)
run_requests = st.lists(
    st.builds(pb.RunRequest, start=starts) | st.just(pb.RunRequest(stop=pb.Stop())) | st.just(pb.RunRequest()),
    max_size=3,
)
cgroups = st.integers(0, (1 << 64) - 1)


@pytest.fixture
def everything(bpffs: Path, start_agent: Callable[..., Agent], tmp_path: Path) -> Agent:
    """An agent with every recorder on."""
    return start_agent("--bpffs", str(bpffs), "--state", str(tmp_path / "state"))


def outcome(call: grpc.Call) -> grpc.StatusCode:
    """What a stream of replies ends with; one that need not end is cancelled after its first."""
    with suppress(grpc.RpcError):
        next(call, None)
        if isinstance(call, grpc.Future):
            call.cancel()
    return call.code()


def serves(agent: Agent) -> bool:
    """Whether a new client is answered, with nothing running."""
    with connect(agent.address) as channel:
        return not AgentStub(channel).Describe(pb.DescribeRequest(), timeout=ANSWER_SECONDS).runs


def conclude(agent: Agent) -> None:
    """The agent is as it was, and has met nothing that it was not ready for."""
    wait_until(lambda: serves(agent), "the end of all runs")
    assert agent.process.poll() is None
    assert "Traceback" not in agent.log.read_text(), agent.log.read_text()


def patient(examples: int) -> settings:
    """So many examples, as slow as the machine is. One that fails is not made smaller: each try may wait for long."""
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],
    )


@pytest.mark.timeout(300)
def test_any_request(everything: Agent) -> None:
    """Whatever is asked of an agent, it answers or says what is wrong with it, and goes on serving."""
    with connect(everything.address) as channel:
        stub = AgentStub(channel)

        @patient(120)
        @given(run_requests)
        def run(requests: list[pb.RunRequest]) -> None:
            call = stub.Run(iter(requests), timeout=ANSWER_SECONDS)
            with suppress(grpc.RpcError):
                list(call)
            assert call.code() in ANSWERS, call.details()

        @patient(60)
        @given(cgroups, st.booleans(), selections)
        def others(cgroup_id: int, follow: bool, selection: pb.Selection) -> None:
            # one that follows may have nothing to say
            patience, allowed = (
                (0.3, ANSWERS | {grpc.StatusCode.DEADLINE_EXCEEDED}) if follow else (ANSWER_SECONDS, ANSWERS)
            )
            calls = (
                stub.Containers(pb.ContainersRequest(follow=follow, selection=selection), timeout=patience),
                stub.TraceloopRead(pb.TraceloopReadRequest(cgroup_id=cgroup_id, follow=follow), timeout=patience),
                stub.Flows(pb.FlowsRequest(), timeout=ANSWER_SECONDS),
            )
            for call in calls:
                assert outcome(call) in allowed, call.details()
            with pytest.raises(grpc.RpcError) as caught:
                stub.TraceloopDelete(pb.TraceloopDeleteRequest(cgroup_id=cgroup_id), timeout=ANSWER_SECONDS)
            assert caught.value.code() in ANSWERS

        run()
        others()
    conclude(everything)


def test_any_bytes(agent: Agent) -> None:
    """Bytes that are no request, or not even HTTP/2, cost their sender the connection and nobody else anything."""
    methods = [method.name for method in pb.DESCRIPTOR.services_by_name["Agent"].methods if method.name != "End"]
    with connect(agent.address) as channel:

        @patient(60)
        @given(st.sampled_from([*methods, "Nothing"]), st.binary(max_size=60))
        def message(method: str, data: bytes) -> None:
            call = channel.unary_stream(f"/gadget.v1.Agent/{method}", bytes, bytes)(data, timeout=ANSWER_SECONDS)
            allowed = ANSWERS | {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED}
            assert outcome(call) in allowed, call.details()

        message()

    @patient(60)
    @given(st.binary(max_size=300), st.booleans())
    def raw(data: bytes, preface: bool) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(agent.address.removeprefix("unix://"))
            with suppress(OSError):
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" * preface + data)

    raw()
    wait_until(lambda: serves(agent), "the end of all runs")
    assert agent.process.poll() is None


def test_too_many(agent: Agent) -> None:
    """Clients that begin and never end, more than an agent serves: those beyond are told so, and it still answers."""
    over = Event()

    def silent() -> Iterator[pb.RunRequest]:
        over.wait(100)
        yield from ()

    with connect(agent.address) as channel:
        stub = AgentStub(channel)
        runs = [stub.Run(silent()) for _ in range(MAX_RUNS + 3)]
        watching = [stub.Containers(pb.ContainersRequest(follow=True)) for _ in range(MAX_READERS + 3)]
        for calls in (runs, watching):
            wait_until(lambda: sum(call.done() for call in calls) == 3, "all places taken")  # noqa: B023
            for refused in (call for call in calls if call.done()):
                assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert "end one first" in refused.details()
        stub.Describe(pb.DescribeRequest(), timeout=ANSWER_SECONDS)
        for call in (*runs, *watching):
            call.cancel()
        over.set()
        wait_until(lambda: outcome(stub.Run(iter(()))) == grpc.StatusCode.INVALID_ARGUMENT, "room")
    conclude(agent)
