"""Causes that the end itself shows: signals, out of memory, a status."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import NamedTuple

from gadget import syscalls
from gadget.kinds.texts import decode_text
from gadget.kinds.times import short_duration
from kubectl_gadget.strace import Call, siginfo
from kubectl_gadget.traceloop.calls import DeliveredSignal, SentSignal, ThreadEnd
from kubectl_gadget.why.arguments import call_name
from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.findings import Finding, plain, quoted
from kubectl_gadget.why.history import CallHistory

_FAULTS = {"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGTRAP"}
#: Signals that ask a program to end, and those that ask others to end and others for something else: a dump, a reload.
_STOPS, _OTHERS = ("SIGTERM", "SIGINT"), ("SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")
#: Who ended so soon after one of those ended by it, nanoseconds.
_AT_ONCE_NS = 1_000_000_000
#: How long after SIGTERM a SIGKILL is no part of the same request to end, nanoseconds.
_APART_NS = 500_000_000
#: How long a program may take to end if nobody says otherwise, and by how much a kubelet with much to do is later.
_GRACE_SECONDS, _SLACK_SECONDS = 30, 15
#: Calls that a process makes at most that ends because a child was killed.
_GIVES_UP = 40
_SI_KERNEL = 0x80  # asm-generic/siginfo.h
_MIB = 1 << 20
#: Who ends containers because somebody has asked for it.
_RUNTIME = re.compile(r"runc|crun|youki|runsc|containerd|docker|conmon|kubelet|crio|podman|systemd|init$|gvisor|kata")


def find(facts: Facts) -> Iterator[Finding]:
    """Findings of how a container ended."""
    if facts.running:
        return
    if facts.oom:
        yield _out_of_memory(facts)
    if facts.known and not facts.status and not facts.oom:
        yield _clean(facts)
        return
    if not facts.signal and facts.status:
        yield from _handled(facts)
        yield from _caught(facts)
    yield from _not_started(facts)
    fatal = _fatal(facts)
    if fatal and not (facts.ended_by_oom and fatal[2] == signal.SIGKILL):
        yield from _killed(facts, *fatal)
    if not facts.known and not facts.status:
        yield Finding("nothing", "nobody saw how it ended", 2)
    elif facts.status:
        silent = facts.history.complete and not facts.history.last_words()
        yield Finding("nothing", f"nothing stands out before its end{', and it said nothing' * silent}", 1)


def _fatal(facts: Facts) -> tuple[int, int, int] | None:
    """The process that a signal ended and that its container ended by, its rank in the chain, and the signal."""
    history = facts.history
    if facts.signal:
        return history.main, 0, facts.signal
    for rank, pid in enumerate(history.chain):
        for end in history.ends.get(pid, [])[-1:]:
            if end.status & 0x7F:
                return pid, rank, end.status & 0x7F
    return None


def _out_of_memory(facts: Facts) -> Finding:
    """That a process was killed for want of memory, which may be long ago: one that ended nothing is no news."""
    history = facts.history
    victims = [end for ends in history.ends.values() for end in ends if end.oom]
    victim = max(victims, key=lambda end: (end.pid == history.main, end.time_ns), default=None)
    who = plain(history.program(victim.pid) or victim.comm, 40) if victim else "a process of it"
    limit = f", whose limit is {facts.kubernetes.memory_limit // _MIB} MiB" if facts.kubernetes and (
        facts.kubernetes.memory_limit) else ""  # fmt: skip
    what = f"the kernel killed {who} for want of memory in the container{limit}"
    if victim is None:
        return Finding("oom", what, 97)
    certain = victim.pid == history.main and facts.signal == signal.SIGKILL
    ends = history.ends.get(history.main, [])
    at_once = bool(facts.code) and bool(ends) and ends[-1].time_ns - victim.time_ns <= _AT_ONCE_NS
    long_ago = not at_once and history.work_after(history.entries.index(victim), history.main) > _GIVES_UP
    weight = 97 if victim.pid in history.chain or not long_ago else 65
    return Finding("oom", what, weight, certain, evidence=(victim,))


def _clean(facts: Facts) -> Finding:
    policy = facts.kubernetes.restart_policy if facts.kubernetes else ""
    if policy == "Always":
        return Finding("clean-exit", "it ended by itself with 0, though it should run on", 60, certain=True,
                       details=_closing(facts))  # fmt: skip
    return Finding("clean-exit", "it ended by itself with 0", 60, certain=True, benign=True, details=_closing(facts))


def _closing(facts: Facts) -> tuple[str, ...]:
    words = facts.history.last_words(facts.history.chain).strip()
    return (f"its last words were {quoted(words.splitlines()[-1])}",) if words else ()


def _killed(facts: Facts, pid: int, rank: int, number: int) -> Iterator[Finding]:
    history, name = facts.history, syscalls.signal_name(number)
    signals = [each for each in history.signals if each.pid == pid and each.number == number]
    last = signals[-1] if signals else None
    who = "it" if not rank else plain(history.program(pid), 40)
    ends: tuple[ThreadEnd, ...] = tuple(history.ends.get(pid, [])[-1:])
    evidence = (*((last,) if last else ()), *ends)
    weight = 90 - 3 * rank
    if name == "SIGSEGV" and _aborted(history, pid):
        name = "SIGABRT"  # the first process of a pid namespace cannot end itself by it: abort(3) then halts
    if name in _FAULTS and (last is None or siginfo.is_fault(name, last.code) or last.sender is None):
        what = f"{who} crashed: {name}{_fault(last)}"
        found = history.mapped(pid, last.words[0]) if last and last.words else None
        details = (f"there it has mapped {plain(found[0])}, offset {found[1]:#x}",) if found else ()
        yield Finding("fault", what, weight, certain=last is not None, evidence=evidence, details=details)
        return
    if name == "SIGABRT" and _own(last):
        words = history.last_words([pid]).strip()
        said = f", and said {quoted(' '.join(words.splitlines()[-2:]))}" if words else ""
        yield Finding("abort", f"{who} aborted itself{said}", weight - 4, certain=last is not None, evidence=evidence)
        return
    if name == "SIGSYS":
        call = siginfo.called(last.words[1], last.machine) if last and len(last.words) > 1 else "a call"
        yield Finding("seccomp", f"its seccomp profile killed {who} for {call}", 97, certain=True, evidence=evidence)
        return
    if name in ("SIGXFSZ", "SIGXCPU"):
        what = "a file larger than its limit" if name == "SIGXFSZ" else "more CPU time than its limit"
        yield Finding("file-size" if name == "SIGXFSZ" else "killed", f"{who} was killed for {what} ({name})", weight,
                      certain=True, evidence=evidence)  # fmt: skip
        return
    if name == "SIGPIPE" and _own(last):
        yield Finding("reset", f"{who} wrote to a pipe or connection that nobody reads any more (SIGPIPE)", weight,
                      certain=last is not None, evidence=evidence)  # fmt: skip
        return
    yield _by_somebody(facts, pid, number, who, weight, evidence)


def _aborted(history: CallHistory, pid: int) -> bool:
    """Whether the first process of a pid namespace, which numbers itself 1, sent SIGABRT to itself last."""
    sent = [call for call in history.calls("tgkill", "kill", "tkill") if call.pid == pid]
    while sent and _number(sent[-1]) == signal.SIGSEGV:  # a handler that lets it have its way
        sent.pop()
    if not sent or sent[-1].failed:
        return False
    whole = call_name(sent[-1]) != "tkill"
    return _number(sent[-1]) == signal.SIGABRT and (not whole or sent[-1].args[0] & 0xFFFFFFFF == 1)


def _number(call: Call) -> int:
    """The signal that a call sends."""
    return call.args[2 if call_name(call) == "tgkill" else 1] & 0xFFFFFFFF


def _sent_by(history: CallHistory, pid: int, number: int) -> Call | None:
    """The call by which another process of the container sent a child the signal that ended it, if it is recorded."""
    known = {
        wait.child for parent, waits in history.waits.items() for wait in waits if history.child(parent, wait) == pid
    }
    for call in reversed([*history.calls("kill")]):
        target = call.args[0] & 0xFFFFFFFF
        if call.pid != pid and not call.failed and _number(call) == number and target in known:
            return call
    return None


def _own(last: DeliveredSignal | None) -> bool:
    """Whether a process sent a signal to itself, as far as is known."""
    if last is None or last.sender is None:
        return True
    return last.sender.pid == last.pid or (last.sender.inside and last.sender.comm == last.comm)


def _by_somebody(
    facts: Facts, pid: int, number: int, who: str, weight: float, evidence: tuple[DeliveredSignal | ThreadEnd, ...]
) -> Finding:
    """A signal that another process sent."""
    name = syscalls.signal_name(number)
    last = next((each for each in evidence if isinstance(each, DeliveredSignal)), None)
    sender = last.sender if last else None
    if not sender and (call := _sent_by(facts.history, pid, number)):
        what = f"{plain(call.comm, 40)} ({call.pid}), a process of the same container, sent {who} {name}"
        return Finding("killed-by-process", what, weight + 5, evidence=(call, *evidence))
    if sender and sender.inside and not (last and sender.pid == last.pid):
        what = f"{plain(sender.comm, 40)} ({sender.pid}), a process of the same container, sent {who} {name}"
        return Finding("killed-by-process", what, weight + 5, certain=True, evidence=evidence)
    if sender and sender.comm and not _RUNTIME.match(sender.comm):
        what = f"{plain(sender.comm, 40)} ({sender.pid}), a process outside the container, sent {who} {name}"
        return Finding("killed-by-process", what, weight + 3, certain=True, evidence=evidence)
    asked = _asked_before(facts, last.time_ns if last else facts.ended_ns) if name == "SIGKILL" else None
    if asked:
        what = f"it was asked to end by {asked.name} and did not for {short_duration(asked.ago_ns)}, so it was killed"
        return Finding("ignored-sigterm", what, weight, certain=asked.ago_ns <= _grace_ns(facts), evidence=evidence)
    by = f" by {plain(sender.comm, 40)}" if sender and sender.comm else ""
    if name == "SIGTERM" and who == "it":
        return Finding("killed-deletion", f"it was asked to end from outside{by} (SIGTERM), and did", 70, certain=False,
                       evidence=evidence, benign=True)  # fmt: skip
    if sender and not sender.comm:
        return Finding("killed", f"the kernel killed {who} ({name})", weight, evidence=evidence)
    outside = f" from outside the container{by}" if sender or name == "SIGKILL" else ""
    return Finding(
        "killed", f"{who} was killed{outside} ({name})", weight - 10, certain=bool(sender), evidence=evidence
    )


def heard(facts: Facts) -> DeliveredSignal | None:
    """The last request to end that the first process heard, if it may be why it ended with a status of its own."""
    for each in reversed(facts.history.signals):
        name = syscalls.signal_name(each.number)
        at_once = _before_end(facts, each) <= _AT_ONCE_NS
        if each.pid == facts.history.main and (name in _STOPS or (name in _OTHERS and at_once)):
            return each
    return None


def in_time(facts: Facts, asked: DeliveredSignal) -> bool:
    """Whether it ended within its grace period."""
    return _before_end(facts, asked) <= _grace_ns(facts)


def _before_end(facts: Facts, each: DeliveredSignal) -> int:
    ends = facts.history.ends.get(facts.history.main, [])
    return (ends[-1].time_ns if ends else facts.ended_ns) - each.time_ns


def _handled(facts: Facts) -> Iterator[Finding]:
    """A request to end that the first process heard, and ended by, with a status of its own."""
    last = heard(facts)
    if last is None:
        return
    name, sender, soon = syscalls.signal_name(last.number), last.sender, in_time(facts, last)
    as_asked = facts.code in (128 + last.number, 128 + signal.SIGINT)
    weight, certain = 84 if soon else 40, soon and as_asked
    what = f"it was asked to end by {name}, and exited with {facts.code}"
    by = ""
    if sender and sender.inside and sender.pid != facts.history.main:
        by = "a process of the same container"
    elif sender and sender.comm and not sender.inside and not _RUNTIME.match(sender.comm):
        by = "a process outside the container"
    if sender and by:
        what = f"{plain(sender.comm, 40)} ({sender.pid}), {by}, sent it {name}; it exited with {facts.code}"
        yield Finding("killed-by-process", what, weight, certain, evidence=(last,))
    else:
        yield Finding("killed-deletion", what, weight, certain, evidence=(last,), benign=certain)


def _caught(facts: Facts) -> Iterator[Finding]:
    """A crash that the program's own handler made an exit of."""
    history, looked_at = facts.history, set()
    for each in reversed(history.signals):
        name = syscalls.signal_name(each.number)
        if each.pid in looked_at:
            continue  # after an earlier one it has done as much at least
        if each.pid in history.chain and name in _FAULTS and siginfo.is_fault(name, each.code):
            looked_at.add(each.pid)
            if name == "SIGSEGV" and history.work_after(history.entries.index(each), each.pid) > _HANDLER:
                continue  # runtimes of languages make exceptions of it
            who = "it" if each.pid == history.main else plain(history.program(each.pid), 40)
            yield Finding(
                "fault", f"{who} crashed: {name}{_fault(each)}, and its handler ended it", 72, evidence=(each,)
            )
            return


