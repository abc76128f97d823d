"""Machines that cannot be traced say why."""

from __future__ import annotations

import subprocess

import pytest

from tests.conftest import AGENT, CLI, run_cli


def test_no_root() -> None:
    """Without privileges --local says which it needs, in one line."""
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--", CLI, "execsnoop", "--local"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.stderr == "error: --local needs root (CAP_BPF, CAP_PERFMON): run it with sudo\n"
    assert done.returncode == 1


def test_no_btf() -> None:
    """On a kernel without BTF I am told that this machine cannot be traced."""
    hide = 'mount -t tmpfs none /sys/kernel/btf && exec "$0" execsnoop --local'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", hide, CLI], capture_output=True, text=True, timeout=30, check=False
    )
    assert "has no BTF (/sys/kernel/btf/vmlinux): this machine cannot be traced" in done.stderr
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_no_cgroup2() -> None:
    """On a machine without cgroup2 I am told how to mount it."""
    hide = 'mount -t tmpfs none /sys/fs/cgroup && exec "$0" execsnoop --local'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", hide, CLI], capture_output=True, text=True, timeout=30, check=False
    )
    assert "no cgroup2 at" in done.stderr
    assert "mount -t cgroup2" in done.stderr
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def test_agent_listens_on_loopback_only() -> None:
    """The agent refuses an address that others can reach, unless told otherwise."""
    done = subprocess.run([AGENT, "--listen", "0.0.0.0:0"], capture_output=True, text=True, timeout=30, check=False)
    assert "not a loopback address" in done.stderr
    assert done.returncode == 2


def test_second_agent(agent) -> None:
    """A second agent on the same socket refuses, and the first goes on."""
    done = subprocess.run([AGENT, "--listen", agent.address], capture_output=True, text=True, timeout=30, check=False)
    assert "already" in done.stderr
    assert done.returncode == 1
    assert run_cli("execsnoop", "--agent", agent.address, "--timeout", "200ms").returncode == 0


def test_unknown_parameter(agent) -> None:
    """An agent that does not know a parameter says which it knows."""
    import grpc

    from gadget._generated import gadget_pb2 as pb
    from gadget._generated import gadget_pb2_grpc as rpc

    with grpc.insecure_channel(agent.address) as channel:
        for start, says in (
            (pb.Start(gadget="execsnoop", parameters={"colour": "red"}), "no parameter 'colour': it has pid"),
            (pb.Start(gadget="nope"), "unknown gadget 'nope'"),
            (pb.Start(gadget="execsnoop", parameters={"pid": "x"}), "not a pid"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                list(rpc.AgentStub(channel).Run(iter([pb.RunRequest(start=start)])))
            assert says in caught.value.details()
