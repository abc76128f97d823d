"""Makes histories call by call, as a recording would tell them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from gadget import syscalls
from kubectl_gadget.strace import Call, Captured
from kubectl_gadget.traceloop.calls import DeliveredSignal, Sender, SentSignal, ThreadEnd
from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.history import CallHistory

MACHINE = "x86_64"
_NUMBERS = {name: number for number, (name, _) in syscalls.errors().items()}


def address(text: str) -> bytes:
    """A struct sockaddr_in of ADDRESS:PORT."""
    host, _, port = text.rpartition(":")
    return struct.pack("<H", 2) + struct.pack(">H", int(port)) + ip_address(host).packed + bytes(8)


class Story:
    """What a container did: each method adds what happened next, 1 ms later, and gives the story."""

    def __init__(self, pid: int = 100, program: str = "/app/server") -> None:
        """Its first process begins a program."""
        self.main, self.entries, self.sent = pid, [], []  # type: int, list[Entry], list[Sent]
        self.blocked: list[tuple[Call, int | None]] = []
        self.now, self.status = 1_000_000_000_000_000_000, None  # type: int, int | None
        self.began, self.oom = self.now, False
        self.call("execve", 0, texts={0: program, 1: f"{program}\0"})

    def call(
        self,
        name: str,
        *args: int,
        result: int | str = 0,
        texts: dict[int, str | bytes] | None = None,
        pid: int = 0,
        after: float = 0.001,
        waited: float = 0,
    ) -> Story:
        """A system call: result is a number, an error's name, or empty if it never returned."""
        self.now += int(after * 1e9)
        self.entries.append(self.made(name, args, result, texts or {}, pid, waited))
        return self

    def made(
        self, name: str, args: Sequence[int], result: int | str, texts: dict[int, Any], pid: int = 0, waited: float = 0
    ) -> Call:
        """The same, not added."""
        number = result if isinstance(result, int) else -_NUMBERS[result] if result else None
        data = {at: text if isinstance(text, bytes) else text.encode() for at, text in texts.items()}
        captured = {at: Captured(text, len(text)) for at, text in data.items()}
        pid, registers = pid or self.main, (*args, *[0] * 6)[:6]
        numbers = syscalls.numbers(MACHINE)
        return Call(
            self.now, int(waited * 1e9), pid, pid, "server", MACHINE, numbers[name], registers, number, captured
        )

    def opens(self, path: str, result: int | str = "ENOENT", **more: Any) -> Story:
        """An open, which fails unless result says otherwise."""
        return self.call("openat", 0xFFFFFF9C, 0, 0, result=result, texts={1: path}, **more)

    def connects(self, peer: str, result: int | str = "ECONNREFUSED", descriptor: int = 5, **more: Any) -> Story:
        """A connect, which fails unless result says otherwise."""
        return self.call("connect", descriptor, 0, 16, result=result, texts={1: address(peer)}, **more)

    def says(self, text: str, descriptor: int = 2, **more: Any) -> Story:
        """A piece of output."""
        return self.call("write", descriptor, 0, len(text), result=len(text), texts={1: text}, **more)

    def works(self, times: int = 30, **more: Any) -> Story:
        """Calls that have nothing to do with an end."""
        for _ in range(times):
            self.call("read", 9, result=10, **more)
        return self

    def signal(self, number: int, code: int = 1, words: tuple[int, ...] = (), sender: Sender | None = None) -> Story:
        """A signal is delivered."""
        self.now += 1_000_000
        self.entries.append(
            DeliveredSignal(self.now, self.main, self.main, "server", number, code, words, MACHINE, sender)
        )
        return self

    def asked(self, number: int = 15, comm: str = "runc", *, inside: bool = False) -> Story:
        """A signal is sent, and ignored."""
        self.now += 1_000_000
        self.sent.append(SentSignal(self.now, self.main, number, Sender(7, comm, inside)))
        return self

    def ends(self, status: int, pid: int = 0, *, oom: bool = False) -> Story:
        """A process ends."""
        self.now += 1_000_000
        pid = pid or self.main
        self.entries.append(ThreadEnd(self.now, pid, pid, "server", status, True, oom))
        if pid == self.main:
            self.status, self.oom = status, oom
        return self

    def exits(self, code: int, pid: int = 0) -> Story:
        """A process exits."""
        return self.call("exit_group", code, result="", pid=pid).ends(code << 8, pid)

    def waits(self, child: int, status: int, pid: int = 0) -> Story:
        """A process learns of the end of a child."""
        return self.call("wait4", result=child, texts={1: struct.pack("<i", status)}, pid=pid)

    def hangs(
        self, name: str, *args: int, seconds: float = 60, texts: dict[int, Any] | None = None, pid: int = 0
    ) -> Story:
        """A call that has not returned."""
        self.blocked.append((self.made(name, args, "", texts or {}, pid), int(seconds * 1e9)))
        return self

    def facts(self, **more: Any) -> Facts:
        """All that is known."""
        started = {self.main: (self.began, self.began)}
        history = CallHistory(
            self.entries, started, complete=True, blocked=self.blocked, status=self.status, sent=self.sent
        )
        running = self.status is None
        known = {"running": running, "known": not running, "status": self.status or 0, "history": history, "oom": self.oom,
                 "started_ns": self.began, "ended_ns": 0 if running else self.now, "now_ns": self.now + 1_000_000_000,
                 "namespace": "shop", "pod": "cart-0", "container": "app", "id": "c" * 64, "node": "node-a"}  # fmt: skip
        return Facts(**(known | more))
