"""What follows from a recording: whose end was whose, what was said last, who still worked."""

from __future__ import annotations

import re
import signal
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice, takewhile

from kubectl_gadget.strace import Call
from kubectl_gadget.traceloop.calls import ThreadEnd
from kubectl_gadget.why.arguments import call_name
from kubectl_gadget.why.noted import NotedCalls, Waited

_SELF = "/proc/self/exe"
#: What wait4 adds to the status of a process whose core was dumped, and waitid does not.
_DUMPED = 0x80
#: Signals of a program that did something wrong.
_FATAL = (4, 6, 7, 8, 11, 31)
#: Signals by which a program ends itself, or is ended for what it did just then; and those that ask it to end.
_OWN = (signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGSYS)
_ASKS = (signal.SIGINT, signal.SIGTERM)
#: Who worked on for so long after one of them did not end by it, nanoseconds: most pods have 30 s.
_HEARD_NS = 60_000_000_000
#: For how long Go's runtime rests at most before it looks again what there is to do, nanoseconds (proc.go, sysmon).
_SHORT_NS = 20_000_000
#: What scripts run as they end, whether there is something to clean or not.
_CLEANERS = ("rm", "rmdir", "unlink", "umount", "kill", "killall", "pkill")
#: Calls by which a program ends or says why: they are no work of its own.
_WORDS = frozenset(("write", "writev", "exit", "exit_group", "close", "munmap", "rt_sigaction", "rt_sigprocmask",
                    "rt_sigreturn", "futex", "madvise", "brk", "getpid", "gettid", "tgkill", "kill", "fstat", "lseek",
                    "ioctl", "sigaltstack", "sched_yield", "mmap", "mprotect", "clock_gettime", "getrandom", "fsync",
                    "restart_syscall", "poll", "set_robust_list", "unlink", "rmdir", "wait4", "dup2"))  # fmt: skip
#: Lines of stacks, as Java and Node, Python, and Go write them.
_FRAME = re.compile(
    r"^(?:(?:\t| {4,})(?:at |\.\.\. \d+ (?:more|common)|\^+$)[^\n]*|"
    r"\t/[^\n]*:\d+(?: \+0x[0-9a-f]+)?(?: fp=0x[0-9a-f]+ sp=0x[0-9a-f]+ pc=0x[0-9a-f]+)?|"
    r"created by [^\n]*|goroutine \d+ [^\n]*:|\.\.\.(?:additional|\d+) frames[^\n]*|"
    r"[\w./]+(?:\(\*\w+\)[\w.]*)?\([^\n]*\))\n",
    re.MULTILINE,
)
_BLANK = re.compile(r"\n\s*\n")
#: Letters of what was said that are looked at, its last.
_MOST_WORDS = 4000


def _as_shell(status: int) -> int:
    """The exit code of a shell whose command ended with this status."""
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8 & 0xFF


