"""A gadget is a folder: one that this test writes runs like those that are packaged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import events

ROOT = Path(__file__).parents[2]
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


def copy(folder: Path) -> Path:
    """A copy of the project's sources with a new gadget."""
    for name in ("bpf", "proto", "gadget", "agent", "kubectl_gadget"):
        ignored = shutil.ignore_patterns("__pycache__", "_objects", "_generated")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    shutil.copy(ROOT / "hatch_build.py", folder)
    (folder / "bpf/forks").mkdir()
    (folder / "bpf/forks/gadget.toml").write_text(ABOUT)
    (folder / "bpf/forks/forks.bpf.c").write_text(SOURCE)
    return folder


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    options = {"env": environment, "cwd": "/", "capture_output": True, "text": True, "timeout": 60, "check": False}
    return subprocess.run([sys.executable, "-P", *args], **options)


def test_scratch_gadget(tmp_path: Path) -> None:
    """I add one folder under bpf/, and have a command with help, columns, JSON and filters."""
    folder = copy(tmp_path / "project")
    built = run(folder, str(folder / "hatch_build.py"))
    assert built.returncode == 0, built.stderr
    assert "forks" in run(folder, "-m", "kubectl_gadget", "--help").stdout
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
        done = run(folder, *command, "--max-events", "11")
    finally:
        loop.kill()
        loop.wait()
    assert len(events(done.stdout)) == 11, done.stderr
    assert all(event["child"] > 0 and event["comm"] == "sh" for event in events(done.stdout))


def test_verifier_refusal(tmp_path: Path) -> None:
    """When the kernel refuses a program I get the verifier's reason in one line."""
    folder = copy(tmp_path / "project")
    source = folder / "bpf/forks/forks.bpf.c"
    source.write_text(SOURCE.replace("event->child = ", "event->text[event->header.pid] = "))
    assert run(folder, str(folder / "hatch_build.py")).returncode == 0
    done = run(folder, "-m", "kubectl_gadget", "forks", "--local")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: this machine: forks: Linux ")
    assert "refused the program" in done.stderr
    assert "unbounded memory access" in done.stderr


def test_undocumented_column(tmp_path: Path) -> None:
    """A gadget.toml that names a field that is not there is refused when it is built."""
    folder = copy(tmp_path / "project")
    (folder / "bpf/forks/gadget.toml").write_text(ABOUT.replace('"child"', '"chield"'))
    built = run(folder, str(folder / "hatch_build.py"))
    assert "'chield' is no documented field" in built.stderr
