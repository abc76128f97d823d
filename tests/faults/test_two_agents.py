"""A second agent on a node where one records already."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import AGENT, events, run_cli, wait_until
from tests.faults.production import Producer
from tests.faults.test_agent import calls_of
from tests.kernel.flows import read, talk
from tests.loaded import bpf_programs, pinned_programs, programs_of


@pytest.mark.parametrize("options", [[], ["--traceloop", "off"], ["--no-flows"]], ids=["all", "flows", "traceloop"])
def test_second_agent(bpffs: Path, start_agent, pair, workload, tmp_path: Path, options: list[str]) -> None:
    """A second agent that would record what another records already refuses to start, in one line. The first goes on: of
    containers and connections that come after it, too, it misses nothing.
    """
    cart, _ = pair
    first = start_agent("--bpffs", str(bpffs), "--state", str(tmp_path / "state"))
    talk(cart, "ask", "tcp", "10.77.0.2", 8080, 3)

    def programs() -> set[int]:
        return (programs_of(first.process.pid) | pinned_programs(bpffs)) & bpf_programs()

    before = programs()
    command = [AGENT, "--listen", f"unix://{tmp_path}/second.sock", "--bpffs", bpffs, "--state", tmp_path / "second"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: another agent records in .*: one is enough for a machine", done.stderr.splitlines()[-1]
    )
    wait_until(lambda: programs() == before, "the second one's programs to be gone, and the first one's there")
    talk(cart, "ask", "tcp", "10.77.0.2", 8080, 5)
    (flow,) = (each for each in read(first) if each.port == 8080)
    assert flow.count == flow.failed == 3 + 5
    with Producer(workload("produce")) as producer:
        wait_until(producer.waits, "the end of its last system call")
        before, commands = calls_of(first, producer.namespace), producer.commands
        producer.make(503)
        wait_until(producer.waits, "the end of its last system call")
        assert calls_of(first, producer.namespace) - before == 503 + 2 * (producer.commands - commands)
        (listed,) = events(
            run_cli("containers", "-n", producer.namespace, "-o", "json", "--agent", first.address).stdout
        )
        assert (listed["pod"], listed["state"]) == ("cart-0", "running")
