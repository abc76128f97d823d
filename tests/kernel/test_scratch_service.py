"""A service is a module: one that this test writes is at work, and is told of, like those that are packaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.bpf.bpffs import mount_bpffs
from tests.conftest import wait_until
from tests.kernel.scratch import copy_project, run

PROGRAM = """
#include "containers.h"
#include "drift.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} counted SEC(".maps");

SEC("tp_btf/sched_process_fork")
int BPF_PROG(fork_counted, struct task_struct *parent, struct task_struct *child)
{
	__u64 id = bpf_get_current_cgroup_id(), *count;
	__u32 zero = 0;

	if (find_container(current_cgroup(), &id) != INSIDE)
		return 0;
	count = bpf_map_lookup_elem(&counted, &zero);
	if (count)
		__sync_fetch_and_add(count, 1);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
"""
PROTO = """
syntax = "proto3";
package gadget.v1;

service Counts {
  rpc Count(CountRequest) returns (CountReply);
}

message CountRequest {}

message CountReply {
  uint64 forks = 1;
}
"""
SERVICE = '''
"""Counts the processes that containers start."""

import ctypes
import os
from dataclasses import dataclass
from functools import partial

from agent.bpf import libbpf
from agent.bpf.bpf_object import BpfObject
from agent.bpf.bpffs import open_pinned, remove
from agent.bpf.objects import read_object
from agent.persistence import PinnedFolder
from agent.service import Running, ServedCall, Service
from agent.settings import setting
from gadget._generated import counts_pb2, counts_pb2_grpc
from gadget.errors import Unsupported


@dataclass(frozen=True)
class Settings:
    on: bool = setting(False, "Count the processes that containers start.", option="--counts")
    word: str = setting("forks", "What they are called.", metavar="WORD")
    most: int = setting(1 << 20, "Up to where it counts.", unit="forks", least=10, option="")


class Off(Running):
    def describe(self):
        return "off: ask for it with --counts"


class Counts(Running):
    def __init__(self, context, settings):
        self._settings = settings
        self._kept = PinnedFolder(context.pins / "counts", b"1", remove)
        elf = read_object("counts")
        with BpfObject(elf, "counts") as programs:
            found = self._kept.adopt(programs, elf, context.tracker, {"counted": "counted"}, ["counted"])
            if not found.adopted:
                self._kept.load(programs)
                self._kept.attach(programs, programs.attach)
        self.programs = self._kept.programs
        self._fd = open_pinned(self._kept.folder / "counted")

    def _count(self):
        key, value = ctypes.c_uint32(0), ctypes.c_uint64()
        libbpf.check(libbpf.library().bpf_map_lookup_elem(self._fd, ctypes.byref(key), ctypes.byref(value)), "count")
        return value.value

    def describe(self):
        return f"{min(self._count(), self._settings.most)} {self._settings.word}"

    def losses(self):
        return {"beyond the most": max(0, self._count() - self._settings.most)}

    def register(self, server, answering):
        servicer = counts_pb2_grpc.CountsServicer()
        servicer.Count = answering(ServedCall("Count", self._answer))
        counts_pb2_grpc.add_CountsServicer_to_server(servicer, server)

    def _answer(self, request, active):
        if self._settings.word == "nothing":
            raise Unsupported("nothing is counted")
        return counts_pb2.CountReply(forks=self._count())

    def end(self):
        self._kept.end()

    def close(self):
        os.close(self._fd)
        self._kept.close()


SERVICE = Service("counts", Settings, Counts, lambda context, why_not: Off(),
                  is_on=lambda settings: settings.on, kept=True)
'''
ASK = """
import sys, grpc
from gadget._generated import counts_pb2, counts_pb2_grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    try:
        print(counts_pb2_grpc.CountsStub(channel).Count(counts_pb2.CountRequest(), timeout=10).forks)
    except grpc.RpcError as error:
        print(error.code().name, error.details())
"""
END = """
import sys, grpc
from gadget._generated import gadget_pb2 as pb, gadget_pb2_grpc as rpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    rpc.AgentStub(channel).End(pb.EndRequest(), timeout=10)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's sources with a new service."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    (folder / "bpf/counts").mkdir()
    (folder / "bpf/counts/counts.bpf.c").write_text(PROGRAM)
    (folder / "proto/gadget/v1/counts.proto").write_text(PROTO)
    (folder / "agent/services/counts.py").write_text(SERVICE)
    built = run(folder, str(folder / "hatch_build.py"))
    assert built.returncode == 0, built.stderr
    return folder


class Machine:
    """Where agents with that service run, one after the other."""

    def __init__(self, project: Path, folder: Path, bpffs: Path) -> None:
        self.project, self.bpffs, self.log = project, bpffs, folder / "log"
        self.address = f"unix://{folder}/agent.sock"
        self.state = folder / "state"

    @contextmanager
    def agent(self, *args: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """An agent that serves; it is killed in the end if it still runs."""
        command = [sys.executable, "-P", "-m", "agent", "--listen", self.address, "--bpffs", str(self.bpffs)]
        command += [
            "--state",
            str(self.state),
            "--runs",
            str(self.state / "none"),
            "--node",
            "node-a",
            "--no-flows",
            "--no-syscalls",
            "--traceloop",
            "off",
            *args,
        ]
        variables = {**os.environ, "PYTHONPATH": str(self.project), **environment}
        with (
            self.log.open("w") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=variables, cwd="/") as agent,
        ):
            try:
                assert agent.stdout
                assert agent.stdout.readline() == f"listening on {self.address}\n", self.log.read_text()
                yield agent
            finally:
                agent.kill()

    def python(self, *args: str) -> str:
        done = run(self.project, *args)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> dict[str, object]:
        """The row of `status`."""
        return json.loads(self.python("-m", "kubectl_gadget", "status", "-o", "json", "--agent", self.address))

    def pins(self) -> list[str]:
        """What is kept in bpffs."""
        return sorted(path.name for path in self.bpffs.glob("gadget/*"))


@pytest.fixture
def machine(project: Path, tmp_path: Path, bpffs: Path) -> Machine:
    mount_bpffs(bpffs)
    return Machine(project, tmp_path, bpffs)


def test_scratch_service(machine: Machine, bare) -> None:
    """I add a module to agent/services, with programs, methods and settings: its option, its section of --config, its column of `status` and its methods are there, it outlives an agent, and it ends with all others."""
    assert "--counts-word WORD" in machine.python("-m", "agent", "--help")
    container = bare()
    with machine.agent("--counts") as agent:

        def forked() -> bool:
            container.run("/bin/sh", "-c", "for each in 1 2 3 4 5 6 7 8 9 10 11 12 13; do (exit 0); done")
            return machine.status()["counts"] != "0 forks"

        wait_until(forked, "the first forks that are counted")
        count = int(machine.python("-c", ASK, machine.address))
        assert count >= 13
        assert [each for each in machine.status()["programs"] if each["object"] == "counts"]
        assert "COUNTS" in machine.python("-m", "kubectl_gadget", "status", "--agent", machine.address)
        agent.kill()
    with machine.agent(GADGET_COUNTS_ON="true", GADGET_COUNTS_WORD="processes", GADGET_COUNTS_MOST="11"):
        told = machine.status()
        assert told["counts"] == "11 processes"
        (own,) = [each for each in told["services"] if each["name"] == "counts"]
        assert own["losses"][0]["reason"] == "beyond the most" and own["losses"][0]["count"] >= count - 11
        assert any(name.startswith("containers-") for name in machine.pins()) and "counts" in machine.pins()
        machine.python("-c", END, machine.address)
        assert machine.pins() == []


def test_off(machine: Machine, tmp_path: Path) -> None:
    """A service that is off leaves nothing of what it recorded before, and an error of its methods reaches me as one."""
    config = tmp_path / "agent.toml"
    config.write_text('[counts]\non = true\nword = "nothing"\n')
    with machine.agent("--config", str(config)) as agent:
        assert machine.python("-c", ASK, machine.address) == "FAILED_PRECONDITION nothing is counted\n"
        agent.terminate()
        assert agent.wait(20) == 0
    assert "counts" in machine.pins()
    (machine.state / "counts").mkdir(0o700, parents=True)
    (machine.state / "counts/older").touch(0o600)
    with machine.agent():
        assert machine.status()["counts"] == "off: ask for it with --counts"
        assert machine.python("-c", ASK, machine.address).startswith("UNIMPLEMENTED")
        assert machine.pins() == []
        assert not (machine.state / "counts").exists()
    assert "counts: off: what was recorded is gone" in machine.log.read_text()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[counts]\nmost = 3", "[counts] most: 3 is too little: at least 10 forks"),
        ("[counts]\nleast = 3", "[counts] has no least: there are on, word, most"),
    ],
)
def test_bad_settings(text: str, said: str, project: Path, tmp_path: Path) -> None:
    """What makes no sense in the file is told in one line with the service's own names, and the agent does not start."""
    config = tmp_path / "agent.toml"
    config.write_text(text)
    done = run(project, "-m", "agent", "--config", str(config))
    assert (done.returncode, done.stderr) == (2, f"error: {config}: {said}\n")
