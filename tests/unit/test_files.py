"""What a program writes into a name, a file or a path stops nothing and nobody, whatever bytes it is."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from agent.blocked import find_blocked
from agent.files import read_bytes, read_regular, read_text
from agent.logs import JsonFormatter
from tests.conftest import wait_until

AGENT = Path(__file__).parents[2] / "agent"
#: The only files that may be read as text by pathlib: the kernel alone writes them, and in ASCII.
KERNELS_OWN = ("cgroup.procs", "BOOT", "/proc/self/statm")
SLEEPER = """
import ctypes, time
ctypes.CDLL(None).prctl(15, b"a\\xff\\nb")
print(flush=True)
while True:
    time.sleep(100)
"""


def test_name_that_is_not_utf8() -> None:
    """A hanging thread is shown whatever it calls itself."""
    with subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline()
        try:
            wait_until(lambda: list(find_blocked([process.pid])), "a blocked thread")
            (found,) = find_blocked([process.pid])
            assert (found.tid, found.comm) == (process.pid, "a\\xff\nb")
        finally:
            process.kill()


def test_log_of_any_path() -> None:
    """The agent's log is JSON, whatever the cgroups that it tells of are called."""
    message = os.fsdecode(b"/sys/fs/cgroup/\xff") + " \ud83d"
    record = logging.LogRecord("agent", logging.WARNING, "", 1, "%s", (message,), None)
    assert "/sys/fs/cgroup/\\udcff \\ud83d" in orjson.loads(JsonFormatter().format(record))["message"]


def test_beginning(tmp_path: Path) -> None:
    """No more than asked for is read of a file that never ends."""
    path = tmp_path / "file"
    path.write_bytes(b"\xff" * 100)
    assert read_text(path, 3) == "\\xff" * 3
    assert len(read_text(Path("/dev/zero"))) == 4096


def test_not_a_file(tmp_path: Path) -> None:
    """A pipe, a device, a link or a file of 1 GB where a runtime's file should be costs no time and no memory."""
    path = tmp_path / "config.json"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(path, 1 << 20)
    path.unlink()
    path.symlink_to("/etc/hostname")
    with pytest.raises(OSError):
        read_regular(path, 1 << 20)
    path.unlink()
    with path.open("wb") as file:
        os.ftruncate(file.fileno(), 1 << 30)
    with pytest.raises(OSError, match="longer than 1024 KiB"):
        read_regular(path, 1 << 20)
    os.truncate(path, 1 << 20)
    assert len(read_regular(path, 1 << 20)) == 1 << 20
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(Path("/dev/zero"), 1 << 20)


def test_no_text_of_others() -> None:
    """No part of the agent takes a file for UTF-8 that a program may have written to: agent/files.py reads those."""
    reads = re.compile(r"\.read_text\(\)|\.decode\(\)|\.open\(\)")
    found = [
        f"{path.relative_to(AGENT)}: {line.strip()}"
        for path in AGENT.rglob("*.py")
        for line in path.read_text().splitlines()
        if reads.search(line) and not any(each in line for each in KERNELS_OWN)
    ]
    assert not [line for line in found if not re.search(r"orjson\.dumps|program__name|backslashreplace", line)]


def test_long_files_of_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 4 MiB that a container has made long is read in the time that its pages take, not in their square."""
    page = b"x" * 4096

    def cost(work: Callable[[], object]) -> float:
        began = time.thread_time()
        work()
        return time.thread_time() - began

    monkeypatch.setattr(os, "read", lambda fd, most: page[:most])
    linear = min(cost(lambda: b"".join([os.read(0, 4096) for _ in range(1024)])) for _ in range(3))
    assert min(cost(lambda: read_bytes(0, 4 << 20)) for _ in range(3)) < 30 * linear
    assert read_bytes(0, 5000) == page + page[:904]
