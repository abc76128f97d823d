"""Streams: several at once, losses counted, ends that leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc
import pytest

from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from tests.conftest import events, run_cli, wait_until
from tests.faults.production import stopped
from tests.kernel.test_execsnoop import run_workload, start_json, traced
from tests.loaded import bpf_programs, programs_of
from tests.pods import BUNDLES, BareContainer, run_in


def test_seen_and_lost_is_all(agent, make_pod, workload) -> None:
    """When I read too slowly for the ring, I am told how many events were lost: with those I saw, it is all of them."""
    gate = threading.Event()

    def requests():
        yield pb.RunRequest(start=pb.Start(gadget="execsnoop", ring_bytes=4096, parameters={"comm": "workload"}))
        gate.wait()
        yield pb.RunRequest(stop=pb.Stop())

    with grpc.insecure_channel(agent.address, options=[("grpc.http2.lookahead_bytes", 1)]) as channel:
        call = rpc.AgentStub(channel).Run(requests())
        assert next(call).WhichOneof("what") == "started"
        run_workload(make_pod("shop", "flood"), workload("execs"), 8, 503, 0)
        gate.set()
        replies = list(call)
    seen = sum(section.count for reply in replies for section in reply.batch.sections)
    summary = replies[-1].summary
    lost = sum(loss.count for loss in summary.losses)
    own = 1 + 8 * 503  # the workload's own exec too
    assert (seen, seen + lost) == (summary.events, own)
    assert lost > 0
    assert {loss.reason for loss in summary.losses} == {"ring full"}


def test_losses_are_named(agent, start_cli, make_pod, workload) -> None:
    """The last line says how many events were lost, why, on which node and of which container; --strict exits 3."""
    cli = start_cli(*["execsnoop", "-o", "json", "--buffer", "4K", "--strict", "--agent"], agent.address)
    wait_until(lambda: "started" in agent.log.read_text(), "the stream's start")
    agent.process.send_signal(signal.SIGSTOP)
    try:
        run_workload(make_pod("shop", "flood"), workload("execs"), 1, 211, 0)
    finally:
        agent.process.send_signal(signal.SIGCONT)
    out, err = cli.finish()
    lost = int(re.findall(r"; (\d+) lost: ", err)[0])
    own = [event for event in events(out) if event["args"][0] in ("started", "/workload")]
    assert f"{lost} lost: ring full on node-a (" in err
    assert len(own) + int(re.findall(r"\bapp (\d+)", err)[0]) >= 212
    assert cli.process.returncode == 3


def test_flood_costs_the_flooder(agent, start_cli, make_pod, workload) -> None:
    """A container that floods the ring loses its own events, none of another's, and is named for it."""
    cli = start_cli(*["execsnoop", "-o", "json", "--buffer", "64K", "--comm", "workload", "--agent"], agent.address)
    wait_until(lambda: "started" in agent.log.read_text(), "the stream's start")
    flood, quiet = make_pod("shop", "flood-0"), make_pod("shop", "quiet-0")
    agent.process.send_signal(signal.SIGSTOP)
    try:
        for pod, name, count in ((flood, "flooder", 907), (quiet, "quiet", 13)):
            short = pod.container(
                name, "/workload", "1", str(count), "0", "short", files={"/workload": workload("execs")}
            )
            wait_until(lambda short=short: "done" in short.log.read_text(), "the workload's end")
    finally:
        agent.process.send_signal(signal.SIGCONT)
    out, err = cli.finish()
    started = [event["container"] for event in events(out) if event["args"][0] == "started"]
    assert started.count("quiet") == 13
    seen = len([event for event in events(out) if event["container"] == "flooder"])
    assert f"; {908 - seen} lost: ring full on node-a (flooder {908 - seen})." in err
    assert seen > 50


