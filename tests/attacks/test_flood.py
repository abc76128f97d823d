"""A container that makes more cgroups than anybody needs, or makes and removes them all the time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.beside import beside, calls_of, is_well, pods_of, recordings
from tests.attacks.conftest import finish
from tests.attacks.test_cgroups import recorded, watch
from tests.conftest import Agent, events, run_cli, wait_until
from tests.faults.production import Producer, lost_in
from tests.pods import UNIFIED, Container, run_in

#: CI's; by hand ATTACK_SECONDS=300.
SECONDS = int(os.environ.get("ATTACK_SECONDS", "10"))
#: Of one CPU, on average.
MOST_CORES = 0.5
#: An agent's own memory at any moment: the manifest's limit is 512 MiB, which maps and rings share.
MOST_BYTES = 160 << 20
#: More than any table of cgroups or rings has had room for.
MANY = 8209
#: Where an agent must start, or Kubernetes gives up: a part of manifests/agent.yaml's startup probe.
START_SECONDS = 10.0
FRESH = 2003


def recorded_from_now_on(agent: Agent, binary: Path) -> None:
    """A pod that starts now has its name, and all of its calls are recorded."""
    with Producer(binary, "late-0") as late:
        wait_until(lambda: recordings(agent, late.namespace), "the recording of a pod that starts later")
        wait_until(late.waits, "the end of its last system call")
        before = calls_of(agent, late.namespace)
        late.make(211)
        wait_until(late.waits, "the end of its last system call")
        (row,) = recordings(agent, late.namespace)
        assert (row.container.pod, row.calls - before) == ("late-0", 211 + 2)
        assert pods_of(agent, late.namespace) == ["late-0"]


@pytest.mark.timeout(SECONDS + 90)
def test_churn_of_cgroups(record, attacker, workload, tmp_path: Path, figure) -> None:
    """While a container makes and removes cgroups as fast as it can, the agent answers, others lose nothing, and it all
    costs at most half a core and no memory.
    """
    agent, evil = record(), attacker("unshared")
    with beside(agent, tmp_path, workload("produce")) as seen:
        made = evil.attack("flood", SECONDS)
        recorded_from_now_on(agent, workload("produce"))
    figure(f"{made} cgroups made and removed in {SECONDS} s", seen)
    assert made > 500 * SECONDS
    assert seen.cpu / seen.seconds < MOST_CORES
    assert seen.after and seen.after.memory < MOST_BYTES


def test_many_cgroups(record, attacker, workload, tmp_path: Path, figure) -> None:
    """A container that makes 8,209 cgroups at once takes nothing from others: neither time nor the recording of pods that
    start later.
    """
    agent, evil = record(), attacker("unshared")
    with beside(agent, tmp_path, workload("produce")) as seen:
        began = time.monotonic()
        assert evil.attack("many", MANY) == MANY
        took = time.monotonic() - began
        recorded_from_now_on(agent, workload("produce"))
        evil.remove_cgroups()
        recorded_from_now_on(agent, workload("produce"))
    figure(f"{MANY} cgroups made in {took:.1f} s", seen)


def test_many_cgroups_at_start(record, attacker, workload, tmp_path: Path, figure) -> None:
    """An agent starts beside 8,209 cgroups of one container as soon as it does without them, whether it is the first or
    finds what an earlier one has recorded.
    """
    evil = attacker()
    assert evil.attack("many", MANY) == MANY
    for what in ("first", "second"):
        began = time.monotonic()
        agent = record()
        took = time.monotonic() - began
        figure(f"start of the {what} agent", f"{took:.1f} s")
        assert took < START_SECONDS
        assert is_well(agent) and pods_of(agent, "evil") == ["evil-0"]
        recorded_from_now_on(agent, workload("produce"))
        assert agent.stop() == 0


def test_opens_from_fresh_cgroups(record, attacker, workload, tmp_path: Path, figure) -> None:
    """What a container does from cgroups that it makes for each call is shown and recorded to the last call."""
    agent, evil = record(), attacker()
    cli = watch(tmp_path, agent, "-n", "evil")
    with beside(agent, tmp_path, workload("produce")) as seen:
        recorded(agent, "evil")
        before = calls_of(agent, "evil")
        assert evil.attack("opens", FRESH) == FRESH
        wait_until(lambda: len(events(cli.out)) == FRESH, "all that it opened")
        made = calls_of(agent, "evil") - before
    cli.finish()
    figure("beside", seen)
    assert lost_in(cli.err) == 0
    rows = events(cli.out)
    assert [(row["pod"], row["path"]) for row in rows] == [("evil-0", f"/attack/{at:09}") for at in range(FRESH)]
    # each is mkdir, an open of the folder, clone3, wait4, close, rmdir of the one, and an open and an end of the other
    assert 7 * FRESH <= made < 9 * FRESH + 500
    (own,) = recordings(agent, "evil")
    assert own.container.pod == "evil-0"


def test_stop_is_heard(record, attacker) -> None:
    """An agent that is told to end does, whatever a container does meanwhile."""
    agent, evil = record(), attacker()
    attack = evil.start("flood", 5)
    wait_until(lambda: any(each.name.startswith("flood-") for each in evil.folder.iterdir()), "the flood")
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 10
    assert attack.poll() is None
    finish(attack)


#: Connects so often to a port where nobody listens, at an address that is not loopback, then once to the next port.
CONNECTS = """
import socket, sys
port, count = map(int, sys.argv[1:])
for at in range(count + 1):
    with socket.socket() as end:
        end.connect_ex(("10.77.0.1", port + at // count))
print("done")
"""


def connect(container: Container, port: int, count: int) -> None:
    """Let a process in a container's cgroup and network connect in vain."""
    network = f"--net=/proc/{container.pid}/ns/net"
    up = ["ip link set lo up", "ip address replace 10.77.0.1/32 dev lo"]
    for each in up:
        subprocess.run(["nsenter", network, *each.split()], check=True)
    command = ("nsenter", network, sys.executable, "-c", CONNECTS, str(port), str(count))
    run_in(UNIFIED / container.cgroup.lstrip("/"), *command)


def test_flows_of_others_stay(record, make_pod) -> None:
    """What a pod connected to is in the log, however many connections another one makes after it to have it forgotten."""
    agent = record("--observe", "--observe-keep", "1")

    def flows(*options: str) -> list[dict[str, Any]]:
        command = ("observe", "-A", "--all", "-o", "json", "--ip", "10.77.0.1", "--agent", agent.address, *options)
        return events(run_cli(*command).stdout)

    wait_until(lambda: "observe: observe began" in agent.log.read_text(), "the flow log's beginning")
    quiet = make_pod("shop", "cart-0").container("app", "/bin/sleep", "600")
    connect(quiet, 7001, 5)
    wait_until(lambda: len(flows()) == 6, "the flows of the quiet one")
    connect(make_pod("evil", "evil-0").container("app", "/bin/sleep", "600"), 9001, 20_000)
    wait_until(lambda: flows("--to-port", "9002"), "the end of the flood")
    found = flows()
    assert len(found) < 20_000
    assert [each["dst"]["port"] for each in found if each["pod"] == "cart-0"] == [7001] * 5 + [7002]
    assert "overwritten" in run_cli("observe", "-A", "--all", "--agent", agent.address).stderr
