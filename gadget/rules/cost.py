"""What rules cost: they are asked here and now, of events that are made up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from gadget.rules.audit import AuditEvent
from gadget.rules.batch import BatchRules, EventBatch, Rows
from gadget.rules.checks import Event
from gadget.rules.fields import SYSCALL
from gadget.rules.ruleset import Rule, Ruleset

#: Of the events that are made up the processes, the files, the sockets, and how many there are.
PROCESSES, FILES, SOCKETS, EVENTS = 100, 400, 100, 5_000
#: The least of so many times counts: others had the processor in between.
_TIMES = 3
_OF_SOCKETS = ("connect", "accept", "accept4", "listen", "bind", "socket", "sendto", "sendmsg", "recvfrom", "recvmsg")
_FOLDERS = ("/usr/lib", "/etc/app", "/data/shop", "/proc/self")
_AUDIT = {
    "kind": "Event", "auditID": "a", "stage": "ResponseComplete", "verb": "create", "user": {"username": "jane"},
    "stageTimestamp": "2025-11-28T20:00:00Z", "requestURI": "/api/v1/namespaces/shop/pods",
    "objectRef": {"resource": "pods", "namespace": "shop", "name": "web-0"}, "responseStatus": {"code": 201},
    "requestObject": {"spec": {"containers": [{"name": "web", "image": "shop/web:1.2"}]}},
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Nanoseconds that rules take for an event, and how many parts of theirs are asked, by what they are asked of.

    All but those of an event are asked once, and their answers looked up.
    """

    ns: float
    parts: dict[str, int]


def cost(rules: Ruleset, chosen: Sequence[Rule], types: Sequence[str]) -> Cost:
    """What rules of one source take together for an event of these types, which their agents see."""
    if chosen[0].source != SYSCALL:
        tests, event = [rule.test for rule in chosen], AuditEvent(_AUDIT)
        return Cost(_least(lambda: [test(event) for _ in range(20) for test in tests]) / 20, {})
    tables, batch = made_up(tuple(types) or ("execve",))
    asked = BatchRules(replace(rules, rules=tuple(replace(rule, enabled=True) for rule in chosen)), tables)
    asked.matching(batch)  # what is asked once
    ns = _least(lambda: asked.matching(batch)) / EVENTS if types else 0.0
    return Cost(ns, asked.parts())


def _least(work: Callable[[], Any]) -> float:
    """Nanoseconds of this thread."""

    def once() -> int:
        began = time.thread_time_ns()
        work()
        return time.thread_time_ns() - began

    return min(once() for _ in range(_TIMES))


@cache
def made_up(types: tuple[str, ...]) -> tuple[tuple[Rows, Rows, Rows], EventBatch]:
    """A batch of events of these types, each as often as another, with the tables that have their rows."""
    choose = np.random.default_rng(7)
    calls = [row for name in types for row in _calls(name)]
    which = choose.integers(0, len(calls), EVENTS, np.uint32)
    of_sockets = np.array([row["evt.type"] in _OF_SOCKETS for row in calls])[which]
    file, socket = choose.integers(0, FILES, EVENTS), FILES + choose.integers(0, SOCKETS, EVENTS)
    descriptor = np.where(of_sockets, socket, file).astype(np.uint32)
    process = choose.integers(0, PROCESSES, EVENTS, np.uint32)
    numbers = np.array([types.index(row["evt.type"]) for row in calls])[which]
    own: Any = [{}] * EVENTS
    return (Rows([*calls]), *_rows()), EventBatch(types, numbers, (which, process, descriptor), own)


@cache
def _rows() -> tuple[Rows, Rows]:
    descriptors: list[Event] = [*map(a_file, range(FILES)), *map(_socket, range(SOCKETS))]
    return Rows([a_process(at) for at in range(PROCESSES)]), Rows(descriptors)


def _calls(name: str) -> Iterator[dict[str, Any]]:
    for descriptor in range(3, 13):
        for writes in (False, False, False, True):
            yield {"evt.type": name, "evt.is_open_read": not writes, "evt.is_open_write": writes, "fd.num": descriptor,
                   "evt.is_open_exec": False, "evt.rawres": descriptor, "evt.res": "SUCCESS", "evt.failed": False,
                   "evt.arg.flags": "O_WRONLY|O_CREAT" if writes else "O_RDONLY"}  # fmt: skip


def a_process(at: int) -> dict[str, Any]:
    """A process of a container."""
    name = f"program-{at}"
    return {"proc.name": name, "proc.pname": "containerd-shim", "proc.cmdline": f"{name} -x", "proc.args": "-x",
            "proc.exe": name, "proc.exepath": f"/usr/bin/{name}", "proc.tty": 0, "proc.vpid": 1,
            "proc.aname": ("sh", "init"), "proc.container.aname": ("sh",), "proc.container.aexepath": ("/usr/bin/sh",),
            "proc.aname[1]": "sh", "proc.aname[2]": "init", "user.name": "root",
            "user.uid": 0, "container.id": "0123456789ab", "container.image.repository": f"shop/{name}",
            "k8s.ns.name": "shop", "k8s.pod.name": name, "thread.cap_effective": "CAP_CHOWN"}  # fmt: skip


def a_file(at: int) -> dict[str, Any]:
    """A file of one of four folders."""
    folder = _FOLDERS[at % 4]
    return {"fd.name": f"{folder}/{at}", "fd.directory": folder, "fd.filename": str(at), "fd.typechar": "f",
            "fd.type": "file", "evt.arg.path": f"{folder}/{at}", "evt.arg.name": f"{folder}/{at}"}  # fmt: skip


def _socket(at: int) -> dict[str, Any]:
    own, other, port = bytes((10, 1, 2, 3)), bytes((10, 1, 3, at)), (80, 443, 5432, 6379)[at % 4]
    return {
        **dict.fromkeys(("fd.cip", "fd.lip", "fd.cnet", "fd.lnet"), own),
        **dict.fromkeys(("fd.sip", "fd.rip", "fd.snet", "fd.rnet"), other),
        **dict.fromkeys(("fd.cport", "fd.lport"), 40000),
        **dict.fromkeys(("fd.sport", "fd.rport"), port),
        "fd.ip": (own, other), "fd.net": (own, other), "fd.port": (40000, port),
        "fd.name": f"10.1.2.3:40000->10.1.3.{at}:{port}", "fd.typechar": "4", "fd.type": "ipv4",
        "fd.l4proto": "tcp", "fd.sockfamily": "ip", "fd.is_server": False,
    }  # fmt: skip
