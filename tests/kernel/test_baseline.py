"""A real container is learnt of, and then its baseline alerts on what it did not do before."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from gadget._generated import gadget_pb2 as pb
from gadget._generated.gadget_pb2_grpc import AgentStub
from gadget.rules import baseline
from gadget.rules.baseline import BaselineSubject
from gadget.rules.seen import FILES, PEERS, PORTS, PROGRAMS
from kubectl_gadget.agents.client import connect
from tests.conftest import Agent, Cli, wait_until
from tests.pods import BUSYBOX, Container, Pod


def inside(container: Container, *lines: str) -> None:
    """Run commands of a shell, which may fail."""
    for line in lines:
        command = ["runc", "exec", container.id, "/bin/sh", "-c", line]
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        )


def runs(agent: Agent) -> set[int]:
    """When each run of detect began that there is."""
    with connect(agent.address) as channel:
        described = AgentStub(channel).Describe(pb.DescribeRequest(), timeout=20)
    return {run.started_ns for run in described.runs if run.gadget == "detect"}


def test_drift(
    start_agent: Callable[..., Agent], start_cli: Callable[..., Cli], make_pod: Callable[..., Pod], tmp_path: Path
) -> None:
    """What was learnt of a container is silent, also after a restart; another program, port, file or peer is an alert."""
    agent, file = start_agent(), tmp_path / "shop.yaml"

    def watching(*args: str) -> Cli:
        before = runs(agent)
        cli = start_cli("detect", *args, "-n", "shop", "--agent", agent.address)
        wait_until(lambda: runs(agent) - before, "that the agent is at work")
        return cli

    files = {f"/bin/{name}": BUSYBOX for name in ("nc", "id")}
    usual = ("/bin/nc 127.0.0.1 3333", "echo x > /etc/y", "sleep 0; cat /etc/y")
    web = make_pod("shop", "web-0").container("web", "sleep", "1000", files=files)
    cli = watching("learn", "-o", str(file))
    inside(web, *usual)
    _, told = cli.finish()
    assert "from 1 node, 1 container" in told and told.endswith(f"1 workload in {file}\n"), told
    who = BaselineSubject("shop", "Pod/web-0", "web", "")
    assert baseline.read(file.read_text(), "f")[who].values == {
        PROGRAMS: ["/bin/busybox", "/bin/nc"], FILES: ["/etc/y"], PORTS: [], PEERS: ["127.0.0.1"],
    }  # fmt: skip

    cli = watching("--baseline", str(file))
    inside(web, *usual)
    again = make_pod("shop", "web-0").container("web", "sh", "-c", "cat /etc/y; exec sleep 1000", files=files)
    wait_until(lambda: Path(f"/proc/{again.pid}/comm").read_text() == "sleep\n", "its last program")
    out, told = cli.finish()
    assert not out and told.startswith("0 alerts of "), (out, told)

    cli = watching("--baseline", str(file))
    inside(web, "/bin/id", "timeout 1 /bin/nc -l -p 4444", "/bin/nc 127.0.0.2 3333", "cp /etc/y /etc/z")
    out, _ = cli.finish()
    titles = [line.split("(web)  ")[1].partition(" that")[0] for line in out.splitlines()]
    assert titles == ["Program", "Port", "Peer", "File written"], out
    for shown in ("program=/bin/id", "port=4444", "peer=127.0.0.2", "file=/etc/z"):
        assert shown in out
