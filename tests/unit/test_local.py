"""An agent that a command of --local has started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from gadget.errors import GadgetError
from kubectl_gadget.agents.local import Ready


@contextmanager
def started(code: str, log: BinaryIO) -> Iterator[subprocess.Popen[bytes]]:
    """A program in place of an agent, which says what an agent says."""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            yield process
        finally:
            process.kill()


def test_ready_for_all_who_ask(tmp_path: Path) -> None:
    """An agent that has begun serves as long as its command, however often and from where that asks for it."""
    with (tmp_path / "log").open("w+b") as log, started("print('ready', flush=True); input()", log) as agent:
        ready = Ready(agent, "unix:///x", log)
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ready) for _ in range(8)]
            assert [each.result(10) for each in asked] == ["unix:///x"] * 8
        assert agent.poll() is None


def test_why_it_did_not_start(tmp_path: Path) -> None:
    """An agent that cannot begin says why, in its last line."""
    with (tmp_path / "log").open("w+b") as log, started("raise SystemExit('error: no BTF')", log) as agent:
        with pytest.raises(GadgetError) as failed:
            Ready(agent, "unix:///x", log)()
        assert str(failed.value) == "no BTF"