@pytest.mark.parametrize("cgroups", [0, 8], ids=["one cgroup", "eight cgroups"])
def test_a_flood_has_one_share(agent, start_cli, workload, cgroups: int) -> None:
    """A container has its one share of a ring however long its texts are and however many cgroups it makes inside."""
    with ExitStack() as stack:
        flood, quiet = BareContainer("shop", "flood-0", "flooder"), BareContainer("shop", "quiet-0", "quiet")
        stack.callback(flood.delete)
        stack.callback(quiet.delete)
        known = ("containers", "--agent", agent.address)
        wait_until(lambda: {"flooder", "quiet"} <= {*run_cli(*known).stdout.split()}, "two known containers")
        inside = [flood.cgroup / f"inside-{number}" for number in range(cgroups)]
        for each in inside:
            each.mkdir()
            stack.callback(each.rmdir)
        cli = start_cli("opensnoop", "-n", "shop", "-o", "json", "--buffer", "1M", "--agent", agent.address)
        wait_until(lambda: "opensnoop: started" in agent.log.read_text(), "the stream's start")
        run_in(flood.cgroup, workload("flood"), "8000", "short")  # one ring is further on than the other
        with stopped(agent.process.pid):
            for place in inside or [flood.cgroup]:
                run_in(place, workload("flood"), str(24_000 // max(cgroups, 1)))
            run_in(quiet.cgroup, workload("flood"), "13")
        out, err = cli.finish()
    seen = Counter((row["container"], len(row["path"])) for row in events(out) if row["path"].startswith("/flood"))
    assert (seen["quiet", 6], seen["quiet", 200]) == (7, 6)
    lost = 8000 + 24_000 - seen["flooder", 6] - seen["flooder", 200]
    assert f"; {lost} lost: ring full on node-a (flooder {lost})." in err
    assert seen["flooder", 6] > 2000
    assert seen["flooder", 200] > 50


def test_two_clients(agent, start_cli, make_pod, workload) -> None:
    """Two of us see each exactly what we filter for; when one is killed the other goes on, and no program stays."""
    before = programs_of(agent.process.pid)
    failing = start_json(start_cli, agent, "--filter", "error==ENOENT")
    short = start_cli(
        "execsnoop",
        "--agent",
        agent.address,
        "-o",
        "json",
        "--no-failed",
        "--filter",
        "args~^started x*$,exe!=/workload",
    )
    dying = start_cli("execsnoop", "--agent", agent.address, "-o", "json", "--host")
    wait_until(lambda: agent.log.read_text().count("execsnoop: started") == 3, "three streams")
    own = programs_of(agent.process.pid) - before
    assert len(own) == 9  # two of execsnoop and a lane of bpf/calls for each
    dying.finish(signal.SIGKILL)
    wait_until(lambda: len(own & bpf_programs()) == 6, "the killed client's programs gone")
    run_workload(make_pod(), workload("execs"), 2, 101, 5)
    assert len(traced(failing)) == 10
    assert traced(short) == []
    wait_until(lambda: not own & bpf_programs(), "all programs gone")


def test_one_object_for_all(agent, start_cli, make_pod, workload) -> None:
    """When several of us ask for the same, the kernel does the work once: one set of programs, and each sees all."""
    before = programs_of(agent.process.pid)
    watching = [start_json(start_cli, agent) for _ in range(3)]
    wait_until(lambda: agent.log.read_text().count("execsnoop: started") == 3, "three streams")
    own = programs_of(agent.process.pid) - before
    assert len(own) == 3
    pod = make_pod()
    run_workload(pod, workload("execs"), 1, 101, 5)
    assert len(traced(watching[0])) == 101
    assert own <= bpf_programs()
    run_workload(pod, workload("execs"), 1, 7, 0)
    assert [len(traced(each)) for each in watching[1:]] == [108, 108]
    wait_until(lambda: not own & bpf_programs(), "all programs gone")


def count(replies: list[pb.RunReply]) -> int:
    """How many events there are in replies."""
    return sum(section.count for reply in replies for section in reply.batch.sections)


def test_slow_reader(agent, workload) -> None:
    """One who reads too slowly loses events, and is told how many; another who asks for the same loses none."""
    gates = [threading.Event(), threading.Event()]
    replies: list[list[pb.RunReply]] = [[], []]

    def requests(gate: threading.Event):
        yield pb.RunRequest(start=pb.Start(gadget="opensnoop", ring_bytes=64 << 20, parameters={"comm": "flood"}))
        gate.wait()
        yield pb.RunRequest(stop=pb.Stop())

    def has(events: int) -> bool:
        return count(replies[0]) >= events

    options = [("grpc.http2.lookahead_bytes", 1), ("grpc.use_local_subchannel_pool", 1)]
    with ExitStack() as stack:
        flood = BareContainer("shop", "flood-0")
        stack.callback(flood.delete)
        channels = [stack.enter_context(grpc.insecure_channel(agent.address, options=options)) for _ in gates]
        calls = []
        for channel, gate in zip(channels, gates, strict=True):
            calls.append(rpc.AgentStub(channel).Run(requests(gate)))
            assert next(calls[-1]).WhichOneof("what") == "started"  # then the next one shares its run
        reader = threading.Thread(target=lambda: replies[0].extend(calls[0]))
        reader.start()
        for at in range(10):
            run_in(flood.cgroup, workload("flood"), "8000")
            wait_until(partial(has, 8_000 * (at + 1)), "the reader", 60)
        gates[0].set()
        reader.join()
        gates[1].set()
        replies[1].extend(calls[1])
    seen = [count(each) for each in replies]
    losses = [list(each[-1].summary.losses) for each in replies]
    assert (seen[0], losses[0]) == (80_000, [])
    assert seen[1] + sum(loss.count for loss in losses[1]) == 80_000
    assert {(loss.reason, bool(loss.cgroup_id)) for loss in losses[1]} == {("reader too slow", True)}


def test_killed_local(start_cli, tmp_path: Path) -> None:
    """A local session that is killed takes its agent, programs and files with it."""
    cli = start_cli("execsnoop", "--local", env={**os.environ, "TMPDIR": str(tmp_path)})
    wait_until(lambda: len(programs_of(cli.process.pid)) == 5, "programs")
    own = programs_of(cli.process.pid)
    cli.finish(signal.SIGKILL)
    wait_until(lambda: not own & bpf_programs(), "all programs gone")
    wait_until(lambda: not list(tmp_path.iterdir()), "its files gone")


def test_agent_stops_in_order(agent, start_cli, make_pod, workload) -> None:
    """When the agent is told to stop I get what it had seen, a line that says it stopped, and exit code 3 if strict."""
    cli = start_json(start_cli, agent, "--strict")
    run_workload(make_pod(), workload("execs"), 1, 19, 0)
    own = programs_of(agent.process.pid)
    assert len(own) == 5
    assert agent.stop() == 0
    out, err = cli.finish(0)
    assert len([event for event in events(out) if event["args"][0] == "started"]) == 19
    assert "the agent stopped" in err
    assert "Traceback" not in err + agent.log.read_text()
    assert cli.process.returncode == 3
    wait_until(lambda: not own & bpf_programs(), "all programs gone")


def test_signal_in_the_middle_of_a_write(agent, start_cli, make_pod, workload) -> None:
    """Ctrl-C while my pipe is full cuts no line, whatever PYTHONUNBUFFERED is."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    cli = start_cli("execsnoop", "--agent", agent.address, "-o", "json", "--buffer", "16M", env=environment)
    wait_until(lambda: "started" in agent.log.read_text(), "the stream's start")
    run_workload(make_pod(), workload("execs"), 2, 307, 0)  # about 1 MB of JSON, and nobody reads yet
    out, _ = cli.finish()
    assert len([event for event in events(out) if event["args"][0] == "started"]) == 614


def test_agent_killed(agent, start_cli) -> None:
    """When the agent dies in the middle I am told in one line, and no program stays."""
    cli = start_cli("execsnoop", "--agent", agent.address)
    assert cli.process.stdout.readline().startswith("NODE")
    own = programs_of(agent.process.pid)
    assert len(own) == 5
    agent.stop(signal.SIGKILL)
    _, err = cli.finish(0)
    assert "the agent went away" in err
    assert "Traceback" not in err
    wait_until(lambda: not own & bpf_programs(), "all programs gone")


def test_limits(make_pod) -> None:
    """--max-events and --timeout end a session by themselves, with a line that scripts can read."""
    make_pod().container("app", "/bin/sh", "-c", "while /bin/true; do /bin/sleep 0.02; done")
    limited = run_cli(*["execsnoop", "--local", "-n", "shop", "-o", "json", "--max-events", "7"])
    assert len(limited.stdout.splitlines()) == 7
    assert limited.stderr.startswith("7 events from 1 node, 1 container, in ")
    assert limited.stderr.endswith("; nothing lost.\n")
    began = time.monotonic()
    timed = run_cli(*["execsnoop", "--local", "--timeout", "500ms", "--filter", "pid==1"])
    assert 0.5 < time.monotonic() - began < 10
    assert timed.stderr.startswith("0 events from 1 node")
    assert (limited.returncode, timed.returncode) == (0, 0)


def test_health(agent) -> None:
    """Kubernetes can ask the agent whether it is well."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(agent.address) as channel:
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_two_agents(start_agent, start_cli, make_pod, workload) -> None:
    """With several --agent I get the events of all of them in one stream, each with its node."""
    first, second = start_agent(), start_agent("--node", "node-b")
    cli = start_cli("execsnoop", "-n", "shop", "-o", "json", "--agent", first.address, "--agent", second.address)
    wait_until(lambda: all("started" in each.log.read_text() for each in (first, second)), "both streams")
    run_workload(make_pod(), workload("execs"), 1, 23, 0)
    out, err = cli.finish()
    own = [event["node"] for event in events(out) if event["args"][0] == "started"]
    assert (own.count("node-a"), own.count("node-b"), len(own)) == (23, 23, 46)
    assert " from 2 nodes, 1 container, in " in err


def test_one_of_two_agents_dies(start_agent, start_cli, make_pod, workload) -> None:
    """When one of several agents dies I am told at once and at the end, and the others go on."""
    first, second = start_agent(), start_agent("--node", "node-b")
    cli = start_cli("execsnoop", "-o", "json", "--agent", first.address, "--agent", second.address)
    wait_until(lambda: all("started" in each.log.read_text() for each in (first, second)), "both streams")
    make_pod("shop", "early-0").container("app", "/bin/true")
    seen = ""
    while '"node":"node-a"' not in seen:  # until then the command line may not have heard of it
        seen += cli.process.stdout.readline()
    first.stop(signal.SIGKILL)
    run_workload(make_pod(), workload("execs"), 1, 29, 0)
    rest, err = cli.finish()
    out = seen + rest
    assert len([event for event in events(out) if event["node"] == "node-b" and event["args"][0] == "started"]) == 29
    assert f"warning: {first.address}: the agent went away" in err
    assert f"; nothing lost of what was watched; not watched: {first.address} in the end.\n" in err
    assert f"incomplete: {first.address}: the agent went away" in err
    assert cli.process.returncode == 0


def test_local_uses_the_running_agent(start_agent) -> None:
    """--local uses the agent that serves this machine, and starts none."""
    agent = start_agent("--listen", "unix:///run/gadget/agent.sock", "--node", "the-running-one")
    done = run_cli("execsnoop", "--local", "--timeout", "100ms")
    assert done.returncode == 0
    assert "execsnoop: started" in agent.log.read_text()


def test_status_where_no_agent_runs(start_agent) -> None:
    """`status --local` says that no agent runs here, if the one that it shows was started for it alone."""
    said = "no agent runs on this machine: this one was started for this command"
    assert said in run_cli("status", "--local").stderr
    start_agent("--listen", "unix:///run/gadget/agent.sock")
    done = run_cli("status", "--local")
    assert done.returncode == 0 and said not in done.stderr


def test_nothing_is_left_by_the_demo() -> None:
    """`make demo` cleans up after itself, also on Ctrl-C."""

    def containers() -> set[Path]:
        return {*Path("/sys/fs/cgroup").glob("*/kubepods/**"), *BUNDLES.glob("*")}

    known = containers()
    demo = subprocess.Popen(
        [sys.executable, "-m", "tests.demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    shown = [demo.stdout.readline() for _ in range(4)]
    own = programs_of(demo.pid)
    assert len(own) >= 2
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=20)
    assert any("cart-6c9f7d5b8-x2x7l" in line or "web-0" in line for line in shown), shown
    assert containers() <= known
    wait_until(lambda: not own & bpf_programs(), "all programs gone")
