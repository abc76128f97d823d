"""The agent, and a thread that ends or stalls its others: python -m tests.attacks.killable FIFO GADGET-AGENT OPTIONS.

A line of FIFO is HOW NAME: HOW is end or stall, NAME a thread's. The interpreter raises an exception in it when it runs
Python the next time (PyThreadState_SetAsyncExc). A thread that sleeps in the kernel for ever cannot be reached so.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from pathlib import Path

from agent.main import main as agent_main

#: Longer than anybody waits in a test.
STALL_SECONDS = 40.0
KILLER = "killer"


class End(BaseException):
    """What nothing expects."""


class Stall(BaseException):
    """It is made in the thread that it is raised in, and that takes a while."""

    def __init__(self) -> None:
        super().__init__()
        time.sleep(STALL_SECONDS)


KINDS = {"end": End, "stall": Stall}


def names_file(fifo: Path) -> Path:
    """Where the names of the threads are once HOW was list."""
    return fifo.with_suffix(".threads")


def obey(fifo: Path) -> None:
    """Do what is written to fifo."""
    while True:
        for line in fifo.read_text().splitlines():  # a FIFO ends when its writer has closed it
            how, _, name = line.partition(" ")
            threads = threading.enumerate()
            if how == "list":
                fifo.with_suffix(".new").write_text("\n".join(sorted(thread.name for thread in threads)))
                fifo.with_suffix(".new").rename(names_file(fifo))
            for thread in threads:
                if thread.name == name:
                    ident, kind = ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KINDS[how])
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, kind)


def main() -> None:
    """Run the agent."""
    fifo = Path(sys.argv.pop(1))
    sys.argv.pop(0)
    os.mkfifo(fifo)
    threading.Thread(target=obey, args=(fifo,), name=KILLER, daemon=True).start()
    agent_main()


if __name__ == "__main__":
    main()
