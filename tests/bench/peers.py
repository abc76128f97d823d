"""The tools that show events, ours and others', as processes that write to a file."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.cli import ENVIRONMENT
from tests.conftest import CLI, Agent

#: bpftrace's own tcpconnect.bt needs a kprobe; this tells the same of a tracepoint. 6 is TCP, 2 is SYN_SENT.
CONNECTS = """
tracepoint:sock:inet_sock_set_state /args->protocol == 6 && args->newstate == 2/ {
  time("%H:%M:%S ");
  printf("%-8d %-16s ", pid, comm);
  printf("%-39s %-6d %-39s %-6d\\n", ntop(args->saddr), args->sport, ntop(args->daddr), args->dport);
}
"""
#: Characters of what a tool says of its end.
WHY = 160
#: Lines that a buffer of 4 KiB may hold.
UNWRITTEN = 250
GADGETS = {"opens": "opensnoop", "execs": "execsnoop", "connects": "tcpconnect"}


class DoesNotWork(Exception):
    """A peer cannot be had, or not on this kernel."""


@dataclass(frozen=True)
class Running:
    """A tool's processes, and when the one that a user starts was started (time.perf_counter)."""

    processes: list[subprocess.Popen[bytes]]
    began: float

    @property
    def pids(self) -> dict[str, int]:
        """The processes by name."""
        return {Path(str(process.args[0])).name: process.pid for process in self.processes}  # type: ignore[index]


@dataclass(frozen=True)
class Tool:
    """How to start a tool for a kind of event.

    line is what grep counts, a line for each event by threads called NAME; led_to are the lines that events lead to,
    if they are more. unwritten: lines that its buffer may hold while it runs, and which are then missing.
    """

    name: str
    start: Callable[[Path, Path, bool], Running]
    line: str = "NAME"
    led_to: str = "NAME"
    unwritten: int = 0

    @contextmanager
    def running(self, folder: Path, output: Path, *, at_once: bool = False) -> Iterator[Running]:
        """Run it. at_once: it writes each event when it has it."""
        processes = (running := self.start(folder, output, at_once)).processes
        try:
            yield running
        finally:
            for process in processes:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def why_not(errors: Path) -> str:
    """What a tool that ended said of it, in a line."""
    lines = [line.strip() for line in errors.read_text(errors="replace").splitlines()]
    harmless = ("RLIMIT", "level=warning")
    telling = [
        line for line in lines if ("rror" in line or "ailed" in line) and not any(word in line for word in harmless)
    ]
    why = (telling or lines or ["it ended at once"])[0]
    return why if len(why) <= WHY else f"…{why[-WHY:]}"  # the reason comes last


def ours(gadget: str, form: str) -> Tool:
    """An agent that runs, and a command line that shows one namespace."""

    def start(folder: Path, output: Path, at_once: bool) -> Running:
        agent = Agent(folder)
        command = [str(CLI), gadget, "-n", "shop", "-o", form, "--agent", agent.address]
        with output.open("wb") as out, (folder / "errors").open("wb") as errors:
            began = time.perf_counter()
            cli = subprocess.Popen(command, stdout=out, stderr=errors, env=ENVIRONMENT)
        return Running([cli, agent.process], began)  # type: ignore[list-item]

    return Tool(f"kubectl gadget {gadget}, " + ("as JSON" if form == "json" else "in columns"), start)


def peer(name: str, *command: str, line: str = "NAME", led_to: str = "NAME", unwritten: int = UNWRITTEN) -> Tool:
    """A program that writes lines; OUTPUT among its words is the file for them, if that is not standard output."""

    def start(folder: Path, output: Path, at_once: bool) -> Running:
        words = [str(output) if word == "OUTPUT" else word for word in command]
        if at_once:
            words = [words[0], "-B", "line", *words[1:]] if words[0] == "bpftrace" else ["stdbuf", "-oL", *words]
        if not shutil.which(command[0]):
            raise DoesNotWork(f"{command[0]} is not installed")
        with output.open("ab") as out, (folder / "errors").open("wb") as errors:
            began = time.perf_counter()
            return Running([subprocess.Popen(words, stdout=out, stderr=errors)], began)

    return Tool(name, start, line, led_to, unwritten)


SBIN = "/usr/sbin"


def perf(call: str) -> Tool:
    """Perf trace of one system call, of all processes. A call that something interrupts is two lines, the second "call()"."""
    return peer(
        f"perf trace -a -e {call}", "perf", "trace", "-a", "-e", call, "-o", "OUTPUT", line=f"NAME/.*{call}([a-z]"
    )


TOOLS: Mapping[str, tuple[Tool, ...]] = {
    "opens": (
        ours("opensnoop", "json"),
        ours("opensnoop", "columns"),
        peer("opensnoop (libbpf-tools)", f"{SBIN}/opensnoop"),
        peer("opensnoop.bt (bpftrace)", "bpftrace", f"{SBIN}/opensnoop.bt"),
        perf("openat"),
    ),
    "execs": (
        ours("execsnoop", "json"),
        ours("execsnoop", "columns"),
        peer("execsnoop (libbpf-tools)", f"{SBIN}/execsnoop"),
        peer("execsnoop.bt (bpftrace)", "bpftrace", f"{SBIN}/execsnoop.bt"),
        perf("execve"),
    ),
    "connects": (
        ours("tcpconnect", "json"),
        ours("tcpconnect", "columns"),
        peer("tcpconnect (libbpf-tools)", f"{SBIN}/tcpconnect"),
        peer("tcpconnect.bt (bpftrace)", "bpftrace", f"{SBIN}/tcpconnect.bt"),
        peer(
            "tcpstates (libbpf-tools), which tells every state",
            f"{SBIN}/tcpstates",
            line="NAME .*CLOSE *-> SYN_SENT",
            led_to="127.0.0.1",  # also what the kernel does later, of no thread's
        ),
        peer("bpftrace on inet_sock_set_state", "bpftrace", "-e", CONNECTS),
        perf("connect"),
    ),
}
