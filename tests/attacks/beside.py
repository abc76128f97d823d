"""What others see while something attacks an agent: its answers, a pod's stream and recording, its health, its status.

Nothing here can pass without having looked: each kind of question must have been answered some times.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gadget._generated import gadget_pb2 as pb
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget.agents.client import connect
from tests.conftest import Agent, events, run_cli, wait_until
from tests.faults.production import Producer, books, opens, stop
from tests.faults.test_leaks import holds, own_memory
from tests.pods import UNIFIED

#: How long an agent may take to answer, whatever anybody does.
ANSWER_SECONDS = 2.0
#: …and until what it holds is what it held before.
CALM_SECONDS = 10.0
#: Threads that wait for a CPU, one after another, from a question to its answer: who asks, gRPC's on both sides, the agent's.
HOPS = 4
#: A run says at least this often that it lives: BEAT_SECONDS in agent/run/run.py, and the answer's time on top.
BEAT_SECONDS = 1.0
#: gRPC has threads and descriptors of its own, and an allocator keeps what it may need again: 25 to 36 MiB were seen.
SPARE_THREADS, SPARE_FILES, SPARE_BYTES = 16, 8, 48 << 20
PAUSE_SECONDS = 0.1
#: A question that has no answer by then counts as one that took so long.
PATIENCE_SECONDS = 30.0
LEAST_ANSWERS = 3


class Held(NamedTuple):
    """What an agent holds: open files, threads, bytes of memory, and in its tables cgroups that are gone."""

    files: int
    threads: int
    memory: int
    stale: dict[str, list[int]]


def maps_of(pid: int) -> dict[int, str]:
    """The hash maps by cgroup that a process holds: their names by id."""
    ids = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(OSError):  # closed since it was listed
            ids |= {int(line.split()[1]) for line in info.read_text().splitlines() if line.startswith("map_id:")}
    shown = json.loads(subprocess.run(["bpftool", "-j", "map"], capture_output=True, check=True).stdout)
    found = {each["id"]: each["name"] for each in shown if each["type"].startswith("hash") and each["bytes_key"] == 8}
    return {number: found[number] for number in ids & found.keys()}


def keys_of(map_id: int) -> set[int]:
    """The keys of a map, which are numbers."""
    shown = subprocess.run(["bpftool", "-j", "map", "dump", "id", str(map_id)], capture_output=True, check=False).stdout
    entries = json.loads(shown or "[]")
    keys = (entry["key"] for entry in entries if isinstance(entry, dict) and "key" in entry)
    return {int.from_bytes(bytes(int(byte, 16) for byte in key), sys.byteorder) for key in keys}


def stale_in(pid: int) -> dict[str, list[int]]:
    """Cgroups that a process's maps still have and that are gone, by the maps' names."""
    kept = {name: keys_of(number) for number, name in maps_of(pid).items()}  # first: what goes meanwhile is no fault
    there = {os.stat(folder).st_ino for folder, _, _ in os.walk(UNIFIED)}
    return {name: sorted(keys - there) for name, keys in kept.items() if keys - there}


def held(pid: int) -> Held:
    """What an agent holds now."""
    now = holds(pid)
    return Held(now.files, now.threads, own_memory(pid), stale_in(pid))


def cpu_seconds(pid: int) -> float:
    """CPU that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def is_well(agent: Agent) -> bool:
    """Whether its health service says so to who connects anew. An agent that does not answer is not well."""
    try:
        with grpc.insecure_channel(agent.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            return serves(channel)
    except grpc.RpcError:
        return False


def serves(channel: grpc.Channel) -> bool:
    """Whether an agent's health service says that it serves."""
    request = health_pb2.HealthCheckRequest()
    reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=4)  # as gadget-agent-health
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def calls_of(agent: Agent, namespace: str) -> int:
    """How many system calls of a namespace's only container that runs the flight recorder has counted."""
    (item,) = (item for item in recordings(agent, namespace) if item.running)
    return item.calls


