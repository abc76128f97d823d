"""The shipped unit starts an agent that records, with no more rights than it says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from agent.bpf.bpffs import mount_bpffs
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from tests.conftest import AGENT, bpf_programs, run_cli, wait_until
from tests.systemd import APPLY, LEFT_OUT, read_unit

REPOSITORY = Path(__file__).parents[2]
PROFILE = REPOSITORY / "manifests/seccomp.json"
UNIT = REPOSITORY / "manifests/gadget-agent.service"
#: A machine's folders of the service, empty, and bpffs as it is mounted at boot or not at all.
MOUNTS = "mount -t tmpfs -o mode=755 none /var/lib && mount -t tmpfs -o mode=755 none /run"
BPFFS = {"mounted": "mount -t bpf -o mode=700 none /sys/fs/bpf", "not mounted": "mount -t tmpfs none /sys/fs/bpf"}


@pytest.fixture(params=BPFFS)
def machine(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """A command that runs others where these folders are another machine's; with it goes all that was pinned."""
    before = bpf_programs()
    script = f"{MOUNTS} && {BPFFS[request.param]} && echo ready && exec sleep 600"
    with subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "ready\n"
        try:
            yield ["nsenter", "-m", "-t", str(holder.pid), f"--wd={REPOSITORY}", "--"]
        finally:
            holder.kill()
    wait_until(lambda: bpf_programs() <= before, "the end of all programs")


@contextmanager
def service(machine: list[str], log: Path) -> Iterator[Path]:
    """The service, as the path of what it sees as /."""
    command = [*machine, sys.executable, "-m", "tests.systemd", UNIT, AGENT]
    with log.open("w") as said, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as agent:
        try:
            assert agent.stdout
            assert agent.stdout.readline() == "listening on unix:///run/gadget/agent.sock\n", log.read_text()
            yield Path(f"/proc/{agent.pid}/root")
            agent.terminate()
            assert agent.wait(20) == 0, log.read_text()
        finally:
            agent.kill()


def test_service(machine, tmp_path) -> None:
    """The unit's agent starts, records and runs gadgets, alone may be reached by root, and goes on after a restart."""
    for time in ("first", "second"):
        log = tmp_path / f"{time}.log"
        with service(machine, log) as root:
            with grpc.insecure_channel(f"unix://{root}/run/gadget/agent.sock") as channel:
                agent = rpc.AgentStub(channel)
                about = agent.Describe(pb.DescribeRequest(), timeout=10)
                assert "off" not in about.traceloop + about.flows and "no UDP" not in about.flows, about
                start = iter([pb.RunRequest(start=pb.Start(gadget="execsnoop"))])
                assert next(agent.Run(start, timeout=10)).HasField("started")
            modes = {path: (root / path).stat().st_mode & 0o7777 for path in
                     ("run/gadget", "run/gadget/agent.sock", "var/lib/gadget", "sys/fs/bpf/gadget")}  # fmt: skip
            assert modes == {**dict.fromkeys(modes, 0o700), "run/gadget/agent.sock": 0o600}
        assert ("adopted" in log.read_text()) is (time == "second")


def test_directives() -> None:
    """Every directive of the unit is applied by the test above, or is named as one that makes no difference there."""
    assert read_unit(UNIT).keys() <= APPLY.keys() | LEFT_OUT


def test_seccomp_profile(start_agent, make_pod, bpffs, tmp_path) -> None:
    """With the shipped seccomp profile every gadget and every recorder works."""
    mount_bpffs(bpffs)
    under = [sys.executable, "-m", "tests.seccomp", str(PROFILE)]
    all_of_it = ["--bpffs", str(bpffs), "--state", str(tmp_path / "state"), "--syscalls", "--observe", "--flows-names"]
    agent = start_agent(*all_of_it, "--metrics", "127.0.0.1:0", under=under)
    for gadget in catalog.load():
        done = run_cli(gadget, "--agent", agent.address, "--timeout", "300ms")
        assert done.returncode == 0, done.stderr
    container = make_pod("shop", "cart-0").container("app", "/bin/sh", "-c", "/bin/true")
    container.wait()
    for command in (["traceloop", "show", "cart-0", "-n", "shop"], ["containers", "-A"], ["status"]):
        done = run_cli(*command, "--agent", agent.address)
        assert done.returncode == 0, done.stderr
    assert "off" not in run_cli("status", "--agent", agent.address).stdout
    assert "not permitted" not in agent.log.read_text()
    assert agent.stop() == 0
