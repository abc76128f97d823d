"""A gadget that takes samples is a folder, too."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.bpf.attach.samples import online
from tests.conftest import Agent, Cli, events, wait_until
from tests.kernel.scratch import Project
from tests.loaded import is_there, programs_of

SOURCE = """
#define TEXT_SHORT 0
#include "samples.h"

struct event {
	struct gadget_header header;
	__u32 cpu DOC("the CPU");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);
GADGET_SAMPLES(99);

SEC("perf_event")
int sampled(struct bpf_perf_event_data *context)
{
	__u32 zero = 0;
	struct event *event = bpf_map_lookup_elem(&scratch, &zero);

	if (!event || !gadget_fill(&event->header))
		return 0;
	event->cpu = bpf_get_smp_processor_id();
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
"""
ABOUT = """
title = "what runs, so often a second"
group = "Live"
example = "kubectl gadget busy -n shop"
columns = ["pid", "comm", "cpu"]
wide = []
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A gadget called busy."""
    made = Project(tmp_path / "project", "busy", {"gadget.toml": ABOUT, "busy.bpf.c": SOURCE})
    made.build()
    return made


def perf_events(agent: Agent) -> int:
    """How many an agent has open."""
    return sum(
        "perf_event" in os.readlink(fd) for fd in Path(f"/proc/{agent.process.pid}/fd").iterdir() if fd.is_symlink()
    )


def test_samples(project: Project, start_agent, start_cli: Callable[..., Cli], make_pod) -> None:
    """A folder with a program for samples shows on which CPU a container is busy; idle ones and others are left out."""
    busy = make_pod("shop", "cart-0").container("app", "/bin/sh", "-c", "while :; do :; done")
    make_pod("shop", "idle-0").container("app", "/bin/sleep", "600")
    make_pod("web", "web-0").container("nginx", "/bin/sh", "-c", "while :; do :; done")
    agent = start_agent(under=project.under)
    before = programs_of(agent.process.pid)
    cli = start_cli(
        "busy", "--agent", agent.address, "-o", "json", "-n", "shop", "--max-events", "31",
        env={**os.environ, **project.environment},
    )  # fmt: skip
    wait_until(lambda: "busy: started" in agent.log.read_text(), "the stream's start")
    out, err = cli.finish(0)
    rows = events(out)
    assert len(rows) == 31, err
    assert "nothing lost" in err
    assert {(row["pod"], row["pid"], row["comm"]) for row in rows} == {("cart-0", busy.pid, "sh")}
    assert {row["cpu"] for row in rows} <= set(online())

    cli = start_cli("busy", "--agent", agent.address, "-n", "web", env={**os.environ, **project.environment})
    wait_until(lambda: perf_events(agent) == len(online()), "an event for each CPU")
    programs = programs_of(agent.process.pid) - before
    assert len(programs) == 1
    cli.finish()
    wait_until(lambda: not perf_events(agent), "the end of all events")
    wait_until(lambda: not any(is_there("prog", each) for each in programs), "the end of the program")


def test_too_many_samples(project: Project) -> None:
    """More samples a second than are sensible are refused in one line."""
    done = project.run("-m", "kubectl_gadget", "busy", "--local", "--hz", "100000")
    assert done.returncode == 1
    assert done.stderr == (
        "error: this machine: busy: could not attach sampled: samples a second are 1 to 1000, not 100000\n"
    )
