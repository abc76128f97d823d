"""Whoever reads the output is slow."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.faults.production import Producer, books, ended, opens
from tests.faults.test_client import flood, runs


@pytest.mark.timeout(180)
def test_slow_reader(agent, workload, tmp_path: Path, figure) -> None:
    """I read the output a little at a time, and for 25 s not at all: the stream stays, events wait in the kernel's
    ring as long as there is room, and what I see and what is counted as lost is all that happened.
    """
    pieces: list[bytes] = []
    pause, hurry = threading.Event(), threading.Event()

    def read(pipe: int) -> None:
        while data := os.read(pipe, 1 << 16 if hurry.is_set() else 512):
            pieces.append(data)
            while not hurry.is_set() and pause.is_set():
                time.sleep(0.01)
            time.sleep(0 if hurry.is_set() else 0.01)

    with Producer(workload("produce")) as producer:
        cli = opens(tmp_path, agent, producer, "--buffer", "64K", stdout=subprocess.PIPE)
        assert cli.process.stdout
        reader = threading.Thread(target=read, args=(cli.process.stdout.fileno(),))
        reader.start()
        flood(producer, agent)
        pause.set()
        time.sleep(25)  # longer than an agent waits for the answer to a ping
        assert runs(agent) == 1
        pause.clear()
        hurry.set()

        def arrives() -> bool:
            producer.make(103)  # again, as the ring may still be full of what was before
            last = f'/produced/{producer.made - 1:09d}"'.encode()
            time.sleep(0.3)
            return last in b"".join(pieces)

        wait_until(arrives, "the last event")
        cli.process.send_signal(signal.SIGINT)
        assert ended(cli) == 0
        reader.join()
        seen, lost = books(b"".join(pieces), cli.err)
    figure("events", f"{len(seen)} seen, {lost} lost")
    assert len(seen) + lost == producer.made
    assert lost > 0
    assert "went away" not in cli.err