def recordings(agent: Agent, namespace: str) -> list[pb.TraceloopItem]:
    """What `traceloop list` has of a namespace."""
    with connect(agent.address) as channel:
        reply = AgentStub(channel).TraceloopList(pb.TraceloopListRequest(), timeout=PATIENCE_SECONDS)
    return [item for item in reply.items if item.container.namespace == namespace]


def describe(agent: Agent) -> pb.DescribeReply:
    """What `status` has."""
    with connect(agent.address) as channel:
        return AgentStub(channel).Describe(pb.DescribeRequest(), timeout=PATIENCE_SECONDS)


def pods_of(agent: Agent, namespace: str) -> list[str]:
    """The pods of a namespace that run, as `containers` shows them."""
    with connect(agent.address) as channel:
        replies = list(AgentStub(channel).Containers(pb.ContainersRequest(), timeout=PATIENCE_SECONDS))
    found = (item for reply in replies for item in reply.containers if not item.ended_ns)
    return [item.container.pod for item in found if item.container.namespace == namespace]


@dataclass
class Seen:
    """How long answers took and how many there were, by question; what was wrong with them; CPU and time of it all.

    late is how much longer who asks slept than it wanted to, which is how long one may have to wait for a CPU.
    """

    slowest: dict[str, float] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    cpu: float = 0.0
    seconds: float = 0.0
    made: int = 0
    lost: int = 0
    late: float = 0.0
    before: Held | None = None
    after: Held | None = None

    def took(self, question: str, seconds: float) -> None:
        """Note that an answer came."""
        self.times[question] += 1
        self.slowest[question] = max(self.slowest.get(question, 0.0), seconds)

    def __str__(self) -> str:
        slowest = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.slowest.items())
        cores = self.cpu / self.seconds if self.seconds else 0
        memory = f"{self.before.memory >> 20} → {self.after.memory >> 20} MiB" if self.before and self.after else ""
        return f"slowest answers: {slowest} s, {self.late:.2f} s late; agent {cores:.2f} cores; {self.made} events, {self.lost} lost; {memory}"


def _again_and_again(seen: Seen, enough: threading.Event, question: str, ask: Callable[[], str]) -> None:
    """Ask until it is enough; ask gives what is wrong, or nothing."""
    slept = time.monotonic()
    while not enough.wait(PAUSE_SECONDS):
        began = time.monotonic()
        seen.late = max(seen.late, began - slept - PAUSE_SECONDS)
        try:
            wrong = ask()
        except grpc.RpcError as error:
            wrong = f"{error.code()}: {error.details()}"
        seen.took(question, time.monotonic() - began)
        if wrong:
            seen.wrong.append(f"{question}: {wrong}")
        slept = time.monotonic()


def _beats(seen: Seen, enough: threading.Event, agent: Agent) -> None:
    """A run of its own, of which nothing is wanted but that it lives."""

    def requests() -> Iterator[pb.RunRequest]:
        selection = pb.Selection(namespaces=["nobody"])
        yield pb.RunRequest(start=pb.Start(gadget="execsnoop", selection=selection, ring_bytes=1 << 16))
        enough.wait()

    with connect(agent.address) as channel:
        last = time.monotonic()
        try:
            for _ in AgentStub(channel).Run(requests()):
                seen.took("beat", max(0.0, time.monotonic() - last - BEAT_SECONDS))
                last = time.monotonic()
        except grpc.RpcError as error:
            if not enough.is_set():
                seen.wrong.append(f"beat: {error.details()}")


