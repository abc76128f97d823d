"""Other users of the machine can neither use the agent nor lead it astray."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from gadget import catalog
from tests.conftest import AGENT, Agent, run_cli

ROOT = Path(__file__).parents[2]
NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]


@pytest.fixture
def open_bpffs(tmp_path: Path) -> Iterator[Path]:
    """A bpffs as `mount -t bpf` makes it: everybody may make folders and links in it."""
    folder = Path("/tmp") / f"gadget-test-bpf-{os.getpid()}"
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
    assert folder.stat().st_mode & 0o7777 == 0o1777
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


def start_in(start_agent, bpffs: Path, *args: str) -> Agent:
    return start_agent("--bpffs", str(bpffs), "--state", str(bpffs.parent / "gadget-no-state"), *args)


@pytest.mark.parametrize("how", ["link", "link below", "folder"])
def test_traps_in_bpffs(start_agent, open_bpffs, tmp_path, how) -> None:
    """Where another user has put a link or a folder where the agent keeps its own, nothing is removed, and it records nothing."""
    precious = tmp_path / "precious"
    for name in ("traceloop", "flows"):
        (precious / name).mkdir(parents=True)
        (precious / name / "file").write_text("data")
    gadget = open_bpffs / "gadget"
    traps = {
        "link": f"ln -s {precious} {gadget}",
        "link below": f"mkdir -m 777 {gadget} && ln -s {precious} {gadget}/traceloop && ln -s {precious} {gadget}/flows",
        "folder": f"mkdir -m 755 {gadget} && mkdir {gadget}/traceloop",
    }
    subprocess.run([*AS_NOBODY, "sh", "-c", traps[how]], check=True)
    for recorders in (
        ("--traceloop", "off", "--no-flows", "--no-syscalls"),
        (),
        (
            "--no-flows",
            "--no-syscalls",
        ),
    ):
        agent = start_in(start_agent, open_bpffs, *recorders)
        agent.stop()
        said = agent.log.read_text()
        assert "is a link or a file that is not the agent's" in said or f"of user {NOBODY}" in said
        assert len(list(precious.glob("*/file"))) == 2


def test_port_of_this_machine(tmp_path) -> None:
    """A port that every user of this machine can reach is refused, with what to do instead, unless it is asked for."""
    command = [
        AGENT,
        "--listen",
        "127.0.0.1:0",
        "--bpffs",
        tmp_path / "none",
        "--traceloop",
        "off",
        "--no-flows",
        "--no-syscalls",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: --listen 127.0.0.1:0: every user .* add --listen-local-users if .*\n", done.stderr)
    with subprocess.Popen([*command, "--listen-local-users"], stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout
        assert agent.stdout.readline().startswith("listening on")
        agent.terminate()


def test_socket_of_root(agent) -> None:
    """Other users cannot connect to the agent's socket, even where they can see it."""
    path = Path(agent.address.removeprefix("unix://"))
    assert path.stat().st_mode & 0o777 == 0o600
    with closing(socket.socket(socket.AF_UNIX)) as mine:
        mine.connect(str(path))


def test_least_privilege(tmp_path) -> None:
    """With the rights that --least-privilege gives an agent, and no others, every gadget runs on this kernel."""
    added = yaml.safe_load((ROOT / "manifests/least-privilege.yaml").read_text())["capabilities"]["add"]
    rights = ",".join(["-all", *(f"+{name.lower()}" for name in added)])
    agent = Agent(tmp_path, under=["setpriv", f"--bounding-set={rights}", "--inh-caps=-all", "--"])
    try:
        for gadget in catalog.load():
            done = run_cli(gadget, "--agent", agent.address, "--timeout", "1s")
            assert done.returncode == 0 and "nothing lost" in done.stderr, done.stderr
    finally:
        agent.stop()


def test_without_rights(tmp_path) -> None:
    """An agent that lacks rights says which, and for what, and leaves nothing behind."""
    others = tmp_path / "state"  # as an agent of root leaves it
    others.mkdir(mode=0o700)
    for command in (AS_NOBODY, ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"]):
        done = subprocess.run([*command, AGENT, "--listen", f"unix://{tmp_path}/x/agent.sock", "--state", others],
                              capture_output=True, text=True, timeout=30, check=False)  # fmt: skip
        assert done.stderr == (
            "error: the agent lacks CAP_BPF (loads programs), CAP_PERFMON (attaches them), "
            "CAP_DAC_READ_SEARCH (finds the cgroup of an event): run it as root\n"
        )
        assert done.returncode == 77
    assert not (tmp_path / "x").exists()
