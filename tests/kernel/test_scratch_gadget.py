"""A gadget is a folder: one that this test writes runs like those that are packaged."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import events
from tests.kernel.scratch import BuildFailed, Project

SOURCE = """
#include "filter.h"

struct event {
	struct gadget_header header;
	gadget_pid child DOC("the process that was started");
	char text[TEXT_MAX + TEXT_SLACK];
};

GADGET_EVENTS(1);

SEC("tp_btf/sched_process_fork")
int BPF_PROG(forked, struct task_struct *parent, struct task_struct *child)
{
	__u32 zero = 0;
	struct event *event = bpf_map_lookup_elem(&scratch, &zero);

	if (!event || !gadget_fill(&event->header))
		return 0;
	event->child = child->tgid;
	gadget_submit(event);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
"""
ABOUT = """
title = "processes as they fork"
group = "Live"
example = "kubectl gadget forks"
columns = ["pid", "child"]
wide = []
"""


def forks(folder: Path, source: str = SOURCE, about: str = ABOUT) -> Project:
    """The project with that gadget."""
    return Project(folder / "project", "forks", {"gadget.toml": about, "forks.bpf.c": source})


def test_scratch_gadget(tmp_path: Path) -> None:
    """I add one folder under bpf/, and have a command with help, columns, JSON and filters."""
    project = forks(tmp_path)
    project.build()
    assert "forks" in project.run("-m", "kubectl_gadget", "--help").stdout
    command = [
        "-m",
        "kubectl_gadget",
        "forks",
        "--local",
        "--host",
        "-o",
        "json",
        "--filter",
        "comm==sh",
        "--timeout",
        "3s",
    ]
    loop = subprocess.Popen(["sh", "-c", "while true; do (exit 0); done"], stdout=subprocess.DEVNULL)
    try:
        done = project.run(*command, "--max-events", "11")
    finally:
        loop.kill()
        loop.wait()
    assert len(events(done.stdout)) == 11, done.stderr
    assert all(event["child"] > 0 and event["comm"] == "sh" for event in events(done.stdout))


def test_verifier_refusal(tmp_path: Path) -> None:
    """When the kernel refuses a program I get the verifier's reason in one line, and `list` has it for this machine."""
    project = forks(tmp_path, SOURCE.replace("event->child = ", "event->text[event->header.pid] = "))
    project.build()
    done = project.run("-m", "kubectl_gadget", "forks", "--local")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: this machine: forks: Linux ")
    assert "refused the program" in done.stderr
    assert "unbounded memory access" in done.stderr
    why = done.stderr.partition("forks: ")[2]
    listed = project.run("-m", "kubectl_gadget", "list", "--local")
    assert f"forks: not on this machine: {why}" in listed.stderr
    assert "forks" in listed.stdout and listed.returncode == 0


def test_undocumented_column(tmp_path: Path) -> None:
    """A gadget.toml that names a field that is not there is refused when it is built."""
    project = forks(tmp_path, about=ABOUT.replace('"child"', '"chield"'))
    with pytest.raises(BuildFailed, match="'chield' is no documented field"):
        project.build()
