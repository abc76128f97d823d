"""Signals of a recording: as text, as JSON, and which of them nobody sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gadget import syscalls
from gadget.text import escape
from kubectl_gadget.strace import Call, siginfo
from kubectl_gadget.traceloop.calls import DeliveredSignal, Entry, Sender, ThreadEnd

_KILL = 9
_SI_USER, _SI_QUEUE, _SI_TKILL = 0, -1, -6  # of these siginfo_t says who sent it
#: Failures that say nothing: a program asks whether a file is a terminal, or whether there is something to read.
_NOISE = {("ioctl", "ENOTTY"), ("readlink", "EINVAL"), ("readlinkat", "EINVAL"), ("lseek", "ESPIPE")}
_AGAIN = ("EAGAIN", "ERESTARTSYS", "ERESTARTNOINTR", "ERESTARTNOHAND", "ERESTART_RESTARTBLOCK", "EINPROGRESS")


def is_noise(call: Call) -> bool:
    """Whether a call failed as such calls do in every program."""
    error = syscalls.errors().get(-(call.result or 0), ("",))[0]
    return error in _AGAIN or (syscalls.find(call.machine, call.number).name, error) in _NOISE


def is_bad(entry: DeliveredSignal) -> bool:
    """Whether a signal tells that the program did something wrong or was killed."""
    name = syscalls.signal_name(entry.number)
    return name in ("SIGKILL", "SIGABRT", "SIGSYS") or siginfo.is_fault(name, entry.code)


def without_false_kills(entries: Sequence[Entry]) -> list[Entry]:
    """Without the SIGKILL by which the kernel ends the other threads of a process that exits or begins a program.

    It is delivered to each thread without telling who sent it. Where the process really was killed one line is enough.
    """
    killed = {entry.pid for entry in entries if isinstance(entry, ThreadEnd) and entry.status & 0x7F == _KILL}
    told: dict[int, int] = {}  # the last signal of each process, or the last one whose sender is known
    false = set()
    for at, entry in enumerate(entries):
        if not isinstance(entry, DeliveredSignal) or entry.number != _KILL:
            continue
        if entry.pid not in killed:
            false |= {at} if entry.sender is None else set()
        elif (before := told.get(entry.pid)) is None:
            told[entry.pid] = at
        elif entry.sender or not getattr(entries[before], "sender", None):
            false.add(before)
            told[entry.pid] = at
        else:
            false.add(at)
    return [entry for at, entry in enumerate(entries) if at not in false]


def _by(entry: DeliveredSignal) -> str:
    """Who sent it."""
    if entry.sender is None:
        return "sender not known" if entry.number == _KILL else ""
    return f"from {_process(entry.sender)}"


def _process(sender: Sender) -> str:
    if not sender.comm:
        return "the kernel"
    return f"{escape(sender.comm)} {sender.pid}" + ("" if sender.inside else ", outside the container")


def _outside(entry: DeliveredSignal) -> bool:
    """Whether siginfo_t says that the sender has no number where the receiver is: it is in another pid namespace."""
    by_process = entry.code in (_SI_USER, _SI_QUEUE, _SI_TKILL)
    return by_process and entry.number != _KILL and bool(entry.words) and not entry.words[0] & 0xFFFFFFFF


def text(entry: DeliveredSignal) -> str:
    """As strace has it, and by whom."""
    name, by = syscalls.signal_name(entry.number), _by(entry)
    if entry.number == _KILL and entry.code == _SI_USER:
        return f"--- {name}: {by} ---"
    told = siginfo.details(entry.number, entry.code, entry.words, entry.machine)
    if not by and _outside(entry):
        by = "from outside the pod"
    return f"--- {name} {told}{f' {by}' if by else ''} ---"


def to_json(entry: DeliveredSignal) -> dict[str, Any]:
    """The same as fields. address is the first word of what siginfo_t says, whatever it is."""
    name = syscalls.signal_name(entry.number)
    first, second = (*entry.words, 0, 0)[:2]
    found: dict[str, Any] = {
        "signal": name,
        "code": entry.code,
        "code_name": siginfo.code_name(name, entry.code),
        "address": first,
    }
    if name == "SIGCHLD" and entry.code > 0:
        found |= {"child": first & 0xFFFFFFFF, "status": second & 0xFFFFFFFF if len(entry.words) > 1 else None}
    if name == "SIGSYS" and entry.code > 0 and len(entry.words) > 1:
        found["syscall"] = siginfo.called(second, entry.machine)
    sender = entry.sender
    return found | {
        "sender": sender and {"pid": sender.pid or None, "comm": sender.comm or None, "inside": sender.inside},
        "outside": (not sender.inside and bool(sender.comm)) if sender else _outside(entry),
    }