#: What a runtime says that could not start a program, and what that means.
STARTS = {
    "permission denied": "not-executable",
    "is a directory": "not-executable",
    "exec format error": "wrong-format",
    "no such file": "missing-program",
    "executable file not found": "missing-program",
    "not found in $PATH": "missing-program",
}
#: Calls that a handler of a crash makes before it ends its program, at most.
_HANDLER = 20
#: What runc's first process tells its parent if the program cannot be started.
_RUNC_ERROR = re.compile(r'\{"message":"(?P<what>(?:[^"\\]|\\.)*)')


def _not_started(facts: Facts) -> Iterator[Finding]:
    """A container whose program its runtime could not start."""
    history = facts.history
    if any(not end.comm.startswith("runc") for ends in history.ends.values() for end in ends):
        return
    for call in history.calls("write"):
        found = call.captured.get(1)
        match = _RUNC_ERROR.search(decode_text(found.data)) if found and call.comm.startswith("runc") else None
        if match is None or len(match["what"]) < 8:
            continue
        what = match["what"].replace('\\"', '"')
        cause = next((cause for words, cause in STARTS.items() if words in what), "config-error")
        yield Finding(cause, f"its program could not be started: {plain(what)}", 98, certain=True, evidence=(call,))


class _Request(NamedTuple):
    """A signal that asked the first process to end, so long before it was killed."""

    ago_ns: int
    name: str


