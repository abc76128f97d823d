"""Stacks that run and that wait."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Thread

from agent.profile.kept import FileCache
from agent.profile.profiling import Profiling
from agent.run.runs import begin
from agent.selection import Selection
from agent.threads import Bounded
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from tests.pods import BareContainer
from tests.vm.machine import Busy, Core, container

#: How much there was of each stack: name of the thread, functions of the program, of the kernel, the innermost first.
Stacks = Counter[tuple[str, tuple[str, ...], tuple[str, ...]]]


def stacks(
    core: Core, name: str, counted: str, settings: dict[str, str], act: Callable[[BareContainer, Stacks], None]
) -> Stacks:
    """The stacks of what is done in a container, each with its thread's name, and how much there was of it."""
    gadget = catalog.find(name)
    profiling = Profiling(gadget, counted, FileCache(), Bounded("profile", 4), Path("/proc"))
    subscriber = begin(gadget, settings, core.tracker, Selection(pods=["cart-0"])).first
    functions: dict[int, pb.Frame] = {}
    told: dict[int, pb.Stack] = {}
    found: Stacks = Counter()

    def take() -> None:
        for batch in subscriber.batches():
            made = profiling.take(batch)
            functions.update((each.number, each) for each in made.frames)
            told.update((each.number, each) for each in made.stacks)
            for number, count in zip(made.seen, made.counts, strict=True):
                frames = [functions[each] for each in told[number].frames]
                user = tuple(each.name for each in frames if not each.kernel)
                found[told[number].comm, user, tuple(each.name for each in frames if each.kernel)] += count

    with closing(subscriber), container() as app:
        thread = Thread(target=take)
        thread.start()
        act(app, found)
        subscriber.finish()
        thread.join()
        losses = subscriber.summary().losses
    if any(loss.reason == "program busy" for loss in losses):
        raise Busy
    assert not losses, losses
    return found


def profile(core: Core) -> None:
    """Of a program that spins I see which functions take most time, and of one that calls the kernel those of the kernel."""

    def call() -> None:
        for _ in range(300_000):
            os.getppid()

    def act(app: BareContainer, found: Stacks) -> None:
        while not found:  # the names of the kernel are read, which takes seconds under emulation
            core.call(app, call)
        core.work(app, "spins", "6")

    own = Counter[str]()
    kernel = set[str]()
    for (_, user, inside), count in stacks(core, "profile", "samples", {"hz": "499"}, act).items():
        own[next(iter(user), "")] += count
        kernel |= {*inside}
    spun = [name for name, _ in own.most_common() if name.startswith("spin_")]
    assert spun[0] == "spin_40" and {*spun[1:3]} == {"spin_25", "spin_20"}, own
    assert {*spun[3:]} == {"spin_10", "spin_5"}, own
    assert any("sys_getppid" in name or "syscall" in name or "svc" in name for name in kernel), sorted(kernel)


def offcpu(core: Core) -> None:
    """Of threads that sleep, read and wait for a lock I see in which functions, and for about how long."""

    def act(app: BareContainer, found: Stacks) -> None:
        while not found:  # as above
            core.call(app, lambda: time.sleep(0.1))
        core.work(app, "offs", "100")

    seen = Counter[str]()
    inside: dict[str, set[str]] = {}
    for (comm, user, kernel), nanoseconds in stacks(core, "offcpu", "time", {}, act).items():
        seen.update({f"{comm} {name}": nanoseconds for name in user if name.startswith("wait_")})
        inside.setdefault(comm, set()).update(kernel)
    assert {*seen} == {"sleeps wait_in_sleep", "reads wait_in_read", "locks wait_for_lock", "workload wait_in_sleep"}, (
        seen,
        inside,
    )
    assert seen["sleeps wait_in_sleep"] >= 100 * 5_000_000 * 0.9, seen
    for comm, part in (("sleeps", "nanosleep"), ("reads", "pipe_"), ("locks", "futex")):
        assert any(part in name for name in inside[comm]), inside[comm]
