"""What programs cost where they have nothing to say, as the kernel itself counts (kernel.bpf_stats_enabled)."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import Plan, Result
from tests.conftest import CLI, wait_until
from tests.loaded import bpf_programs
from tests.pods import Pod

STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
EXECS = 3000
SCRIPT = f"n=0; while [ $n -lt {EXECS} ]; do /bin/true; n=$((n+1)); done; echo done; exec /bin/sleep 60"


@contextmanager
def statistics() -> Iterator[None]:
    """The kernel counts what programs cost."""
    before = STATS.read_text()
    STATS.write_text("1")
    try:
        yield
    finally:
        STATS.write_text(before)


def _nanoseconds(name: str) -> float:
    """Per run of one program of an execsnoop that chose another namespace, while a container starts programs."""
    before = bpf_programs()
    command = [str(CLI), "execsnoop", "--local", "-n", "elsewhere"]
    with tempfile.TemporaryDirectory() as folder, statistics(), Pod(Path(folder), "shop", "cart-0") as pod:
        watching = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert watching.stdout
        watching.stdout.readline()  # the header: everything is attached
        container = pod.container("app", "/bin/sh", "-c", SCRIPT)
        wait_until(lambda: "done" in container.log.read_text(), "the execs", 60)
        shown = json.loads(subprocess.run(["bpftool", "-j", "prog"], capture_output=True, check=True).stdout)
        watching.terminate()
        watching.wait()
    (program,) = [item for item in shown if item["id"] not in before and item.get("name") == name]
    return float(program["run_time_ns"] / program["run_cnt"])


def exec_not_chosen(plan: Plan) -> Result:
    """A successful exec in a container that is not chosen."""
    return "ns", [_nanoseconds("exec_success") for _ in range(plan.rounds)]


def syscall_beside_execsnoop(plan: Plan) -> Result:
    """Any system call of the machine, while execsnoop looks for execs that fail: who wants the call is looked up."""
    return "ns", [_nanoseconds("call_returned") for _ in range(plan.rounds)]