@contextmanager
def beside(agent: Agent, folder: Path, binary: Path, calm_seconds: float = CALM_SECONDS) -> Iterator[Seen]:
    """Asks an agent all that can be asked while the block attacks it, beside a pod that is streamed and recorded.

    At the end it must have answered always, soon and truly, lost nothing of that pod that it did not count, and hold
    what it held before.
    """
    seen, enough, attacked = Seen(), threading.Event(), False
    with ExitStack() as stack:
        producer = stack.enter_context(Producer(binary, "victim-0"))
        channel = stack.enter_context(connect(agent.address))
        stub = AgentStub(channel)
        stream = opens(folder, agent, producer)

        def described() -> str:
            reply = stub.Describe(pb.DescribeRequest(), timeout=PATIENCE_SECONDS)
            return "" if reply.containers else "no containers"

        def containers() -> str:
            (reply,) = stub.Containers(pb.ContainersRequest(), timeout=PATIENCE_SECONDS)
            mine = [each.container.pod for each in reply.containers if each.container.namespace == producer.namespace]
            return "" if mine == ["victim-0"] else f"the pod beside it is {mine}"

        def recorded() -> str:
            reply = stub.TraceloopList(pb.TraceloopListRequest(), timeout=PATIENCE_SECONDS)
            mine = [each for each in reply.items if each.container.namespace == producer.namespace]
            return "" if len(mine) == 1 and not mine[0].refused else f"the recording of the pod beside it: {mine}"

        def healthy() -> str:
            return "" if serves(channel) else "not serving"

        questions = {"Describe": described, "Containers": containers, "TraceloopList": recorded, "health": healthy}
        wait_until(lambda: len(recordings(agent, producer.namespace)) == 1, "the recording of the pod beside it")
        producer.make(100)
        wait_until(producer.waits, "the end of its last system call")
        for ask in questions.values():
            assert not ask(), ask()
        calls, made, commands = calls_of(agent, producer.namespace), producer.made, producer.commands
        seen.before = held(agent.process.pid)
        threads = [
            threading.Thread(target=_again_and_again, args=(seen, enough, name, ask), name=name)
            for name, ask in questions.items()
        ]
        threads.append(threading.Thread(target=_beats, args=(seen, enough, agent), name="beats"))
        for thread in threads:
            thread.start()
        began, used = time.monotonic(), cpu_seconds(agent.process.pid)
        try:
            with producer.steadily(5, 0.02):
                yield seen
                attacked = True
                often = lambda: all(seen.times[each] >= LEAST_ANSWERS for each in (*questions, "beat"))  # noqa: E731
                wait_until(often, f"answers: {seen}", PATIENCE_SECONDS)
        finally:
            seen.seconds = time.monotonic() - began
            if agent.process.poll() is None:
                seen.cpu = cpu_seconds(agent.process.pid) - used
            enough.set()
            for thread in threads:
                thread.join()
            if not attacked and stream.process.poll() is None:
                stream.process.kill()
        assert agent.process.poll() is None, agent.log.read_text()[-3000:]
        wait_until(producer.waits, "the end of its last system call")
        shown, seen.lost = books(*stop(stream, signal.SIGINT))
        seen.made = producer.made
        # what is lost may be of containers that nobody could name, whosever they were
        assert producer.made - seen.lost <= len(shown) <= producer.made, (len(shown), seen.lost, producer.made)
        assert sorted(shown)[-1:] == [producer.made - 1] or seen.lost
        recorded_calls = calls_of(agent, producer.namespace) - calls
        assert recorded_calls == producer.made - made + 2 * (producer.commands - commands)
        for question in (*questions, "beat"):
            assert seen.times[question] >= LEAST_ANSWERS, f"{question}: {seen.times[question]} answers; {seen}"
            assert seen.slowest[question] < ANSWER_SECONDS + HOPS * seen.late, str(seen)
        assert not seen.wrong, (len(seen.wrong), seen.wrong[:5])
        assert is_well(agent)
        (status,) = events(run_cli("status", "--agent", agent.address, "-o", "json").stdout)
        assert status["state"] == "ready", status
        assert "Traceback" not in agent.log.read_text(), agent.log.read_text()[-3000:]
        calm(agent, seen, calm_seconds)


def calm(agent: Agent, seen: Seen, seconds: float = CALM_SECONDS) -> None:
    """Wait until an agent holds what it held before an attack."""
    before = seen.before
    assert before

    def as_before() -> bool:
        seen.after = now = held(agent.process.pid)
        return (
            not now.stale
            and now.files <= before.files + SPARE_FILES
            and now.threads <= before.threads + SPARE_THREADS
            and now.memory <= before.memory + SPARE_BYTES
        )

    try:
        wait_until(as_before, "what it held before", seconds)
    except AssertionError:
        raise AssertionError(f"{seconds} s after the attack it holds {seen.after}; before {before}") from None
