"""What bpftrace tells of the same load: an independent one that counts."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.conftest import wait_until

#: What bpftrace begins once it counts, and ends with.
CHILD = "/bin/sleep infinity"
TRACEFS, DEBUGFS = Path("/sys/kernel/tracing"), Path("/sys/kernel/debug")


def with_tracing(*command: str) -> list[str]:
    """A command with tracefs where it looks for it. If it is not there it is mounted for the command alone."""
    if (DEBUGFS / "tracing/events").exists():
        return [*command]
    script = f'mount -t tracefs none {TRACEFS}; mount -t debugfs none {DEBUGFS}; exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *command]


class Traced:
    """The maps of a program of bpftrace, once it has ended."""

    def __init__(self, out: Path) -> None:
        """Written as JSON to a file."""
        self._out = out

    def _told(self, kind: str) -> Iterator[dict[str, Any]]:
        for line in filter(None, self._out.read_text().splitlines()):
            if (told := json.loads(line))["type"] == kind:
                yield told["data"]

    def map(self, name: str) -> list[dict[str, Any]]:
        """Entries of a map: key and value."""
        found = {k: v for data in self._told("map") for k, v in data.items()}.get(name, {})
        return [{"key": key, "value": value} for key, value in found.items()]

    def histogram(self, name: str) -> list[dict[str, int]]:
        """The buckets of a histogram: min and max, both of them within, and count."""
        found: list[dict[str, int]] = {k: v for data in self._told("hist") for k, v in data.items()}.get(name, [])
        return found


def _counts(process: subprocess.Popen[bytes]) -> bool:
    """Whether its programs are attached: it starts its child then. What it writes of them before tells of the intent."""
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        with suppress(OSError):  # it has ended
            if Path(f"/proc/{child}/cmdline").read_text() == CHILD.replace(" ", "\0") + "\0":
                return True
    return False


@contextmanager
def traced(program: str, folder: Path) -> Iterator[Traced]:
    """Let bpftrace run a program while the block runs. What it told is there once the block is over."""
    out = folder / "bpftrace.json"
    command = with_tracing("bpftrace", "-f", "json", "-c", CHILD, "-e", program)
    with out.open("w") as to, subprocess.Popen(command, stdout=to) as process:
        try:
            wait_until(lambda: process.poll() is not None or _counts(process), "bpftrace's start", 60)
            assert process.poll() is None, "bpftrace ended"
            yield Traced(out)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
