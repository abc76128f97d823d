"""What is recorded all the time."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from agent.flows.recorder import FlowRecorder
from agent.syscalls.recorder import SyscallRecorder
from agent.syscalls.settings import Settings as SyscallSettings
from agent.traceloop.recorder import Recorder, RecorderSettings
from agent.traceloop.service import TraceloopService
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.syscalls import table as table_of_calls
from kubectl_gadget import strace
from kubectl_gadget.strace import Call
from kubectl_gadget.traceloop.calls import ReplyReader, ThreadEnd
from tests.vm.machine import Busy, Core, container

HERE = "10.9.0.1"  # not 127.0.0.1, with which nobody else is talked to


def traceloop(core: Core) -> None:
    """Of a container that exited 3 and is gone I see that, and its last calls; of four threads I see every call."""
    settings = RecorderSettings(Path("/sys/fs/bpf/gadget/traceloop"), Path("/run/saved"), lambda container: True)
    with closing(Recorder(core.tracker, settings)) as recorder:
        service = TraceloopService("guest", recorder)
        with container("dies") as app:
            _wait_for_ring(recorder, "dies")
            core.call(app, lambda: os.access("", os.F_OK))
            core.work(app, "ends", "exit3")
        with container("threads") as app:
            _wait_for_ring(recorder, "threads")
            core.work(app, "ends", "threads", "503")
        items = {item.container.pod: item for item in service.list().items}
        entries = {pod: _entries(service, item) for pod, item in items.items()}
        missed = recorder.missed()
        recorder.end()
    if missed:
        raise Busy
    died = items["dies"]
    assert (died.running, died.known, died.status, died.oom) == (False, True, 3 << 8, False), died
    texts = [strace.text(entry) for entry in entries["dies"] if isinstance(entry, Call)]
    assert 'execve("/workload", ["/workload", "exit3"]' in " ".join(texts), texts
    assert 'write(1, "begin\\n", 6) = 6' in texts, texts
    access = "access(" if os.uname().machine == "x86_64" else "faccessat(AT_FDCWD, "  # arm64 has only the newer call
    assert any(text.startswith(f'{access}"/etc/app.conf", R_OK) = -1 ENOENT') for text in texts), texts
    assert any(text.startswith(f'{access}"", F_OK) = -1 ENOENT') for text in texts), texts
    assert texts[-1].startswith("exit_group(3)"), texts
    assert isinstance(entries["dies"][-1], ThreadEnd)
    calls = [entry for entry in entries["threads"] if isinstance(entry, Call)]
    closed: dict[int, list[int]] = {}
    for call in calls:
        if call.args and call.args[0] >= 1000000 and strace.text(call).startswith("close("):
            closed.setdefault(call.tid, []).append(call.args[0] - 1000000)
    assert list(closed.values()) == [list(range(503))] * 4, {tid: len(numbers) for tid, numbers in closed.items()}
    assert not [path for path in Path("/sys/fs/bpf").rglob("*") if not path.is_dir()]


def flows(core: Core) -> None:
    """I see whom a container talked to and who talked to it, how often and how often in vain, over TCP, UDP and SCTP."""
    subprocess.run(["ip", "addr", "replace", f"{HERE}/32", "dev", "lo"], check=False)
    # heartbeats that come more seldom than a silence lasts that ends a talk
    for name, milliseconds in {"rto_min": 100, "rto_initial": 100, "rto_max": 100, "hb_interval": 1500}.items():
        Path(f"/proc/sys/net/sctp/{name}").write_text(str(milliseconds))

    def talks() -> None:
        with ExitStack() as stack:
            server = stack.enter_context(socket.create_server((HERE, 7001)))
            for port, count in ((7001, 5), (7002, 3)):
                for _ in range(count):
                    with socket.socket() as client:
                        assert client.connect_ex((HERE, port)) == (0 if port == 7001 else errno.ECONNREFUSED)
            server = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            server.bind((HERE, 7003))
            for _ in range(7):
                with socket.socket(type=socket.SOCK_DGRAM) as client:
                    client.sendto(b"question", (HERE, 7003))
                    server.sendto(b"answer", server.recvfrom(100)[1])
                    client.recv(100)
            server = stack.enter_context(socket.socket(proto=socket.IPPROTO_SCTP))
            server.bind((HERE, 7004))
            server.listen()
            for _ in range(3):
                client = stack.enter_context(socket.socket(proto=socket.IPPROTO_SCTP))
                client.connect((HERE, 7004))
                accepted = stack.enter_context(server.accept()[0])
                client.send(b"question")
                accepted.send(accepted.recv(100))
            time.sleep(4)

    pins = Path("/sys/fs/bpf/flows")
    recorder = FlowRecorder(
        core.tracker, pins, Path("/run/flows"), constants=dict.fromkeys(("unanswered_ns", "answered_ns"), 10**9)
    )
    try:
        with container() as app:
            core.call(app, talks)
            keys, seen, uids = recorder.read()
        assert not recorder.udp_problem, recorder.udp_problem
        lost = recorder.losses()
    finally:
        recorder.close()
        recorder.end()
    if lost.pop("program busy"):
        raise Busy
    assert not any(lost.values()), lost
    directions = catalog.constants("flows", "direction")
    way = {directions["DIRECTION_EGRESS"]: "to", directions["DIRECTION_INGRESS"]: "from"}
    columns = [keys[name].tolist() for name in ("direction", "protocol", "port")]
    found = {
        (way[direction], protocol, port): (int(flow["count"]), int(flow["failed"]))
        for (direction, protocol, port), flow in zip(zip(*columns, strict=True), seen, strict=True)
    }
    assert found == {
        ("to", socket.IPPROTO_TCP, 7001): (5, 0),
        ("from", socket.IPPROTO_TCP, 7001): (5, 0),
        ("to", socket.IPPROTO_TCP, 7002): (3, 3),
        ("to", socket.IPPROTO_UDP, 7003): (7, 0),
        ("from", socket.IPPROTO_UDP, 7003): (7, 0),
        ("to", socket.IPPROTO_SCTP, 7004): (3, 0),
        ("from", socket.IPPROTO_SCTP, 7004): (3, 0),
    }, found
    assert all(uids)


def syscalls(core: Core) -> None:
    """Of a container I see the calls that it made, and no others, also after it is gone."""
    settings = SyscallSettings(care_seconds=60)
    recorder = SyscallRecorder(core.tracker, Path("/sys/fs/bpf/syscalls"), Path("/run/syscalls"), settings)
    try:
        with container("calls") as app:
            core.work(app, "ends", "exit3")
            core.call(app, lambda: os.sync())
        (found,) = (calls for who, calls in recorder.read().items() if who.workload == "Pod/calls")
        lost = recorder.losses()
    finally:
        recorder.close()
        recorder.end()
    if lost.pop("program busy"):
        raise Busy
    assert not any(lost.values()), lost
    names = {call.name for number, call in table_of_calls(os.uname().machine).items() if found.calls >> number & 1}
    assert {"execve", "exit_group", "sync", "write"} <= names and not names & {"mount", "setns"}, names
    assert (found.compat, found.containers, found.older) == (0, 1, 0), found


def _wait_for_ring(recorder: Recorder, pod: str) -> None:
    """A runtime starts a process long after it made the cgroup; here nothing is between them."""
    while not any(ring.about.container.pod == pod for ring in recorder.rings()):
        time.sleep(0.01)


def _entries(service: TraceloopService, item: pb.TraceloopItem) -> list[Any]:
    request = pb.TraceloopReadRequest(cgroup_id=item.container.cgroup_id)
    (reply,) = service.read(request, lambda: True)
    return ReplyReader().entries(reply)