class CallHistory(NotedCalls):
    """A recording, and what follows from it."""

    @cached_property
    def chain(self) -> list[int]:
        """The container's first process, then the child whose end it took over, then that one's, and so on."""
        found, pid = [self.main], self.main
        while pid and (child := self._culprit(pid)) and child not in found:
            found.append(child)
            pid = child
        return found

    @cached_property
    def interrupted(self) -> bool:
        """Whether a signal ended it, or asked it to, that came of nothing it said before."""
        ends = [self.ends[pid][-1] for pid in self.chain if pid in self.ends]
        ended = [(self.main, self._status or 0), *((end.pid, end.status) for end in ends)]
        numbers = [status & 0x7F for pid, status in ended if not self._aborts(pid)]
        over = max((self.ends[pid][-1].time_ns for pid in self.chain if pid in self.ends), default=0)
        heard = any(
            each.pid in self.chain and each.number in _ASKS and over - each.time_ns < _HEARD_NS for each in self.signals
        )
        return heard or any(number and number not in _OWN for number in numbers)

    def _aborts(self, pid: int) -> bool:
        """Whether a process sent itself SIGABRT last: that ends the first of a pid namespace by SIGSEGV.

        What it then sends again is what its handler of that heard: Node's does so.
        """
        sent = [
            call.args[2 if call_name(call) == "tgkill" else 1] & 0xFFFFFFFF
            for call in self.calls("tgkill", "tkill")
            if call.pid == pid
        ]
        return [number for number in sent if number != signal.SIGSEGV][-1:] == [signal.SIGABRT]

    def _culprit(self, pid: int) -> int:
        """The process whose end a process took for its own: 0 if there is none.

        It waited for that one and then ended alike, or ended at once, badly too.
        """
        own, waits = self.ends.get(pid, []), self.waits.get(pid, [])
        if not own or not waits or own[-1].status & 0x7F or not own[-1].status:
            return 0
        code = own[-1].status >> 8 & 0xFF
        if alike := self._alike(pid):
            # what cleans up behind a failure fails as well
            return ([child for child in alike if self.program(child) not in _CLEANERS] or alike)[-1]
        last = waits[-1]
        if any(_as_shell(wait.status) == code for wait in waits):
            return 0
        at_once = last.status and (not self._work_since(last.time_ns, pid) or last.status & 0x7F in _FATAL)
        return self.child(pid, last) if at_once else 0

    def _alike(self, pid: int) -> list[int]:
        """The children of a process that ended as it did, by when it learnt of that."""
        own = self.ends.get(pid, [])
        code = own[-1].status >> 8 & 0xFF if own else 0
        found = [self.child(pid, wait) for wait in self.waits.get(pid, []) if _as_shell(wait.status) == code]
        return [child for child in found if child] if code else []

    @cached_property
    def ambiguous(self) -> bool:
        """Whether one of those processes had children of several programs that ended as it did."""
        programs = ({self.program(child) for child in self._alike(pid)} - set(_CLEANERS) for pid in self.chain)
        return any(len(each) > 1 for each in programs)

    def child(self, pid: int, wait: Waited) -> int:
        """The process whose end another one learnt of, as the node numbers it; 0 if its end is not recorded."""
        ended = self._by_status.get(wait.status & ~_DUMPED, [])
        until = bisect_right(ended, wait.time_ns, key=lambda end: end.time_ns)
        return next((ended[at].pid for at in range(until - 1, -1, -1) if ended[at].pid != pid), 0)

    @cached_property
    def _by_status(self) -> dict[int, list[ThreadEnd]]:
        """The ends of processes by their status, the newest last."""
        found: dict[int, list[ThreadEnd]] = {}
        for end in sorted((end for ends in self.ends.values() for end in ends), key=lambda end: end.time_ns):
            found.setdefault(end.status & ~_DUMPED, []).append(end)
        return found

    def _work_since(self, time_ns: int, pid: int) -> int:
        """How many calls a process made since, beside words and its end."""
        return sum(
            1
            for entry in self.entries
            if isinstance(entry, Call)
            and entry.pid == pid
            and entry.time_ns > time_ns
            and not entry.failed
            and call_name(entry) not in _WORDS
            and not (call_name(entry) == "nanosleep" and (entry.duration_ns or 0) < _SHORT_NS)
        )

    def program(self, pid: int) -> str:
        """The name of what a process ran last."""
        programs = self.programs.get(pid)
        if not programs:
            return self._comms.get(pid, "")
        last = programs[-1]
        name = last.path if last.path != _SELF else (*last.arguments, "")[0]  # busybox runs itself
        return name.rpartition("/")[2]

    @cached_property
    def _comms(self) -> dict[int, str]:
        """What each process called itself last."""
        return {entry.pid: entry.comm for entry in self.entries}

    def work_after(self, at: int, pid: int) -> int:
        """How many calls a process made after an entry that are neither words nor part of its end."""
        work = self._work.get(pid, ())
        return len(work) - bisect_right(work, at)

    @cached_property
    def _work(self) -> dict[int, list[int]]:
        """Which entries of each process are calls that are neither words nor part of its end."""
        found: dict[int, list[int]] = {}
        for at, entry in enumerate(self.entries):
            if isinstance(entry, Call) and call_name(entry) not in _WORDS:
                found.setdefault(entry.pid, []).append(at)
        return found

    def last_words(self, pids: Sequence[int] = ()) -> str:
        """The end of what processes said, all if none are named, on standard error and standard output together.

        Without the frames of stacks and empty lines, of which there may be thousands between an error and the end.
        """
        return self.words_after(0, pids)

    def words_after(self, time_ns: int, pids: Sequence[int] = ()) -> str:
        """Likewise what was said from a time on."""
        first = bisect_left(self.said, time_ns, key=lambda said: said.time_ns)
        key = frozenset(pids), first
        if key not in self._words:
            text = "".join(said.text for said in self.said[first:] if not pids or said.pid in key[0])
            self._words[key] = _BLANK.sub("\n\n", _FRAME.sub("", text))[-_MOST_WORDS:]
        return self._words[key]

    @cached_property
    def _words(self) -> dict[tuple[frozenset[int], int], str]:
        """What words_after has told, by processes and piece."""
        return {}

    def worked(self, tid: int, since_ns: int, until_ns: int) -> int:
        """How many calls a thread made between two times that are neither words nor part of its end."""
        first = bisect_right(self.entries, since_ns, key=lambda entry: entry.time_ns)
        return sum(
            1
            for entry in takewhile(lambda entry: entry.time_ns < until_ns, islice(self.entries, first, None))
            if isinstance(entry, Call) and entry.tid == tid and not entry.failed and call_name(entry) not in _WORDS
        )

    def calls(self, *names: str) -> Iterator[Call]:
        """The calls of these names."""
        places = [at for name in names for at in self._by_name.get(name, ())]
        for at in sorted(places):
            entry = self.entries[at]
            if isinstance(entry, Call):
                yield entry

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        """Which entries are calls of each name."""
        found: dict[str, list[int]] = {}
        for at, entry in enumerate(self.entries):
            if isinstance(entry, Call):
                found.setdefault(call_name(entry), []).append(at)
        return found
