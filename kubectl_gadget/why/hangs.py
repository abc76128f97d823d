"""What a container that runs waits for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kubectl_gadget.strace import Call
from kubectl_gadget.values import short_duration
from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.findings import Finding, plain
from kubectl_gadget.why.history import call_name

#: Shorter waits are no news, nanoseconds.
LONG_NS = 2_000_000_000


def find(facts: Facts) -> Iterator[Finding]:
    """Findings of the calls that have not returned: those of the first process's first thread count most."""
    if not facts.running:
        return
    for call, since in facts.history.blocked:
        waits = _WAITS.get(call_name(call))
        found = waits(facts, call) if waits else None
        if not found:
            continue
        cause, what = found
        lasts = f" for {short_duration(since)}" if since else ""
        who = "it" if call.pid == facts.history.main else plain(call.comm, 40)
        long = since is None or since >= LONG_NS
        leads = call.tid == facts.history.main
        weight = (60 if long else 35) + (10 if leads else 0) + _IMPORTANCE.get(cause, 0)
        yield Finding(cause, f"{who} waits{lasts} {what}", weight, certain=long and leads and cause != "nothing",
                      evidence=(call,))  # fmt: skip


_IMPORTANCE = {"hang-lock": 5, "hang-disk": 15, "hang-connect": 8, "nothing": -45}


def _thing(facts: Facts, call: Call) -> tuple[str, str]:
    """What the first argument's descriptor is: kind and name."""
    number = call.args[0] & 0xFFFFFFFF
    if facts.live and (live := facts.live.descriptors.get((call.pid, number))):
        kind, _, name = live.partition(" ")
        return kind, plain(facts.names.get(name, name))
    thing = facts.history.thing(call.pid, number)
    return (thing.kind, plain(facts.names.get(thing.name, thing.name))) if thing else ("", "")


def _reads(facts: Facts, call: Call) -> tuple[str, str]:
    kind, name = _thing(facts, call)
    if kind in ("socket", "client") and name:
        return "hang-read", f"for {name}, which sends nothing"
    if kind == "pipe":
        return "hang-read", "for the other end of a pipe, which sends nothing"
    if name:
        return "hang-read", f"in a read from {name}"
    return "hang-read", f"in a read from descriptor {call.args[0] & 0xFFFFFFFF}"


def _writes(facts: Facts, call: Call) -> tuple[str, str]:
    _, name = _thing(facts, call)
    return "hang-read", f"for {name or 'the other end'}, which takes no more of what it writes"


def _connects(facts: Facts, call: Call) -> tuple[str, str]:
    _, name = _thing(facts, call)
    return "hang-connect", f"for {name or 'a peer'} to answer its connect"


def _locks(facts: Facts, call: Call) -> tuple[str, str]:
    held = facts.live.holders.get(call.tid) if facts.live else None
    return "hang-lock", f"for a lock{f' that {plain(held)} holds' if held else ''} (futex {call.args[0]:#x})"


def _file_locks(facts: Facts, call: Call) -> tuple[str, str] | None:
    if call_name(call) == "fcntl" and call.args[1] & 0xFFFFFFFF not in (7, 38):  # F_SETLKW, F_OFD_SETLKW
        return None
    _, name = _thing(facts, call)
    held = facts.live.holders.get(call.tid) if facts.live else None
    return "hang-lock", f"for a lock of {name or 'a file'}{f', which {plain(held)} holds' if held else ''}"


def _children(facts: Facts, call: Call) -> tuple[str, str]:
    return "hang-child", "for a child to end"


def _disk(facts: Facts, call: Call) -> tuple[str, str]:
    _, name = _thing(facts, call)
    return "hang-disk", f"for the disk, to write {name or 'a file'}"


def _opens(facts: Facts, call: Call) -> tuple[str, str]:
    return "hang-read", "in an open: of a FIFO that has no other end, or of a file system that does not answer"


def _polls(facts: Facts, call: Call) -> tuple[str, str]:
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
