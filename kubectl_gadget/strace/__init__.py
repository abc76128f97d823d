"""System calls as strace writes them."""

from __future__ import annotations

from typing import Any

from gadget import syscalls
from gadget.kinds.times import clock, rfc3339
from gadget.text import escape
from kubectl_gadget.strace.calls import Call, Captured
from kubectl_gadget.strace.decoders import used
from kubectl_gadget.strace.meanings import decoders
from kubectl_gadget.strace.messages import beyond
from kubectl_gadget.strace.results import result
from kubectl_gadget.strace.visible import visible

__all__ = ["LIMIT", "Call", "Captured", "arguments", "line", "result", "text", "to_json"]

#: Bytes shown of a buffer: strace shows 32. Paths and names are shown in full.
LIMIT = 128


def arguments(call: Call, limit: int = LIMIT) -> list[str]:
    """Its arguments as strace writes them; of a call that never returned, those before what it would have written."""
    name = syscalls.find(call.machine, call.number).name
    shown = decoders(call.machine, call.number, limit)
    if name == "clone":
        return _clone_arguments(call, limit)
    texts = [shown[index].text(call, index) for index in visible(name, len(shown), call)]
    if call.result is None and not name.startswith("exit"):
        written = (item.argument for item in syscalls.pointed(call.machine, call.number).values() if item.after_success)
        return [*texts[: next(written, len(texts))], "<unfinished ...>"]
    return texts


def _clone_arguments(call: Call, limit: int) -> list[str]:
    """Those of clone by name, as their order differs between machines."""
    shown = decoders(call.machine, call.number, limit)
    known = syscalls.flags(call.machine, "CLONE")
    named = syscalls.find(call.machine, call.number).arguments
    by_name = {argument.name: (shown[index].text(call, index), index) for index, argument in enumerate(named)}
    child = known["CLONE_CHILD_SETTID"] | known["CLONE_CHILD_CLEARTID"]
    optional = (
        ("parent_tid", known["CLONE_PARENT_SETTID"] | known["CLONE_PIDFD"]),
        ("tls", known["CLONE_SETTLS"]),
        ("child_tid", child),
    )
    texts = [f"child_stack={by_name['stack'][0]}", f"flags={by_name['flags'][0]}"]
    titles = {"parent_tid": "parent_tid", "tls": "tls", "child_tid": "child_tidptr"}
    return texts + [f"{titles[name]}={by_name[name][0]}" for name, needed in optional if call.args[0] & needed]


def text(call: Call, limit: int = LIMIT) -> str:
    """The call alone: name(arguments) = result."""
    name = syscalls.find(call.machine, call.number).name
    return f"{name}({', '.join(arguments(call, limit))}) = {result(call)}"


def line(call: Call, limit: int = LIMIT, *, duration: bool = False) -> str:
    """The call with when and who; how long it took if duration, in seconds as strace -T has it."""
    who = f"[{escape(call.comm)} {call.tid}]"
    took = f" <{call.duration_ns / 1e9:.6f}>" if duration and call.duration_ns is not None else ""
    return f"{clock(call.time_ns)} {who:<12} {text(call, limit)}{took}"


def to_json(call: Call) -> dict[str, Any]:
    """The call as an object. args are decoded as far as they can be, args_raw are the registers.

    cut names the args that are not whole.
    """
    described = syscalls.find(call.machine, call.number)
    shown = decoders(call.machine, call.number, 1 << 30)
    taken = visible(described.name, len(shown), call)
    return {
        "time": rfc3339(call.time_ns),
        "duration_ns": call.duration_ns,
        "pid": call.pid,
        "tid": call.tid,
        "comm": call.comm,
        "syscall": described.name,
        "number": described.number,
        "args": {
            **{described.arguments[index].name: shown[index].value(call, index) for index in taken},
            **{
                name: text
                for index in {argument for argument, _ in call.beyond}
                for name, text in beyond(call, index).items()
            },
        },
        "args_raw": list(call.args[: len(shown)]),
        "cut": [described.arguments[index].name for index in taken if _is_cut(call, index)],
        "result": call.result,
        "error": _error_name(call),
    }


def _is_cut(call: Call, index: int) -> bool:
    """Whether an argument has more text than was kept."""
    found = call.captured.get(index)
    capture = syscalls.pointed(call.machine, call.number).get(index)
    return found is not None and (bool(found.cut) or used(call, capture, found) > len(found.data))


def _error_name(call: Call) -> str | None:
    return syscalls.errors().get(-(call.result or 0), (str(call.result),))[0] if call.failed else None
