"""What each kernel has to show, tried inside a guest: python -m tests.vm.core WORKLOADS.

WORKLOADS is a folder of compiled tests/workloads. Prints a JSON object a line: the verified instructions of each
program, how each core test went, and a last line without which nothing counts. The agent's parts run in this process:
starting programs is what emulation is slowest at.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from agent.bpf.bpf_object import BpfObject
from agent.bpf.objects import read_object
from agent.containers.tracker import Tracker
from gadget.errors import KernelLacks
from tests.vm.cases import all_cases
from tests.vm.machine import Busy, Core

CASE_SECONDS = 60
#: Since Linux 7.0 tasks can be preempted in the middle of a program: see Busy. Before, only an interrupt comes there.
PREEMPTS_SINCE = 7
ATTEMPTS, ATTEMPTS_BEFORE = 30, 3


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def on_alarm(number: int, frame: object) -> None:
    raise TimeoutError(f"not done within {CASE_SECONDS} s")


def attempts_on(release: str) -> int:
    """How often a case is tried on a kernel where programs find themselves busy."""
    return ATTEMPTS if int(release.partition(".")[0]) >= PREEMPTS_SINCE else ATTEMPTS_BEFORE


def try_case(name: str, case: Callable[[], None]) -> None:
    """Say whether it works, what the kernel lacks for it, or how it failed."""
    began = time.monotonic()
    outcome: dict[str, object] = {}
    attempts, most = 0, attempts_on(os.uname().release)
    while attempts < most:
        attempts += 1
        outcome = {"works": True}
        signal.alarm(CASE_SECONDS)
        try:
            case()
        except KernelLacks as error:
            outcome = {"lacks": str(error)}
        except Busy:
            outcome = {"failed": f"a program was busy in each of {most} attempts"}
            continue
        except Exception:
            outcome = {"failed": traceback.format_exc()}
        finally:
            signal.alarm(0)
        break
    say(case=name, seconds=round(time.monotonic() - began, 1), attempts=attempts, **outcome)


def load(name: str) -> None:
    """Load an object, and say how many instructions the verifier processed for each program."""
    with BpfObject(read_object(name), name) as loaded:
        if name in ("profile", "offcpu"):  # as their runs do
            loaded.preallocate("containers", "chosen", "losses_by_cgroup")
        loaded.load()
        for program, info in loaded.programs():
            say(program=f"{name}/{program}", instructions=info.verified_insns)


def main() -> None:
    signal.signal(signal.SIGALRM, on_alarm)
    say(release=os.uname().release)
    for name in sys.argv[2:]:
        try_case(f"load {name}", partial(load, name))
    with closing(Tracker()) as running:
        core = Core(running, Path(sys.argv[1]))
        for case in (case for case in all_cases() if case.__name__ in sys.argv[2:]):
            try_case(case.__name__, partial(case, core))
    say(done=True)


if __name__ == "__main__":
    main()
