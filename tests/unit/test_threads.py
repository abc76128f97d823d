from __future__ import annotations

import ctypes
import sys
import threading
import time

import pytest

from agent.threads import IDLE_SECONDS, Pool, Worker
from tests.conftest import wait_until


def steady(worker: Worker) -> None:
    while not worker.stopping:
        worker.wait(0.01)


def test_well() -> None:
    """A thread that works, one that was stopped and one that was never started are no problem."""
    worker = Worker("steady", steady)
    assert worker.problem == ""
    worker.start()
    assert worker.problem == ""
    worker.stop()
    worker.stop()
    assert worker.problem == ""


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, MemoryError])
def test_killed(kind: type[BaseException]) -> None:
    """A thread that an exception has ended, of whatever kind and wherever it was, is told by name."""
    worker = Worker("steady", steady)
    worker.start()
    (ident,) = (thread.ident for thread in threading.enumerate() if thread.name == "steady")
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(kind))
    wait_until(lambda: worker.problem, "the end of the thread")
    assert worker.problem == f"thread steady died: {kind.__name__}"
    worker.stop()


def test_ended() -> None:
    """A thread that ends too early has died, too."""
    worker = Worker("short", lambda worker: None)
    worker.start()
    wait_until(lambda: worker.problem, "its end")
    assert worker.problem == "thread short died: it has ended"


def test_stalled() -> None:
    """A thread that hangs is told, and no more once it goes on."""
    go_on = threading.Event()

    def work(worker: Worker) -> None:
        go_on.wait()
        steady(worker)

    worker = Worker("slow", work, stalls_after=0.05)
    worker.start()
    wait_until(lambda: "thread slow has not got on for" in worker.problem, "the stall")
    go_on.set()
    wait_until(lambda: not worker.problem, "its going on")
    worker.stop()


def test_beats_of_others() -> None:
    """A thread that hangs is told also where others do meanwhile what it does at other times."""
    go_on = threading.Event()
    worker = Worker("slow", lambda worker: bool(go_on.wait()), stalls_after=0.05)
    worker.start()

    def stalled() -> bool:
        worker.beat()
        return bool(worker.problem)

    wait_until(stalled, "the stall")
    go_on.set()
    worker.stop()


def test_woken() -> None:
    """A thread that waits goes on at once when there is something to do, or when it is to stop."""
    seen = threading.Event()

    def work(worker: Worker) -> None:
        while not worker.stopping:
            worker.wait(600)
            seen.set()

    worker = Worker("woken", work)
    worker.start()
    worker.wake()
    assert seen.wait(20)
    worker.stop()
    assert not any(thread.name == "woken" for thread in threading.enumerate())


def test_pool() -> None:
    """What waits in the kernel is done side by side, each in its turn; a thread that a fault has ended is told by name."""
    pool = Pool("pool", 2)
    go_on = threading.Event()
    first, second = pool.submit(go_on.wait, 20), pool.submit(lambda: 17)
    assert second.result(20) == 17 and not first.done()
    failing = pool.submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failing.result(20)
    go_on.set()
    assert first.result(20)
    assert [worker.problem for worker in pool.workers] == ["", ""]
    ended = pool.submit(sys.exit)
    wait_until(lambda: any(worker.problem for worker in pool.workers), "the end of one")
    (problem,) = (worker.problem for worker in pool.workers if worker.problem)
    assert problem.startswith("thread pool-")
    assert not ended.done()
    pool.close()
    pool.close()


def test_pool_ends_at_once() -> None:
    """Threads of a pool that have nothing to do end together, not each after its own rest: 64 of them took 16 s."""
    pool = Pool("idle", 64)
    began = time.monotonic()
    pool.close()
    assert time.monotonic() - began < 64 * IDLE_SECONDS / 4
    assert not any(worker.is_alive for worker in pool.workers)
