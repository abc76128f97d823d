"""Finds what a running container waits for."""

from __future__ import annotations

import re
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from os import O_RDWR, O_WRONLY

from gadget.kinds.texts import decode_text
from gadget.kinds.times import short_duration
from kubectl_gadget.strace import Call
from kubectl_gadget.traceloop.calls import DeliveredSignal, ThreadEnd
from kubectl_gadget.why.arguments import OPENS, call_name, endpoint, meaning
from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.findings import Finding, plain
from kubectl_gadget.why.meant import IDLE, SHORT, mentions_subject
from kubectl_gadget.why.noted import Failure

#: Shorter waits are no news, nanoseconds.
LONG_NS = 2_000_000_000


def find(facts: Facts) -> Iterator[Finding]:
    """Findings of the calls that have not returned, and of peers that have not answered."""
    if not facts.running or not facts.recorded:
        return
    waits = [found for call, since in facts.history.blocked if (found := _wait(facts, call, since))]
    telling = any(found.cause in ("hang-read", "hang-connect", "hang-disk", "hang-child") for found in waits)
    for found in waits:
        # threads of a runtime's own wait for work by futex
        idle = 70 if found.cause == "hang-lock" and (telling or _serves(facts)) else 0
        yield replace(found, weight=found.weight - idle, certain=found.certain and not idle)
    yield from _silent_peers(facts, waits)
    yield from _tries_again(facts, serves=_serves(facts))
    yield from _computes(facts)
    yield from _preempted(facts)
    if all(call_name(call) in _PAUSES and (since or 0) < LONG_NS for call, since in facts.history.blocked):
        yield from _busy(facts)


def _wait(facts: Facts, call: Call, since: int | None) -> Finding | None:
    """What a call that has not returned waits for; none if it is not known to wait."""
    waits = _WAITS.get(call_name(call))
    found = waits(facts, call) if waits else None
    long = since is None or since >= LONG_NS
    if not found:
        return None
    rests = found[0] == "hang-lock" and (not long or _is_go(facts))  # a goroutine that waits for a lock has no thread
    if rests and _works_meanwhile(facts, call):
        return None
    cause, what = found
    lasts = f"has waited {short_duration(since)}" if since else "waits"
    who = "it" if call.pid == facts.history.main else plain(call.comm, 40)
    leads = call.tid == facts.history.main
    weight = (60 if long else 35) + (10 if leads else 0) + _IMPORTANCE.get(cause, 0)
    sentence = f"{who} {lasts} {what}"
    # who waits for a condition waits by futex as well: only a lock has a holder
    forced = cause != "nothing" and (not call_name(call).startswith("futex") or bool(_holder(facts, call)))
    return Finding(cause, sentence, weight, certain=long and leads and forced, evidence=(call,))


def _serves(facts: Facts) -> bool:
    """Whether it listens, or some thread waits for events, as the one does that has the work of others to give."""
    return facts.history.listens() or any(
        call_name(call).startswith(("epoll", "accept")) for call, _ in facts.history.blocked
    )


def _is_go(facts: Facts) -> bool:
    """Whether it began with Go's runtime, which asks for its processors with a buffer of 8 KiB (os_linux.go)."""
    return any(call.args[1] == _GO_BYTES for call in facts.history.calls("sched_getaffinity"))


def _works_meanwhile(facts: Facts, call: Call) -> bool:
    """Whether the process of a futex did more than its runtime just now: who has the work rests by futex too."""
    last = facts.now_ns - LONG_NS // 4
    return call_name(call).startswith("futex") and any(
        isinstance(each, Call) and each.pid == call.pid and each.time_ns > last and call_name(each) not in _GO_RUNS
        for each in facts.history.entries
    )


def _silent_peers(facts: Facts, waits: Sequence[Finding]) -> Iterator[Finding]:
    """Peers that were asked and have not answered, of programs that wait for all of their sockets at once.

    Without those that a call of its first process waits for.
    """
    for peer, since_ns, connects in facts.history.unanswered():
        lasts = facts.now_ns - since_ns
        if lasts < LONG_NS // 4:
            continue
        name, cause = plain(facts.names.get(peer, peer)), "hang-connect" if connects else "hang-read"
        own = [each.sentence for each in waits if each.cause != "hang-child" and each.sentence.startswith("it ")]
        if any(f" {name}," in f"{sentence}," for sentence in own):
            continue
        what = f"for {name} to answer its connect" if connects else f"for {name}, which has not answered"
        yield Finding(cause, f"it has waited {short_duration(lasts)} {what}", 64)


