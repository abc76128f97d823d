"""Ways to run work: beside nothing, inside a container, or under a tool that traces it."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.machine import enter
from tests.bench.peers import DoesNotWork, why_not
from tests.conftest import wait_until
from tests.loaded import bpf_programs
from tests.pods import BareContainer


@dataclass(frozen=True)
class Way:
    """How to run a program beside a tool: words before its own, a container, whether all takes many times as long."""

    words: tuple[str, ...] = ()
    inside: BareContainer | None = None
    slow: bool = False

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Run it."""
        words = [*self.words, *command]
        return subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=enter(self.inside)
        )


@contextmanager
def nothing() -> Iterator[Way]:
    """Without a tool."""
    yield Way()


@contextmanager
def bpftrace(*script: str) -> Iterator[Way]:
    """On the whole machine."""
    there = bpf_programs()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "errors").open("wb") as errors:
        try:
            tracing = subprocess.Popen(["bpftrace", *script], stdout=subprocess.DEVNULL, stderr=errors)
        except FileNotFoundError:
            raise DoesNotWork("bpftrace is not installed") from None
        try:
            wait_until(lambda: tracing.poll() is not None or bpf_programs() - there, "bpftrace")
            if tracing.poll() is not None:
                raise DoesNotWork(why_not(Path(folder) / "errors"))
            time.sleep(0.5)  # loaded, it attaches
            yield Way()
        finally:
            tracing.kill()  # when it is told to end as it begins, bpftrace 0.17 goes on for ever
            tracing.wait()


@contextmanager
def before(*words: str, slow: bool = False) -> Iterator[Way]:
    """Under a tool that starts what it traces."""
    try:
        subprocess.run([*words, "true"], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise DoesNotWork(f"{words[0]} is not installed") from None
    except subprocess.CalledProcessError as error:
        raise DoesNotWork(error.stderr.strip().splitlines()[0]) from None
    yield Way(words, slow=slow)


def cpu(process: subprocess.Popen[str]) -> float:
    """Seconds of CPU that a process used until it ended, with those it waited for. Unlike time, others do not add to it."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, process.args
    return used.ru_utime + used.ru_stime
