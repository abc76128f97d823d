"""System calls as text: names, errors and texts, arguments as numbers."""

from __future__ import annotations

from typing import Any, NamedTuple

from gadget import syscalls
from gadget.rows import decode_text
from kubectl_gadget.values import rfc3339


class Captured(NamedTuple):
    """Memory that an argument pointed to; size is how long it really was."""

    data: bytes
    size: int


class Call(NamedTuple):
    """One system call. result None: it never returned."""

    time_ns: int
    duration_ns: int | None
    pid: int
    tid: int
    comm: str
    machine: str
    number: int
    args: tuple[int, ...]
    result: int | None
    captured: dict[int, Captured]


def arguments(call: Call) -> list[str]:
    """Each argument as text."""
    found = syscalls.find(call.machine, call.number)
    return [
        ascii(decode_text(call.captured[at].data)) if at in call.captured else hex(call.args[at])
        for at in range(len(found.arguments))
    ]


def line(call: Call) -> str:
    """A call with its result."""
    found = syscalls.find(call.machine, call.number)
    name, meaning = syscalls.errors().get(-(call.result or 0), ("", ""))
    result = "?" if call.result is None else f"-1 {name} ({meaning})" if name else str(call.result)
    return f"{found.name}({', '.join(arguments(call))}) = {result}"


def to_json(call: Call) -> dict[str, Any]:
    """A call as JSON."""
    found = syscalls.find(call.machine, call.number)
    return {
        "time": rfc3339(call.time_ns),
        "pid": call.pid,
        "tid": call.tid,
        "comm": call.comm,
        "syscall": found.name,
        "args_raw": list(call.args[: len(found.arguments)]),
        "result": call.result,
        "error": syscalls.errors().get(-(call.result or 0), (None,))[0],
    }
