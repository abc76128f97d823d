"""The recorder of system calls of an agent: what each workload called, whatever happened to agents and containers."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gadget import syscalls
from gadget._generated import gadget_pb2 as pb
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget.agents.client import connect
from tests.conftest import Agent, run_cli, wait_until
from tests.loaded import bpf_programs, pinned_programs

#: Of our own: other pods may run on this machine.
NAMESPACE = "calls"
#: What runc does before it starts a program, and a shell never does.
OF_RUNC = {"mount", "pivot_root", "umount2", "sethostname", "setns", "unshare", "capset"}


@pytest.fixture
def record(bpffs: Path, start_agent: Callable[..., Agent], tmp_path: Path) -> Callable[..., Agent]:
    """Starts agents that record system calls in a bpffs of their own."""
    usual = (
        "--syscalls",
        "--traceloop",
        "off",
        "--no-flows",
        "--bpffs",
        str(bpffs),
        "--state",
        str(tmp_path / "state"),
    )
    return lambda *args: start_agent(*usual, "--set", "syscalls.care-seconds=0.1", *args)


def ask(agent: Agent) -> tuple[pb.SyscallsHead, dict[str, pb.WorkloadCalls]]:
    """What an agent tells of the workloads of this test."""
    with connect(agent.address) as channel:
        replies = list(AgentStub(channel).Syscalls(pb.SyscallsRequest()))
    found = {each.workload: each for reply in replies for each in reply.workloads if each.namespace == NAMESPACE}
    return replies[0].head, found


def names(calls: bytes) -> set[str]:
    bits = int.from_bytes(calls, "little")
    return {call.name for number, call in syscalls.table("x86_64").items() if bits >> number & 1}


def seen(agent: Agent, workload: str) -> set[str]:
    found = ask(agent)[1]
    return names(found[workload].calls) if workload in found else set()


def advise(agent: Agent, *args: str) -> subprocess.CompletedProcess[str]:
    return run_cli("advise", "seccomp-profile", *args, "--agent", agent.address, "-n", NAMESPACE)


def test_calls_of_a_container(record, make_pod) -> None:
    """Every call of a container is there from its first one on, and none of those that the runtime makes before."""
    agent = record()
    cart = make_pod(NAMESPACE).container("app", "/bin/sh", "-c", "cd /tmp; : > made; exec sleep 600")
    wait_until(lambda: "clock_nanosleep" in seen(agent, "Pod/cart-0"), "its calls")
    found = seen(agent, "Pod/cart-0")
    assert {"brk", "chdir", "execve", "openat"} <= found and not found & (OF_RUNC | {"mkdir"})
    cart.exec("/bin/busybox", "mkdir", "/tmp/new")
    found = seen(agent, "Pod/cart-0")
    assert "mkdir" in found and not found & OF_RUNC


def test_agent_killed(record, make_pod) -> None:
    """While the agent is dead recording goes on, and the next knows what containers called that are gone meanwhile."""
    agent = record()
    cart = make_pod(NAMESPACE).container("app", "/bin/sh", "-c", "cd /tmp; exec sleep 600")
    wait_until(lambda: "clock_nanosleep" in seen(agent, "Pod/cart-0"), "its calls")
    began = ask(agent)[0].began_ns
    agent.stop(signal.SIGKILL)
    cart.exec("/bin/busybox", "mkdir", "/tmp/new")
    cart.delete()
    agent = record()
    head, found = ask(agent)
    assert head.began_ns == began
    (calls,) = found.values()
    assert {"mkdir", "chdir", "clock_nanosleep"} <= names(calls.calls)
    assert (calls.containers, calls.older) == (1, 0)


def test_replicas(record, make_pod) -> None:
    """Replicas and restarts are one workload, with the calls of each."""
    agent = record()
    for pod, applet in (("cart-6c9f7d8b9c-x2x4z", "mkdir"), ("cart-6c9f7d8b9c-b5wzz", "rmdir")):
        made = make_pod(NAMESPACE, pod).container("app", "/bin/busybox", applet, "/tmp/new")
        made.wait()
    wait_until(lambda: {"mkdir", "rmdir"} <= seen(agent, "Deployment/cart"), "the calls of both")
    assert ask(agent)[1]["Deployment/cart"].containers == 2


@pytest.mark.parametrize("hardened", [False, True], ids=["as root", "hardened"])
def test_profile(record, make_pod, tmp_path: Path, hardened: bool) -> None:
    """With the advised profile runc runs the same workload to its end, and a call that it never made is refused."""
    agent = record()
    script = "cd /dev/shm; : > made; cat made; ls /bin; [ -z $MORE ] || busybox mkdir more && sleep 0.01"
    workload = ("/bin/sh", "-c", script)

    def change(config: dict[str, Any]) -> None:
        config["process"]["noNewPrivileges"] = hardened
        if hardened:
            config["process"]["user"] = {"uid": 1000, "gid": 1000}

    make_pod(NAMESPACE, "cart-0").container("app", *workload, change=change).wait()
    wait_until(lambda: "clock_nanosleep" in seen(agent, "Pod/cart-0"), "its last call")
    done = advise(agent, "-w", "cart-0")
    assert done.returncode == 0, done.stderr
    profile = json.loads(done.stdout)
    ruled = make_pod(NAMESPACE, "cart-1")

    def run(*more: str) -> str:
        def with_profile(config: dict[str, Any]) -> None:
            change(config)
            config["process"]["env"] += more
            config["linux"]["seccomp"] = profile

        container = ruled.container(f"app{len(more)}", *workload, change=with_profile)
        container.wait()
        state = json.loads(subprocess.run(["runc", "state", container.id], capture_output=True, check=True).stdout)
        assert state["status"] == "stopped"
        return container.log.read_text()

    assert run().split() == ["busybox", "cat", "ls", "sh", "sleep", "true"]
    assert "mkdir: can't create directory 'more': Operation not permitted" in run("MORE=1")

    file = tmp_path / "profile.json"
    file.write_text(done.stdout)
    assert advise(agent, "check", "-f", str(file), "-w", "cart-0").returncode == 0
    judged = advise(agent, "check", "-f", str(file), "-w", "cart-1", "-c", "app1")
    assert judged.returncode == 0, judged.stdout  # what was refused did not happen
    assert advise(agent, "diff", "-f", str(file), "-w", "cart-0").returncode == 0


def test_began_before(record, make_pod) -> None:
    """Of a container that began before its calls were recorded I am told so."""
    cart = make_pod(NAMESPACE).container("app", "/bin/sh", "-c", "cd /tmp; while :; do sleep 0.01; done")
    wait_until(lambda: cart.running, "the container")
    agent = record()
    wait_until(lambda: "clock_nanosleep" in seen(agent, "Pod/cart-0"), "its calls")
    assert "chdir" not in seen(agent, "Pod/cart-0")
    assert f"warning: {NAMESPACE}/cart-0 (app): it began before calls were recorded" in advise(agent).stderr


def test_32_bit_programs(record, make_pod, workload) -> None:
    """32-bit calls are told apart, and the profile names their architecture: with it runc runs them, without it kills."""
    if platform.machine() != "x86_64":
        pytest.skip("its calls are x86's")
    binary = workload("compat")
    if subprocess.run([binary], check=False).returncode == -signal.SIGSEGV:
        pytest.skip("this kernel emulates no 32-bit calls (CONFIG_IA32_EMULATION)")
    agent = record()

    def run(pod: str, profile: dict[str, Any] | None) -> str:
        def change(config: dict[str, Any]) -> None:
            if profile:
                config["linux"]["seccomp"] = profile

        program = ("/bin/sh", "-c", "/workload && echo done")
        made = make_pod(NAMESPACE, pod).container("app", *program, files={"/workload": binary}, change=change)
        made.wait()
        return made.log.read_text()

    assert run("cart-0", None) == "done\n"
    wait_until(lambda: "32-bit programs called, too" in advise(agent).stderr, "its calls")
    profile = json.loads(advise(agent).stdout)
    assert profile["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert run("cart-1", profile) == "done\n"
    assert run("cart-2", profile | {"architectures": ["SCMP_ARCH_X86_64"]}) != "done\n"


def test_more_containers_than_there_is_room_for(record, bare) -> None:
    """Containers beyond the limit are counted as lost, and told."""
    agent = record("--syscalls-limit", "16", "--set", "syscalls.care-seconds=60")
    for number in range(23):
        bare(NAMESPACE, f"cart-{number}").run("/bin/true")
    told = wait_until(lambda: {each.reason: each.count for each in ask(agent)[0].losses}, "losses")
    assert told["calls of containers beyond the limit"] >= 7
    assert "calls of containers beyond the limit" in advise(agent).stderr


def test_off(record, start_agent, bpffs: Path, tmp_path: Path) -> None:
    """After a restart with --no-syscalls nothing is recorded any more, and nothing is pinned."""
    record().stop()
    recording = pinned_programs(bpffs)
    assert len(recording) == 5
    start_agent("--bpffs", str(bpffs), "--traceloop", "off", "--no-flows", "--no-syscalls").stop()
    assert not (bpffs / "gadget").exists()
    wait_until(lambda: not recording & bpf_programs(), "the end of the programs")
