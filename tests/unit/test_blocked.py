"""What a call that has not returned is about: the paths and addresses that its arguments point to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.blocked import READ_SECONDS, ProcessMemory, find_blocked
from agent.threads import Bounded
from agent.traceloop.redact import Redactor
from gadget import syscalls
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Exhausted
from kubectl_gadget import strace
from kubectl_gadget.traceloop.calls import ReplyReader
from tests.conftest import wait_until

MACHINE = os.uname().machine
NUMBERS = syscalls.numbers(MACHINE)


@contextmanager
def in_a_call(name: str, *command: str | Path) -> Iterator[pb.Blocked]:
    """A program that is in a call, of which nothing but the registers is known yet."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            (found,) = wait_until(
                lambda: [each for each in find_blocked([process.pid]) if each.number == NUMBERS[name]], name
            )
            yield found
        finally:
            process.kill()


def shown(blocked: pb.Blocked) -> str:
    """What `traceloop show` makes of it."""
    ((call, _),) = ReplyReader().blocked(pb.TraceloopReadReply(machine=MACHINE, blocked=[blocked]))
    return strace.text(call).removesuffix(" = ?")


def test_open_of_a_fifo(tmp_path: Path) -> None:
    """Of a program that hangs in an open I see which file that is."""
    os.mkfifo(tmp_path / "jobs")
    with in_a_call("openat", "/bin/cat", tmp_path / "jobs") as blocked:
        ProcessMemory().add_to([blocked], lambda: [blocked.pid], 1)
    assert shown(blocked) == f'openat(AT_FDCWD, "{tmp_path}/jobs", O_RDONLY, <unfinished ...>)'


def test_between_two_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call is never shown by the name that its number has in the program before: while one begins, none is shown."""
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        try:
            wait_until(lambda: list(find_blocked([process.pid])), "its call")
            answers = iter([True, False])
            monkeypatch.setattr("agent.blocked._is_32bit", lambda pid: next(answers))
            assert list(find_blocked([process.pid])) == []
        finally:
            process.kill()


def test_redacted(tmp_path: Path) -> None:
    """What --redact names is masked in the path of a call that hangs, too."""
    os.mkfifo(tmp_path / "token-8431")
    with in_a_call("openat", "/bin/cat", tmp_path / "token-8431") as blocked:
        ProcessMemory(Redactor(["token-[0-9]+"]).mask).add_to([blocked], lambda: [blocked.pid], 1)
    assert shown(blocked) == f'openat(AT_FDCWD, "{tmp_path}/**********", O_RDONLY, <unfinished ...>)'


def test_not_of_the_container(tmp_path: Path) -> None:
    """Nothing is read of a process that is not in the container any more, whoever has its number now."""
    os.mkfifo(tmp_path / "jobs")
    answers = iter([True, False])
    with in_a_call("openat", "/bin/cat", tmp_path / "jobs") as blocked:
        ProcessMemory().add_to([blocked], lambda: [blocked.pid] if next(answers) else [], 1)
    assert not blocked.memory


def test_path_without_an_end(tmp_path: Path) -> None:
    """Of a path that goes on for ever so much is read as the kernel takes, and it is shown as cut."""
    os.mkfifo(tmp_path / "jobs")
    with (
        in_a_call("openat", "/bin/cat", tmp_path / "jobs") as blocked,
        open(f"/proc/{blocked.pid}/mem", "r+b", 0) as memory,
    ):
        memory.seek(blocked.args[1])
        memory.write(b"/" * 200)
        ProcessMemory().add_to([blocked], lambda: [blocked.pid], 1)
    assert 200 <= len(blocked.memory[0].data) <= 4096


CONNECT = """
import socket
server, kept = socket.socket(), []
server.bind(("127.0.0.1", 0))
server.listen(0)
while True:
    kept.append(socket.socket())
    kept[-1].connect(server.getsockname())
"""


def test_connect_without_an_answer() -> None:
    """Of a program that hangs in a connect I see to whom: here a server whose queue is full."""
    with in_a_call("connect", sys.executable, "-c", CONNECT) as blocked:
        ProcessMemory().add_to([blocked], lambda: [blocked.pid], 1)
    assert 'sin_addr=inet_addr("127.0.0.1")}, 16, <unfinished ...>' in shown(blocked)


def test_memory_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Memory that cannot be read, as that of a file whose server is silent, holds up nobody: the call comes without."""
    os.mkfifo(tmp_path / "jobs")
    monkeypatch.setattr(os, "pread", lambda *args: time.sleep(2) or b"")
    with in_a_call("openat", "/bin/cat", tmp_path / "jobs") as blocked:
        memory, began = ProcessMemory(), time.monotonic()
        memory.add_to([blocked], lambda: [blocked.pid], 1)
        memory.add_to([blocked], lambda: [blocked.pid], 1)  # which still waits for the first
        assert READ_SECONDS <= time.monotonic() - began < READ_SECONDS + 1
    assert not blocked.memory


def test_threads_are_bounded() -> None:
    """Questions that are not answered take some threads and no more, and one container takes one of them."""
    threads, stop = Bounded("test", 2), time.monotonic() + 5
    over: list[bool] = []

    def hang() -> None:
        wait_until(lambda: bool(over) or time.monotonic() > stop, "the end")

    first = threads.start(1, hang)
    for key in (1, 2, 3):
        if key == 2:
            second = threads.start(key, hang)
            continue
        with pytest.raises(Exhausted):
            threads.start(key, hang)
    over.append(True)
    first.result(5), second.result(5)
    wait_until(lambda: _answers(threads), "free threads")


def _answers(threads: Bounded) -> bool:
    try:
        return threads.start(1, lambda: 3).result(1) == 3
    except Exhausted:
        return False


def test_hostile_arguments() -> None:
    """An agent that names arguments that no call has breaks nothing."""
    memory = [pb.Memory(argument=index, data=b"x", size=1 << 63) for index in (7, 1 << 31)]
    blocked = pb.Blocked(pid=1, tid=1, number=NUMBERS["openat"], args=[0] * 6, memory=memory)
    assert shown(blocked) == "openat(0, NULL, O_RDONLY, <unfinished ...>)"
