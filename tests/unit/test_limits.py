"""What an agent takes of its machine is bounded by what it is given."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from agent.answering import MAX_RUNS
from agent.bpf.bpf_object import BpfObject
from agent.bpf.objects import read_object
from agent.limits import MIB, RUN_BYTES, RunBudget, bytes_for_runs, memory_limit
from agent.run.events import RINGS
from agent.run.source import Loaded, LoadPlan
from agent.server import MAX_FILES
from gadget import catalog
from gadget.errors import Exhausted

REPOSITORY = Path(__file__).parents[2]
RECORDINGS = 128 * MIB  # --traceloop-memory, unless it is given


def manifest_limit() -> int:
    daemon_set = list(yaml.safe_load_all((REPOSITORY / "manifests/agent.yaml").read_text()))[-1]
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    return int(container["resources"]["limits"]["memory"].removesuffix("Mi")) * MIB


def unit_limit() -> int:
    unit = (REPOSITORY / "manifests/gadget-agent.service").read_text()
    return (
        int(
            next(line for line in unit.splitlines() if line.startswith("MemoryMax="))
            .removeprefix("MemoryMax=")
            .removesuffix("M")
        )
        * MIB
    )


@pytest.mark.parametrize("limit", [manifest_limit(), unit_limit()])
def test_all_runs_fit(limit: int) -> None:
    """As many runs as are allowed fit into the shipped memory limits, of any gadget with its own rings."""
    budget = RunBudget(bytes_for_runs(limit, RECORDINGS, 64 << 30))
    rings = []
    for gadget in catalog.load():
        with BpfObject(read_object(gadget), gadget) as program:
            rings.append(sum(program.resize(name, None) for name in RINGS if program.has_map(name)))
    for _ in range(MAX_RUNS):
        budget.take(max(rings))


def test_more_is_refused() -> None:
    """A run that does not fit is refused in one line that says memory, and fits once another has ended."""
    budget = RunBudget(40 * MIB, "node-a")
    for _ in range(2):
        budget.take(12 * MIB)
    with pytest.raises(Exhausted) as refused:
        budget.take(12 * MIB)
    assert str(refused.value) == (
        "36 of 40 MiB of memory for events are in use by 2 runs on node-a, and 18 more are asked for: "
        "end one, or ask for less with --buffer"
    )
    budget.give_back(12 * MIB)
    budget.take(12 * MIB)
    with pytest.raises(Exhausted, match="by 0 runs on node-b, and 2054 more are asked for: raise the agent's memory"):
        RunBudget(40 * MIB, "node-b").take(2 << 30)


def test_maps_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a gadget remembers in large maps counts as its rings do: `offcpu`, which keeps stacks of threads that wait."""
    for name in ("share", "preallocate", "load"):
        monkeypatch.setattr(BpfObject, name, lambda *_: None)

    def load(gadget: str) -> None:
        loaded = Loaded(LoadPlan(catalog.find(gadget), {}, -1, Path("/"), RunBudget(RUN_BYTES + 2 * MIB)))
        try:
            loaded.load(0)
        finally:
            loaded.close()

    load("cputop")
    with pytest.raises(Exhausted, match="memory for events"):
        load("offcpu")


def test_budget() -> None:
    """Runs take what the limit leaves beside recordings; without a limit a quarter of the machine, 1 GiB at most."""
    assert bytes_for_runs(512 * MIB, 128 * MIB, 4 << 30) == 304 * MIB
    assert bytes_for_runs(100 * MIB, 128 * MIB, 4 << 30) == 0
    assert bytes_for_runs(0, 128 * MIB, 2 << 30) == 512 * MIB
    assert bytes_for_runs(0, 128 * MIB, 64 << 30) == 1 << 30
    assert RUN_BYTES < 12 * MIB


#: What /proc/self/cgroup and mountinfo say, and the files that there are, for kubelets' and systemd's ways.
V2_HOST = ("0::/kubepods.slice/pod1.slice/cri-1.scope\n", "30 1 0:26 / {} rw - cgroup2 cgroup2 rw\n", "")
V2_OWN = ("0::/\n", "30 1 0:26 / {} rw - cgroup2 cgroup rw\n", "")
V1 = (
    "9:name=systemd:/\n4:cpu,memory:/kubepods/pod1/c1\n0::/\n",
    "30 1 0:26 /kubepods/pod1/c1 {} ro - cgroup cgroup ro,memory\n31 1 0:27 / /x rw - cgroup cgroup rw,cpu\n",
    "",
)


@pytest.mark.parametrize(
    ("said", "files", "limit"),
    [
        (V2_HOST, {"kubepods.slice/pod1.slice/cri-1.scope/memory.max": 512, "kubepods.slice/memory.max": 900}, 512),
        (V2_HOST, {"kubepods.slice/pod1.slice/cri-1.scope/memory.max": 512, "kubepods.slice/memory.max": 400}, 400),
        (V2_HOST, {}, 0),
        (V2_OWN, {"memory.max": 300}, 300),
        (V1, {"memory.limit_in_bytes": 256}, 256),
        (V1, {"memory.limit_in_bytes": (1 << 63) // MIB}, 0),  # what version 1 says where there is none
    ],
)
def test_limit_of_the_cgroup(tmp_path: Path, said: tuple[str, str, str], files: dict[str, int], limit: int) -> None:
    """The limit is that of the agent's own cgroup or of one around it, in version 1 and 2, in a namespace or not."""
    process, root = tmp_path / "process", tmp_path / "root"
    process.mkdir()
    (process / "cgroup").write_text(said[0])
    (process / "mountinfo").write_text(said[1].format("/cgroup"))
    (root / "cgroup" / "kubepods.slice" / "pod1.slice" / "cri-1.scope").mkdir(parents=True)
    for name, value in files.items():
        (root / "cgroup" / name).write_text(f"{value * MIB}\n")
    if said is V2_HOST and not files:
        (root / "cgroup/kubepods.slice/memory.max").write_text("max\n")
    assert memory_limit(process, root) == limit * MIB


@pytest.mark.parametrize(
    ("given", "has", "says"),
    [
        ("1024:8192", MAX_FILES, ""),
        ("8192:8192", 8192, ""),
        ("512:1024", 1024, f"1024 file descriptors where all runs at once need {MAX_FILES}: raise LimitNOFILE"),
    ],
)
def test_file_descriptors(given: str, has: int, says: str) -> None:
    """The agent takes the file descriptors that all runs need, and says so if it cannot have them."""
    raised = f"import resource; from agent.limits import raise_descriptors; print(raise_descriptors({MAX_FILES}), " \
             "resource.getrlimit(resource.RLIMIT_NOFILE)[0], sep='|')"  # fmt: skip
    drop = [] if os.geteuid() else ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]
    done = subprocess.run(["prlimit", f"--nofile={given}", *drop, sys.executable, "-c", raised],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert done.stdout == f"{says}|{has}\n"
