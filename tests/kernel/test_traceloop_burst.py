"""traceloop when many containers come at once."""

from __future__ import annotations

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from gadget._generated.gadget_pb2 import TraceloopListRequest, TraceloopReadRequest
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget.agents.client import connect
from tests.conftest import Agent, wait_until
from tests.pods import Pod

#: Containers, how many start at a time, and at how many a second at most.
MANY, BESIDE, PER_SECOND = 200, 4, 45.0


def test_burst(record, tmp_path: Path) -> None:
    """Of 200 containers that come at 45 a second each is named, recorded from before its program's start, and its end known."""
    agent: Agent = record("--traceloop-memory", "256", "--traceloop", "burst")
    with ExitStack() as stack:
        pods = [stack.enter_context(Pod(tmp_path, "burst", f"burst-{number}")) for number in range(MANY)]
        waiting = [pod.prepare("app", "/bin/true", str(number)) for number, pod in enumerate(pods)]
        ids = [container.id for container in waiting]
        running: list[subprocess.Popen[bytes]] = []
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        began = time.monotonic()
        for number, container in enumerate(waiting):
            while len(running) == BESIDE:
                running = [each for each in running if each.poll() is None]
                time.sleep(0.001)
            time.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))
            running.append(subprocess.Popen(container.command, **quiet))
        rate = MANY / (time.monotonic() - began)
        for process in running:
            process.wait()
        with connect(agent.address) as channel:
            stub = AgentStub(channel)
            found = lambda: [  # noqa: E731
                each for each in stub.TraceloopList(TraceloopListRequest()).items if each.container.id in ids
            ]
            wait_until(lambda: len(found()) == MANY and not any(each.running for each in found()), "their ends")
            late = []
            for each in found():
                assert each.container.pod.startswith("burst-")
                assert each.known and each.status == 0
                assert each.recorded_ns == each.started_ns
                (reply,) = stub.TraceloopRead(TraceloopReadRequest(cgroup_id=each.container.cgroup_id))
                if b"/bin/true" not in reply.calls + reply.more:
                    late.append((each.container.pod, (each.recorded_ns - each.started_ns) / 1e6))
    print(f"{rate:.0f} a second")
    assert late == []
