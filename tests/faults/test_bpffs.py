"""No bpffs, which recorders need."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.conftest import events, run_cli
from tests.faults.production import Producer, books, opens, stop

NO_MOUNT = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")


def test_no_bpffs(start_agent, workload, tmp_path: Path) -> None:
    """Bpffs is not there and cannot be mounted: the agent runs all the same, says why nothing is recorded wherever I ask
    for recordings, and streams lose nothing.
    """
    folder = tmp_path / "no-bpffs"
    agent = start_agent("--bpffs", str(folder), "--state", str(tmp_path / "state"), under=NO_MOUNT)
    why = f"no bpffs at {folder}, and it cannot be mounted: Operation not permitted"
    (status,) = events(run_cli("status", "--agent", agent.address, "-o", "json").stdout)
    assert (status["state"], status["traceloop"], status["flows"]) == ("ready", f"off: {why}", f"off: {why}")
    listed = run_cli("traceloop", "list", "--agent", agent.address)
    assert (listed.returncode, listed.stderr) == (1, f"error: traceloop is off on node-a: {why}\n")
    assert f"no recorder: {why}" in agent.log.read_text()
    with Producer(workload("produce")) as producer:
        cli = opens(tmp_path, agent, producer)
        producer.make(503)
        assert books(*stop(cli, signal.SIGINT)) == (list(range(503)), 0)
    mounted = subprocess.run(["findmnt", "-n", folder], capture_output=True, text=True, check=False)
    assert mounted.stdout == ""