#: What was tried so often, for so long, is waited for.
_LOOKS, _LOOKS_NS = 5, 500_000_000
#: Lines, but for their numbers, that a program tells of one thing that it tries.
_REPEATED = 3
#: What a program tries again and again means, and how that is said. A peer is news also if other threads wait for work.
_AGAIN = {
    "ENOENT": ("missing-file", "looks for", 58),
    "ECONNREFUSED": ("refused", "tries to connect to", 78),
    "ENETUNREACH": ("unreachable", "tries to connect to", 78),
    "EHOSTUNREACH": ("unreachable", "tries to connect to", 78),
}


#: By how much less a peer weighs that a server tries beside its other work.
_BESIDE = 28


def _tries_again(facts: Facts, *, serves: bool) -> Iterator[Finding]:
    """A file or a peer that is not there, which its program tries at regular times until now, and does nothing else.

    A server has other work, and looks for files that it does without. A peer that refuses it is still news.
    """
    found: dict[tuple[str, str, str], list[Failure]] = defaultdict(list)
    for failure in facts.history.failures:
        wanted = (failure.error == "ENOENT" and not IDLE.search(failure.subject)) or failure.name == "connect"
        if wanted and failure.error in _AGAIN and failure.subject:
            found[failure.error, failure.name, failure.subject].append(failure)
    for (error, _, subject), failures in found.items():
        calls = [each.call for each in failures]
        lasts = calls[-1].time_ns - calls[0].time_ns
        if len(calls) < _LOOKS or lasts < _LOOKS_NS:
            continue
        if (error == "ENOENT" or facts.history.reached(failures[-1])) if serves else _works(facts, failures[0]):
            continue
        if facts.now_ns - calls[-1].time_ns <= 2 * lasts / (len(calls) - 1) + _LOOKS_NS:
            cause, verb, weight = _AGAIN[error]
            weight -= _BESIDE * serves
            name = plain(facts.names.get(subject, subject))
            what = f"it {verb} {name} again and again, {len(calls)} times in {short_duration(lasts)}"
            yield Finding(cause, f"{what}: {SHORT.get(error, meaning(error).lower())}", weight, evidence=(calls[-1],))


def _works(facts: Facts, since: Failure) -> bool:
    """Whether something was written to a file since a failure, or more was told than that it is tried again."""
    opens, since_ns = facts.history.calls("open", "openat"), since.call.time_ns
    lines = facts.history.words_after(since_ns).splitlines()
    others = {re.sub(r"\d+", "", line) for line in lines if not mentions_subject(line, since)}
    return len(others) > _REPEATED or any(
        (call.result or 0) >= 0
        and call.args[OPENS[call_name(call)] + 1] & (O_WRONLY | O_RDWR)
        and call.time_ns > since_ns
        and b"/dev/null" not in (each.data for each in call.captured.values())
        for call in opens
    )


#: What Go's runtime calls for itself, and the signal by which it stops who has run for 10 ms (runtime/preempt.go).
_GO_RUNS = frozenset(
    ("futex", "nanosleep", "getpid", "tgkill", "rt_sigreturn", "sched_yield", "madvise", "epoll_pwait")
)
_GO_STOPS, _SI_TKILL, _OFTEN = 23, -6, 10
_GO_BYTES = 8192


