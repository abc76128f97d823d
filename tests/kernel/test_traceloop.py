"""traceloop on this kernel: what is left of containers that ended, whatever happened to them and to the agent."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from functools import partial
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from gadget._generated.gadget_pb2 import EndRequest, TraceloopListRequest, TraceloopReadRequest
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget.agents.client import connect
from tests.conftest import AGENT, Agent, events, run_cli, wait_until
from tests.kernel.recordings import calls, ended, states, traceloop
from tests.loaded import bpf_programs, pinned_programs, programs_of
from tests.pods import BareContainer


def tells(agent: Agent, container: str, last: str) -> bool:
    """Whether the last line of a container's recording is as it should be."""
    return bool(re.fullmatch(last, traceloop(agent, "show", "cart-0", "-c", container).splitlines(keepends=True)[-1]))


def test_endings(record, make_pod, workload) -> None:
    """After a crash I see the last calls and how it ended, also when the container and its pod are long gone."""
    agent, pod = record(), make_pod()
    ways = {
        "segfault": "SIGSEGV (139)",
        "exit3": "exited 3",
        "oom": "OOM killed",
        "read": "SIGKILL (137)",
    }
    for way in ways:
        files = {"/workload": workload("ends")}
        container = pod.container(way, "/workload", way, files=files, memory=(32 << 20) * (way == "oom"))
        if way == "read":
            wait_until(lambda: "read" in Path(f"/proc/{container.pid}/wchan").read_text() or  # noqa: B023
                       Path(f"/proc/{container.pid}/syscall").read_text().startswith("0 "), "the blocking read")  # noqa: B023  # fmt: skip
            shown = rf"now +\[workload {container.pid}\] read\(3, <unfinished \.\.\.>\) for \S+\n"
            wait_until(partial(tells, agent, way, shown), "the call")
            blocked = events(traceloop(agent, "show", "cart-0", "-c", way, "-o", "json"))[-1]
            assert (blocked["event"], blocked["tid"], blocked["args"]["fd"]) == ("blocked", container.pid, 3)
            os.kill(container.pid, signal.SIGKILL)
        ended(container)
        container.delete()
    pod.__exit__()
    found = states(agent)
    assert {way: found[way]["state"] for way in ways} == ways
    shown = {way: calls(traceloop(agent, "show", "cart-0", "-c", way, "-T")) for way in ways}
    for way, lines in shown.items():
        last = (
            "+++ exited with 3 +++"
            if way == "exit3"
            else f"+++ killed by {'SIGSEGV' if way == 'segfault' else 'SIGKILL'}"
        )
        assert lines[-1].startswith(last), (way, lines[-5:])
        print(*lines, sep="\n")
        assert any(line.startswith('write(1, "begin\\n", 6) = 6') for line in lines), way
        assert any(line.startswith('access("/etc/app.conf", R_OK) = -1 ENOENT (No such file') for line in lines)
        assert any(line.startswith('execve("/workload", ["/workload", "') for line in lines)
    assert shown["exit3"][-2].startswith("exit_group(3) = ?")
    assert "out of memory" in shown["oom"][-1]
    assert "--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0x10} ---" in shown["segfault"]
    read = re.fullmatch(r"read\(3, .*\) += \? ERESTARTSYS.* <(\d+\.\d+)>", shown["read"][-3])
    assert read and float(read[1]) > 0.25, shown["read"][-4:]
    # without a choice among containers that all crashed there is none to make
    done = run_cli("traceloop", "show", "cart-0", "--agent", agent.address)
    assert done.returncode == 2
    assert "is 4 containers: shop/cart-0/exit3, shop/cart-0/oom" in done.stderr


ADDRESS = re.compile(r"0x[0-9a-f]{5,}|\bNULL\b")


def test_like_strace(record, make_pod, workload, tmp_path: Path) -> None:
    """The last 500 calls of a program are those that strace shows of it, with names, results and texts."""
    agent = record()
    command = ["/workload", "varied", "30"]
    container = make_pod().container("app", *command, files={"/workload": workload("ends")})
    ended(container)
    trace = tmp_path / "trace"
    root = container.bundle / "rootfs"
    (root / "tmp/log").unlink()
    subprocess.run(["strace", "-f", "-o", trace, "chroot", root, *command], check=True)
    theirs = [re.sub(r"^\d+ +", "", line) for line in trace.read_text().splitlines()]
    ours = calls(traceloop(agent, "show", "cart-0"))
    assert len(theirs) > 500

    def plain(line: str) -> str:
        line = re.sub(r"\) += ", ") = ", line)
        line = re.sub(r"kill\(\d+", "kill(PID", re.sub(r"(getpid\(\)) = \d+", r"\1 = PID", line))
        line = re.sub(r"\{st_mode=.*?\}(?=[,)])", "0x7fff00000000", line)  # not copied: it says more than it helps
        return ADDRESS.sub("ADDRESS", line)

    assert list(map(plain, ours[-500:])) == list(map(plain, theirs[-500:]))