def _asked_before(facts: Facts, killed_ns: int) -> _Request | None:
    """The request to end that a kill follows, heard or not: the first within the grace period, or else the last."""
    history = facts.history
    sent: list[SentSignal | DeliveredSignal] = [*history.sent, *history.signals]
    asked = []
    for each in sent:
        name, ago_ns = syscalls.signal_name(each.number), killed_ns - each.time_ns
        by_runtime = each.sender and not each.sender.inside and _RUNTIME.match(each.sender.comm)
        # some images ask by SIGQUIT, which else asks a JVM to say what it does
        asks = name in _STOPS or (name == "SIGQUIT" and by_runtime and ago_ns <= _grace_ns(facts))
        if each.pid == history.main and asks and ago_ns >= _APART_NS:
            asked.append(_Request(ago_ns, name))
    near = [each for each in asked if each.ago_ns <= _grace_ns(facts)]
    return max(near) if near else min(asked, default=None)


def _grace_ns(facts: Facts) -> int:
    """How long it may take from a request to end to a SIGKILL."""
    seconds = facts.kubernetes.grace_seconds if facts.kubernetes else 0
    return ((seconds or _GRACE_SECONDS) + _SLACK_SECONDS) * 1_000_000_000


def _fault(last: DeliveredSignal | None) -> str:
    if last is None or not last.words or last.code == _SI_KERNEL:
        return ""  # of an address that no pointer can have the kernel tells none
    address = last.words[0]
    if last.number in (7, 11):
        kind = " (a null pointer)" if address < 4096 else ""
        return f" at address {address:#x}{kind}"
    return f" at {address:#x}"
