"""What the flight recorder costs, beside strace and a program that does nothing."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.bpf_object import BpfObject
from hatch_build import compile_object
from tests.bench import Result
from tests.conftest import Agent, compile_workload, wait_until
from tests.pods import BareContainer

ROUNDS = 3
CALLS, STRACED_CALLS = "200000", "2000"
TREE = "/usr/include"
Run = Callable[[], float]


@contextmanager
def _recorder() -> Iterator[BareContainer]:
    """A container that an agent records."""
    with tempfile.TemporaryDirectory() as folder:
        bpffs = Path(folder) / "bpf"
        bpffs.mkdir()
        agent = Agent(Path(folder), "--bpffs", str(bpffs), "--state", f"{folder}/state")
        container = BareContainer("shop", "cart-0")
        try:
            wait_until(lambda: list(bpffs.glob("gadget/traceloop/*/ring-*")), "the ring")
            yield container
        finally:
            container.delete()
            agent.stop()
            subprocess.run(["umount", str(bpffs)], check=True)


@contextmanager
def _empty_program() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "empty.bpf.o"
        compile_object(Path(__file__).with_name("empty.bpf.c"), "x86_64", target)
        with BpfObject(target.read_bytes(), "empty") as program:
            program.load()
            program.attach()
            yield


def _run(*command: str, inside: BareContainer | None = None) -> str:
    def enter() -> None:
        if inside:
            (inside.cgroup / "cgroup.procs").write_text("0")

    return subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=enter).stdout


@contextmanager
def _loop() -> Iterator[Callable[..., float]]:
    """Nanoseconds of the cheapest system call, by a program that begins with words, in a container or not."""
    with tempfile.TemporaryDirectory() as folder:
        loop = str(compile_workload("loop", Path(folder)))
        yield lambda *words, inside=None, calls=CALLS: float(_run(*words, loop, calls, inside=inside))


def _added(with_it: list[float], without: list[float]) -> list[float]:
    return [value - min(without) for value in with_it]


def call_beside_empty_program() -> Result:
    """Added to a system call by a program that does nothing: what the rest here can at best be."""
    with _loop() as loop:
        without = [loop() for _ in range(ROUNDS)]
        with _empty_program():
            return "ns", _added([loop() for _ in range(ROUNDS)], without)


def call_recorded() -> Result:
    """Added to a system call of a recorded container."""
    with _loop() as loop:
        without = [loop() for _ in range(ROUNDS)]
        with _recorder() as container:
            return "ns", _added([loop(inside=container) for _ in range(ROUNDS)], without)


def call_not_recorded() -> Result:
    """Added to a system call outside recorded containers."""
    with _loop() as loop:
        without = [loop() for _ in range(ROUNDS)]
        with _recorder():
            return "ns", _added([loop() for _ in range(ROUNDS)], without)


def strace_to_recorded() -> Result:
    """How many times more strace -f adds to the same loop than recording does."""
    with _loop() as loop:
        without = [loop() for _ in range(ROUNDS)]
        straced = [loop("strace", "-f", "-o", "/dev/null", calls=STRACED_CALLS) for _ in range(ROUNDS)]
        with _recorder() as container:
            recorded = [loop(inside=container) for _ in range(ROUNDS)]
    return "times", [a / b for a, b in zip(_added(straced, without), _added(recorded, without), strict=True)]


def _seconds(*command: str, inside: BareContainer | None = None) -> float:
    began = time.monotonic()
    _run(*command, inside=inside)
    return time.monotonic() - began


def _slow_down(run: Run, plain: Run) -> list[float]:
    """Per cent, of runs in turns."""
    pairs = [(run(), plain()) for _ in range(ROUNDS)]
    least = min(plain for _, plain in pairs)
    return [100 * (each / least - 1) for each, _ in pairs]


def tar_recorded() -> Result:
    """How much longer tar of a tree of headers takes when it is recorded."""
    command = ("tar", "--create", "--file", "/dev/zero", TREE)  # to /dev/null it would read nothing
    _run(*command)
    with _recorder() as container:
        return "%", _slow_down(lambda: _seconds(*command, inside=container), lambda: _seconds(*command))


def tar_straced() -> Result:
    """How much longer the same takes under strace -f."""
    command = ("tar", "--create", "--file", "/dev/zero", TREE)
    _run(*command)
    strace = ("strace", "-f", "-o", "/dev/null")
    return "%", _slow_down(lambda: _seconds(*strace, *command), lambda: _seconds(*command))
