"""traceloop on one machine without Kubernetes: --local against the agent that runs there, for containers without pods."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import AGENT, CLI, Agent, events, wait_until
from tests.pods import UNIFIED, remove_cgroups

ROOT = Path(__file__).parents[2]


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A host's root that is this one's, but for what docker knows of its containers."""
    root = tmp_path / "root"
    root.mkdir()
    for name in ("proc", "sys"):
        (root / name).symlink_to(f"/{name}")
    return root


@contextmanager
def docker_container(host: Path, name: str) -> Iterator[str]:
    """A container as docker makes one, without docker: its cgroup, and the file with its name. Gives its id."""
    container = secrets.token_hex(32)
    notes = host / "var/lib/docker/containers" / container / "config.v2.json"
    notes.parent.mkdir(parents=True)
    notes.write_text(json.dumps({"Name": f"/{name}"}))
    (UNIFIED / "docker" / container).mkdir(parents=True)
    try:
        yield container
    finally:
        wait_until(lambda: "populated 0" in (UNIFIED / "docker" / container / "cgroup.events").read_text(), "its end")
        remove_cgroups(f"docker/{container}")


def local(agent: Agent, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run kubectl-gadget traceloop --local where the agent's socket is where that of a machine's agent is."""
    (folder / "run/gadget").mkdir(parents=True, exist_ok=True)
    mounts = f"mount --bind {folder}/run /run && mount --bind {agent.log.parent} /run/gadget"
    command = ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$0" "$@"', CLI, "traceloop", *args, "--local"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_containers_without_pods(bpffs: Path, start_agent: Callable[..., Agent], host: Path, tmp_path: Path) -> None:
    """--local asks the agent that runs here, and a docker container is found by its name and by its id, also when gone."""
    state = str(tmp_path / "state")
    agent = start_agent("--no-flows", "--bpffs", str(bpffs), "--state", state, "--host-root", str(host))
    with docker_container(host, "db") as container, docker_container(host, "cache") as other:

        def own() -> dict[str, dict[str, Any]]:  # others' containers may be there, too
            listed = events(local(agent, tmp_path, "list", "-o", "json").stdout)
            return {row["containerId"]: row for row in listed if row["containerId"] in (container, other)}

        wait_until(lambda: len(own()) == 2, "both")
        script = f'echo 0 > {UNIFIED}/docker/{container}/cgroup.procs && exec "$0" "$@"'
        subprocess.run(["sh", "-c", script, "/bin/cat", "/no such file"], check=False, stderr=subprocess.DEVNULL)
    wait_until(lambda: all(row["state"] != "running" for row in own().values()), "the end of both")
    found = own()
    assert (found[container]["pod"], found[container]["container"], found[container]["state"]) == (
        None,
        "db",
        "exited 1",
    )
    for name in ("db", container, container[:8]):
        shown = local(agent, tmp_path, "show", name).stdout.splitlines()
        assert re.fullmatch(rf"# db {container[:12]} on node-a: exited 1 at .*", shown[0]), name
        assert any('openat(AT_FDCWD, "/no such file", O_RDONLY' in line for line in shown), name
        assert shown[-1].endswith("+++ exited with 1 +++")
    done = local(agent, tmp_path, "show", "dc")
    assert done.returncode == 2
    assert re.fullmatch(r"error: no recording of 'dc': there is (\w+, )*cache, db(, \w+)*\n", done.stderr)
    assert local(agent, tmp_path, "delete", "db").stdout == f"deleted db {container[:12]} on node-a\n"
    assert list(own()) == [other]


def test_command_line_gone_early(tmp_path: Path) -> None:
    """A command line with --local that is killed while its agent starts leaves no folder behind."""
    folder = tmp_path / "gadget-of-one-command"
    command = [AGENT, "--listen", f"unix://{folder}/agent.sock", "--end-with-stdin", "--log-level", "error"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as agent:
        assert agent.stdout
        agent.stdout.close()  # as of a process that has ended: nobody hears that it listens
        agent.wait(60)
    assert not folder.exists()


def test_unit_file(tmp_path: Path) -> None:
    """The systemd unit that starts the agent of such a machine is one that systemd takes."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    unit = tmp_path / "gadget-agent.service"
    text = (ROOT / "manifests/gadget-agent.service").read_text()
    assert "ExecStart=/usr/local/bin/gadget-agent\n" in text
    unit.write_text(text.replace("/usr/local/bin/gadget-agent", str(AGENT)))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False,
                          env=os.environ | {"SYSTEMD_COLORS": "0"})  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("NoNewPrivileges", "NoNewPrivilege"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "NoNewPrivilege" in done.stderr