def test_threads(record, make_pod, workload) -> None:
    """Four threads at full speed: each thread's calls are in order, and none is missing without being counted."""
    agent = record()
    container = make_pod().container("app", "/workload", "threads", "300000", files={"/workload": workload("ends")})
    while container.running:  # readers at work do not matter
        traceloop(agent, "show", "cart-0", "--tail", "1")
    rows = events(traceloop(agent, "show", "cart-0", "-o", "json"))
    gaps = sum(row["count"] for row in rows if row["event"] == "gap")
    numbers: dict[int, list[int]] = {}
    for row in rows:
        if row.get("syscall") == "close":
            assert row["error"] == "EBADF"
            assert 1_000_000 <= row["args_raw"][0] < 1_300_000
            numbers.setdefault(row["tid"], []).append(row["args_raw"][0])
    missing = 0
    for found in numbers.values():
        steps = [after - before for before, after in pairwise(found)]
        assert min(steps, default=1) >= 1
        missing += sum(steps) - len(steps)
    assert missing <= gaps
    assert sum(map(len, numbers.values())) > 3900
    assert states(agent)["app"]["calls"] > 1_200_000


def test_five_hundred(record) -> None:
    """However many containers come and go, the recordings stay under their limit, and the newest are kept."""
    agent = record("--traceloop-memory", "16")
    for number in range(500):
        container = BareContainer("shop", f"cart-{number}")
        try:
            if number >= 480:
                container.run("/bin/true")
                wait_until(lambda: container.id[:12] in traceloop(agent, "list"), "its recording")  # noqa: B023
        finally:
            container.delete()
    kept = events(traceloop(agent, "list", "-o", "json"))
    room = (16 << 20) // 541_000
    assert len(kept) == room - room // 8  # of which some stand ready
    assert {item["pod"] for item in kept} >= {f"cart-{number}" for number in range(480, 500)}


def test_no_memory(record) -> None:
    """When the limit is reached by containers that run, a new one has no recording, and the list says so."""
    agent = record("--traceloop", "shop", "--traceloop-memory", "2")
    containers = [BareContainer("shop", f"cart-{number}") for number in range(4)]
    try:
        wait_until(lambda: len(events(traceloop(agent, "list", "-o", "json"))) == 4, "the list")
        found = [
            item["state"] for item in sorted(events(traceloop(agent, "list", "-o", "json")), key=lambda i: i["pod"])
        ]
        assert found == ["running"] * 3 + ["running, no memory to record it"]
        containers.pop(0).delete()
        wait_until(lambda: "no memory" not in traceloop(agent, "list"), "room for the fourth")
    finally:
        for container in containers:
            container.delete()


def test_second_agent(record, bpffs) -> None:
    """A second agent for the same recordings refuses to start, in one line, and begins nothing else either."""
    record()
    command = [AGENT, "--listen", "127.0.0.1:0", "--listen-local-users", "--bpffs", bpffs]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: another agent records in .*: one is enough for a machine", done.stderr.splitlines()[-1]
    )
    assert not (bpffs / "gadget/flows").exists()


def test_removed(record, make_pod, bpffs) -> None:
    """When traceloop is removed, as undeploy does, nothing stays behind: no program, no recording, no file."""
    agent = record()
    recording = programs_of(agent.process.pid) | pinned_programs(bpffs)
    ended(make_pod().container("app", "/bin/true"))
    with connect(agent.address) as channel:
        AgentStub(channel).End(EndRequest())
    assert not (bpffs / "gadget").exists()
    done = run_cli("traceloop", "list", "--agent", agent.address)
    assert done.stderr == "error: traceloop is off on node-a: it has been removed there\n"
    agent.stop()
    wait_until(lambda: not recording & bpf_programs(), "the end of the programs")


def test_two_readers(record, make_pod, workload) -> None:
    """Two who read at once see the same."""
    agent = record()
    container = make_pod().container("app", "/workload", "varied", "90", files={"/workload": workload("ends")})
    ended(container)
    command = ["traceloop", "show", "cart-0", "--agent", agent.address]
    both = [
        subprocess.Popen([str(Path(os.sys.executable).with_name("kubectl-gadget")), *command], stdout=subprocess.PIPE)
        for _ in range(2)
    ]  # type: ignore[attr-defined]
    first, second = (process.communicate()[0] for process in both)
    assert first == second
    assert first.count(b"\n") > 3000


def test_gone_meanwhile(record, make_pod, bpffs) -> None:
    """A recording that goes just when I list or read is missing from the list, or told in one line."""
    agent, pod = record("--traceloop", "shop"), make_pod()
    app, sidecar = (pod.container(name, "/bin/true") for name in ("app", "sidecar"))
    for container in (app, sidecar):
        ended(container)
    with connect(agent.address) as channel:
        stub = AgentStub(channel)
        listed = {item.container.id: item.container for item in stub.TraceloopList(TraceloopListRequest()).items}
        assert set(listed) == {app.id, sidecar.id}
        gone = listed[app.id]
        (pin,) = bpffs.glob(f"gadget/traceloop/*/ring-{gone.cgroup_id}")
        pin.unlink()
        assert set(states(agent)) == {"sidecar"}
        with pytest.raises(grpc.RpcError) as refused:
            list(stub.TraceloopRead(TraceloopReadRequest(cgroup_id=gone.cgroup_id)))
    assert refused.value.details() == "node-a has no recording of that container any more"