def _preempted(facts: Facts) -> Iterator[Finding]:
    """A goroutine that makes no calls, whose runtime takes it off the processor over and over."""
    last = [entry for entry in facts.history.entries if facts.now_ns - entry.time_ns < LONG_NS // 2]
    stops = [
        each
        for each in last
        if isinstance(each, DeliveredSignal) and (each.number, each.code) == (_GO_STOPS, _SI_TKILL)
    ]
    if len(stops) >= _OFTEN and all(call_name(each) in _GO_RUNS for each in last if isinstance(each, Call)):
        yield Finding("hang-busy", "a goroutine of it waits for nothing: it runs, and makes no calls", 68,
                      evidence=(stops[-1],))  # fmt: skip


def _computes(facts: Facts) -> Iterator[Finding]:
    """A thread that makes no calls while others wait: the first of its process, or one whose end that one waits for."""
    history, waiting = facts.history, {call.tid: call for call, _ in facts.history.blocked}
    first = waiting.get(history.main)
    joins = first is not None and call_name(first) == "futex" and _locks(facts, first)[0] == "nothing"
    if not waiting or (first and not joins):
        return
    last: dict[int, Call] = {}
    for entry in history.entries:
        if isinstance(entry, Call) and entry.pid == history.main:
            last[entry.tid] = entry
        elif isinstance(entry, ThreadEnd):
            last.pop(entry.tid, None)
    for tid, call in last.items():
        silent = facts.now_ns - call.time_ns
        if (joins or tid == history.main) and tid not in waiting and silent >= LONG_NS // 2 and call.result is not None:
            what = f"a thread of it waits for nothing: it runs, and has made no call for {short_duration(silent)}"
            yield Finding("hang-busy", what, 70)


#: By which a program that asks again and again rests in between.
_PAUSES = ("nanosleep", "clock_nanosleep", "sched_yield", "poll", "ppoll", "select", "epoll_wait", "epoll_pwait")


def _busy(facts: Facts) -> Iterator[Finding]:
    """No thread waits: it runs, without calls or with the same ones over and over."""
    calls = [entry for entry in facts.history.entries if isinstance(entry, Call)]
    if not calls:
        yield Finding("hang-busy", "it waits for nothing: it runs, and makes no calls", 60)
        return
    silent = facts.now_ns - calls[-1].time_ns
    last = Counter(call_name(call) for call in calls[-200:])
    if silent >= LONG_NS // 2 and not facts.history.blocked:
        yield Finding("hang-busy", f"it waits for nothing: it runs, and has made no call for {short_duration(silent)}",
                      66)  # fmt: skip
    elif sum(count for _, count in last.most_common(3)) > 0.95 * min(len(calls), 200) and len(calls) > 20:
        names = " and ".join(sorted(name for name, count in last.most_common(3) if count > 2))
        yield Finding("hang-busy", f"it does the same over and over: {names}", 62)


#: How pthread_join(3) waits: on the word that the kernel clears when the thread ends, which is no private futex of the
#: process; FUTEX_WAIT, and FUTEX_WAIT_BITSET by the real time clock (glibc, nptl/pthread_join_common.c).
_JOINS = (0, 0x109)
_IMPORTANCE = {"hang-lock": 5, "hang-disk": 15, "hang-connect": 8, "nothing": -45}


def _thing(facts: Facts, call: Call) -> tuple[str, str]:
    """What the first argument's descriptor is: kind and name."""
    number = call.args[0] & 0xFFFFFFFF
    if facts.live and (live := facts.live.descriptors.get((call.pid, number))):
        kind, _, name = live.partition(" ")
        if name or kind == "pipe":
            return kind, plain(facts.names.get(name, name))
    thing = facts.history.thing(call.pid, number)
    return (thing.kind, plain(facts.names.get(thing.name, thing.name))) if thing else ("", "")


def _reads(facts: Facts, call: Call) -> tuple[str, str]:
    kind, name = _thing(facts, call)
    if kind in ("socket", "client") and name:
        return "hang-read", f"for {name}, which sends nothing"
    if kind == "pipe":
        return "hang-read", "for the other end of a pipe, which sends nothing"
    if kind == "inotify":
        return "hang-read", "for a file to change (inotify)"
    if name:
        return "hang-read", f"in a read from {name}"
    return "hang-read", f"in a read from descriptor {call.args[0] & 0xFFFFFFFF}"


def _writes(facts: Facts, call: Call) -> tuple[str, str]:
    _, name = _thing(facts, call)
    return "hang-read", f"for {name or 'the other end'}, which takes no more of what it writes"


def _connects(facts: Facts, call: Call) -> tuple[str, str]:
    peer = endpoint(call.captured[1].data) if 1 in call.captured else ""
    name = plain(facts.names.get(peer, peer)) or _thing(facts, call)[1]
    return "hang-connect", f"for {name or 'a peer'} to answer its connect"


def _holder(facts: Facts, call: Call) -> str:
    """Who holds the lock that a call waits for; empty if that is not known."""
    return plain(facts.live.holders.get(call.tid, "")) if facts.live else ""


def _locks(facts: Facts, call: Call) -> tuple[str, str]:
    # a lock that processes share is of the first kind too, its word 1 or 2 (nptl/lowlevellock.h)
    if call.args[1] & 0xFFFFFFFF in _JOINS and call.args[2] & 0xFFFFFFFF > 2:
        return "nothing", f"for its thread {call.args[2] & 0xFFFFFFFF} to end"
    held = _holder(facts, call)
    lock = f"a lock that {held} holds" if held else "a lock or another thread"
    return "hang-lock", f"for {lock} (futex {call.args[0]:#x})"


def _file_locks(facts: Facts, call: Call) -> tuple[str, str] | None:
    if call_name(call) == "fcntl" and call.args[1] & 0xFFFFFFFF not in (7, 38):  # F_SETLKW, F_OFD_SETLKW
        return None
    _, name = _thing(facts, call)
    held = _holder(facts, call)
    return "hang-lock", f"for a lock of {name or 'a file'}{f', which {held} holds' if held else ''}"


def _children(facts: Facts, call: Call) -> tuple[str, str]:
    others = ((other, _WAITS.get(call_name(other))) for other, _ in facts.history.blocked if other.pid != call.pid)
    for other, waits in others:
        found = waits(facts, other) if waits and call_name(other) not in ("wait4", "waitid") else None
        if found:
            return "hang-child", f"for a child to end: {plain(other.comm, 40)}, which waits {found[1]}"
    child = facts.live.children.get(call.tid) if facts.live else None
    return "hang-child", f"for a child to end{f', {plain(child)}' if child else ''}"


def _disk(facts: Facts, call: Call) -> tuple[str, str]:
    _, name = _thing(facts, call)
    return "hang-disk", f"for the disk, to write {name or 'a file'}"


def _opens(facts: Facts, call: Call) -> tuple[str, str]:
    path = decode_text(next(iter(call.captured.values())).data) if call.captured else ""
    parts = facts.live.paths.get(path, ()) if facts.live else ()
    if parts and stat.S_ISFIFO(parts[-1].mode):
        return "hang-read", f"in an open of {plain(path)}, a FIFO that nobody has opened at its other end"
    name = f" of {plain(path)}" if path else ""
    return "hang-read", f"in an open{name}: of a FIFO that has no other end, or of a file system that does not answer"


def _polls(facts: Facts, call: Call) -> tuple[str, str]:
    things = facts.live.waits.get(call.tid, ()) if facts.live else ()
    kind, _, name = things[0].partition(" ") if len(things) == 1 else ("", "", "")
    if kind == "socket" and name and call_name(call) in ("poll", "ppoll"):
        return "hang-read", f"for {plain(facts.names.get(name, name))}, which sends nothing"
    return "nothing", f"for events ({call_name(call)}), as a server does that nobody asks"


def _sleeps(facts: Facts, call: Call) -> tuple[str, str]:
    return "nothing", f"on purpose ({call_name(call)})"


_WAITS: dict[str, Callable[[Facts, Call], tuple[str, str] | None]] = {
    **dict.fromkeys(("read", "readv", "recvfrom", "recvmsg", "pread64"), _reads),
    **dict.fromkeys(("write", "writev", "sendto", "sendmsg"), _writes),
    **dict.fromkeys(("fsync", "fdatasync", "sync", "syncfs", "msync"), _disk),
    **dict.fromkeys(("wait4", "waitid"), _children),
    **dict.fromkeys(("futex", "futex_wait", "futex_waitv"), _locks),
    **dict.fromkeys(("flock", "fcntl"), _file_locks),
    **dict.fromkeys(("open", "openat"), _opens),
    **dict.fromkeys(("poll", "ppoll", "select", "pselect6", "epoll_wait", "epoll_pwait", "epoll_pwait2", "accept",
                     "accept4", "pause", "rt_sigtimedwait", "rt_sigsuspend", "io_getevents", "io_uring_enter"), _polls),
    **dict.fromkeys(("nanosleep", "clock_nanosleep"), _sleeps),
    "connect": _connects,
}  # fmt: skip
