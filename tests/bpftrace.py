"""What bpftrace tells of the same load: an independent one that counts."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import wait_until

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

    @property
    def has_begun(self) -> bool:
        """Whether its programs run."""
        return "attached_probes" in self._out.read_text()


@contextmanager
def traced(program: str, folder: Path) -> Iterator[Traced]:
    """Let bpftrace run a program while the block runs. What it told is there once the block is over."""
    out = folder / "bpftrace.json"
    command = with_tracing("bpftrace", "-f", "json", "-e", program)
    with out.open("w") as to, subprocess.Popen(command, stdout=to) as process:
        try:
            found = Traced(out)
            wait_until(lambda: found.has_begun or process.poll(), "bpftrace's start", 60)
            assert process.poll() is None, "bpftrace ended"
            yield found
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