def test_whom(record, make_pod) -> None:
    """--traceloop with namespaces records those and no others."""
    agent = record("--traceloop", "web,db")
    for namespace in ("shop", "web"):
        ended(make_pod(namespace, f"{namespace}-0").container("app", "/bin/true"))
    assert [item["namespace"] for item in events(traceloop(agent, "list", "-o", "json"))] == ["web"]


def test_redact(record, make_pod) -> None:
    """What --redact matches never leaves the node, however it is cut up in the recording."""
    agent = record("--redact", "password=[^ ]+")
    script = f"echo {'x' * 30} password={'s3cret' * 20} end; cat /password=hunter2"
    ended(make_pod().container("app", "/bin/sh", "-c", script))
    shown = traceloop(agent, "show", "cart-0", "-o", "json") + traceloop(agent, "show", "cart-0")
    assert "s3cret" not in shown
    assert "hunter2" not in shown
    assert "**********" in shown


def test_choosing(record, make_pod, workload) -> None:
    """Of a pod's restarts I get the one that crashed; --previous, --instance and an id choose another; delete deletes."""
    agent, pod = record("--traceloop", "shop"), make_pod()
    made = []
    for way in ("exit3", "segfault", "true"):
        command = ["/bin/true"] if way == "true" else ["/workload", way]
        made.append(pod.container("app", *command, files={"/workload": workload("ends")}))
        ended(made[-1])
    assert "killed by SIGSEGV" in traceloop(agent, "show", "cart-0")
    assert "SIGSEGV" in traceloop(agent, "show", "shop/cart-0", "--previous")
    assert "exited with 3" in traceloop(agent, "show", "cart-0", "--instance", "3").splitlines()[-1]
    assert "exited with 0" in traceloop(agent, "show", made[2].id[:8]).splitlines()[-1]
    assert [line.split()[5:7] for line in traceloop(agent, "list").splitlines()[1:]] == [
        ["exited", "0"],
        ["SIGSEGV", "(139)"],
        ["exited", "3"],
    ]
    only = calls(traceloop(agent, "show", "cart-0", "--syscalls", "acc*,write", "--tail", "3"))
    assert [line.split("(")[0] for line in only] == [
        "access",
        "--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0x10} ---",
        "+++ killed by SIGSEGV +++",
    ]
    failed = calls(traceloop(agent, "show", "cart-0", "--failed"))
    assert all(" = -1 E" in line or " = ? ERESTART" in line or line.startswith("+++") for line in failed)
    (tid,) = {
        row["tid"] for row in events(traceloop(agent, "show", "cart-0", "-o", "json")) if row.get("signal") == "SIGSEGV"
    }
    head, *own = events(traceloop(agent, "show", "cart-0", "--pid", str(tid), "-o", "json"))
    assert (head["event"], head["state"], head["containerId"]) == ("head", "SIGSEGV (139)", made[1].id)
    assert {row["pid"] for row in own} == {tid} and len(own) > 10
    recent = events(traceloop(agent, "show", "cart-0", "--all", "--since", "1ms", "-o", "json"))
    assert 2 < len(recent) < len(events(traceloop(agent, "show", "cart-0", "--all", "-o", "json")))
    assert recent[-1]["event"] == "process_exit"
    done = run_cli("traceloop", "show", "card-0", "--agent", agent.address)
    assert (done.returncode, done.stderr) == (2, "error: no recording of 'card-0': there is cart-0\n")
    assert traceloop(agent, "delete", made[1].id[:12]) == f"deleted shop/cart-0/app {made[1].id[:12]} on node-a\n"
    assert "exited with 3" in traceloop(agent, "show", "cart-0")


def test_follow(record, make_pod, workload, start_cli, tmp_path: Path) -> None:
    """--follow goes on with new calls until the container ends."""
    agent = record()
    container = make_pod().container("app", "/workload", "steady", files={"/workload": workload("ends")})
    wait_until(lambda: "app" in states(agent), "the recording")
    command = ("traceloop", "show", "cart-0", "--follow", "--tail", "5", "-o", "json", "--agent", agent.address)
    with (tmp_path / "shown").open("w") as shown:
        cli = start_cli(*command, stdout=shown)
        wait_until(lambda: Path(shown.name).read_bytes().count(b'"close"') > 100, "new calls")
        os.kill(container.pid, signal.SIGKILL)
        ended(container)
        container.delete()
        assert cli.finish(0)[1] == ""
    rows = events(Path(shown.name).read_text())
    numbers = [row["args_raw"][0] for row in rows if row.get("syscall") == "close"]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert len(numbers) > 100
    assert (rows[-1]["event"], rows[-1]["signal"]) == ("process_exit", "SIGKILL")
