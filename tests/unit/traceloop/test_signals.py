"""Signals as people and programs read them, and what is left out of a recording."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest

from gadget import syscalls
from kubectl_gadget import strace
from kubectl_gadget.traceloop import signals
from kubectl_gadget.traceloop.calls import DeliveredSignal, ReplyReader
from kubectl_gadget.traceloop.runtime import without_runtime
from tests.unit.traceloop.replies import KINDS, record, reply

OLD, NEW = (KINDS["KIND_SIGNAL"] | count << 4 for count in (3, 4))
CHILD = 12 | 1000 << 32


def delivered(at: int, *args: int, shape: int = NEW, **values: Any) -> np.void:
    return record(at, "KIND_SIGNAL", args=[value & (1 << 64) - 1 for value in args], shape=shape, **values)


def sent(at: int, number: int, code: int, *, inside: int = 0) -> np.void:
    return record(at, "KIND_SENT", args=[number, code, 7, inside], shape=KINDS["KIND_SENT"] | 4 << 4,
                  pid=99, tid=99, comm=b"kubelet")  # fmt: skip


def read(*records: np.void) -> list[str]:
    entries = signals.without_false_kills(ReplyReader().entries(reply(*records)))
    return [signals.text(entry) for entry in entries if isinstance(entry, DeliveredSignal)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([delivered(2, 11, 1, 0x10)], "--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0x10} ---"),
        (
            [delivered(2, 17, 2, CHILD, 11)],
            "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_KILLED, si_pid=12, si_uid=1000, si_status=SIGSEGV} ---",
        ),
        (
            [delivered(2, 17, 1, CHILD, 7)],
            "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=12, si_uid=1000, si_status=7} ---",
        ),
        (
            [delivered(2, 17, 1, CHILD, shape=OLD)],
            "--- SIGCHLD {si_signo=SIGCHLD, si_code=CLD_EXITED, si_pid=12, si_uid=1000} ---",
        ),
        (
            [delivered(2, 31, 1, 0x7F00, 165 | 0xC000003E << 32)],
            "--- SIGSYS {si_signo=SIGSYS, si_code=SYS_SECCOMP, si_call_addr=0x7f00, si_syscall=__NR_mount} ---",
        ),
        (
            [delivered(2, 31, 1, 0x7F00, 21 | 0x40000003 << 32)],
            "--- SIGSYS {si_signo=SIGSYS, si_code=SYS_SECCOMP, si_call_addr=0x7f00, si_syscall=__NR_mount} ---",
        ),
        (
            [sent(1, 15, 0), delivered(2, 15, 0, 0)],
            "--- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=0, si_uid=0}"
            " from kubelet 99, outside the container ---",
        ),
        (
            [sent(1, 15, 0, inside=1), delivered(2, 15, 0, 3)],
            "--- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=3, si_uid=0} from kubelet 99 ---",
        ),
        (
            [delivered(2, 15, 0, 0)],
            "--- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=0, si_uid=0} from outside the pod ---",
        ),
        ([sent(1, 9, 0x80), delivered(2, 9, 0)], "--- SIGKILL: from the kernel ---"),
        ([sent(1, 9, 0), delivered(2, 9, 0)], "--- SIGKILL: from kubelet 99, outside the container ---"),
        (
            [delivered(2, 9, 0), delivered(3, 9, 0, tid=8), record(4, "KIND_PROCESS_EXIT", result=9)],
            "--- SIGKILL: sender not known ---",
        ),
        ([delivered(2, 9, 0), record(3, "KIND_PROCESS_EXIT", result=0)], None),
        (
            [sent(1, 9, 0), record(2, "KIND_PROCESS_EXIT", result=9)],  # that was never delivered
            "--- SIGKILL: from kubelet 99, outside the container ---",
        ),
    ],
)
def test_what_a_signal_says(given: list[np.void], expected: str | None) -> None:
    """A signal's line says how it came about, who sent it and what about; of a program that exits no thread was killed."""
    assert read(*given) == [expected] * (expected is not None)


def test_signals_as_json() -> None:
    """As JSON a signal has the same facts as fields."""
    (entry,) = ReplyReader().entries(reply(sent(1, 17, 1, inside=1), delivered(2, 17, 2, CHILD, 11)))
    assert isinstance(entry, DeliveredSignal)
    assert signals.to_json(entry) == {
        "signal": "SIGCHLD",
        "code": 2,
        "code_name": "CLD_KILLED",
        "address": CHILD,
        "child": 12,
        "status": 11,
        "sender": {"pid": 99, "comm": "kubelet", "inside": True},
        "outside": False,
    }


def test_an_older_recording_is_read() -> None:
    """A recording from before senders and further buffers were recorded is shown as it was."""
    layout = orjson.loads(reply().layout)
    layout["names"] = [each for each in layout["names"] if each["name"] != "beyond"]
    for each in layout["names"]:
        each["values"] = {
            key: name for key, name in each["values"].items() if name not in ("KIND_SENT", "BEYOND_SHIFT")
        }
    call = record(1, name="writev", text=b"one", args=[3, 0x7F00, 2], result=6, size=3, buffers=2)
    given = reply(call, delivered(2, 11, 1, 0x10, shape=OLD), layout=orjson.dumps(layout).decode())
    first, second = ReplyReader().entries(given)
    assert strace.text(first) == 'writev(3, [{iov_base="one", iov_len=3}, ...], 2) = 6'  # type: ignore[arg-type]
    assert signals.text(second) == "--- SIGSEGV {si_signo=SIGSEGV, si_code=SEGV_MAPERR, si_addr=0x10} ---"  # type: ignore[arg-type]


def begun(at: int, since: int, pid: int = 7) -> np.void:
    return record(at, "KIND_EXEC", "execve", b"/app", result=since, pid=pid, tid=pid)


@pytest.mark.parametrize(
    ("records", "left_out"),
    [
        ([record(1, count=0), record(2), begun(3, 1), record(4)], 2),  # all of it is there
        ([record(1, count=0, pid=5), record(2, pid=6), begun(3, 1), record(4)], 2),  # helpers of the runtime
        ([record(50, pid=5), record(51), begun(52, 1), record(53)], 0),  # the program begins another
        ([record(50, pid=5), record(51), begun(52, 51_000), record(53)], 1),  # a probe, of which all is there
        ([record(1, count=0), record(2), begun(3, 0), record(4)], 0),  # started from inside
        ([record(9_000_000, count=0), begun(9_000_001, 1), record(9_000_002)], 0),  # older than the agent
    ],
)
def test_the_runtime_is_left_out(records: list[np.void], left_out: int) -> None:
    """What the runtime did before a program is left out, never a line of the program or of what it starts."""
    reader = ReplyReader()
    entries = reader.entries(reply(*records))
    assert without_runtime(entries, reader.started, reader.complete)[1] == left_out


def test_calls_that_fail_everywhere_are_dimmed() -> None:
    """A failure that every program has is told from one that matters."""
    numbers = {"ioctl": -25, "lseek": -29, "read": -11}
    for name, result in numbers.items():
        assert signals.is_noise(_call(name, result))
        assert not signals.is_noise(_call(name, -2))


def _call(name: str, result: int) -> Any:
    (entry,) = ReplyReader().entries(
        reply(record(1, name=name, number=syscalls.numbers("x86_64")[name], result=result))
    )
    return entry
