"""Answers questions about a running container. The container may be hostile: reading from it may take forever."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from agent.blocked import find_blocked
from agent.containers.cgroups import processes_in
from agent.containers.tracker import Cgroup, Tracker
from agent.inspect import sockets, usage, waits
from agent.inspect.paths import Walk
from agent.processes import Process, first_of, held
from agent.service import Running, ServedCall
from agent.threads import Bounded
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Exhausted, UsageError

log = logging.getLogger(__name__)

#: How long all of an answer may take. Parts that are not there by then are left out, and named.
SECONDS = 1.0
MOST_PATHS, MOST_PORTS, LONGEST_PATH = 16, 16, 4096
#: Threads that wait for containers at once: each container has one for each part of an answer.
_THREADS = 16
_PROCESSES = 4096
_GROUPS = 32

#: Adds to an answer: each message when it is whole, as what is late is not waited for.
Part = Callable[[list[Any]], None]


class Inspector(Running):
    """Answers questions about containers that run."""

    def __init__(self, node: str, tracker: Tracker, mask: Callable[[bytes], bytes] | None = None) -> None:
        """Answer as node about what tracker knows; mask hides in texts what is not to be told."""
        self._node, self._tracker, self._mask = node, tracker, mask
        self._threads = Bounded("inspect", _THREADS)

    def calls(self) -> Sequence[ServedCall]:
        """What clients ask."""
        return (ServedCall("Inspect", lambda request, active: self.inspect(request), reads=True),)

    def inspect(self, request: pb.InspectRequest) -> pb.InspectReply:
        """What can be told of a container. UsageError if it does not run, or too much is asked."""
        _check(request)
        cgroup = self._find(request.cgroup_id)
        folder = self._tracker.folder(cgroup)
        pids = partial(processes_in, folder, _PROCESSES)
        reply = pb.InspectReply(node=self._node)
        reply.usages.extend(usage.of_cgroup(folder, self._tracker.mount))
        reply.usages.extend(usage.of_node(Path("/proc")))
        if not any(pids()):
            reply.missing.append("files, limits and sockets: the agent does not see the node's processes")
            return self._masked(reply)
        until = time.monotonic() + SECONDS
        about = _Container(cgroup, pids, self._tracker.proc, folder)
        blocked: list[pb.Blocked] = []
        asked, found = self._start(cgroup.id, "calls", about.calls)
        if why := _wait(asked, until - SECONDS / 2):
            reply.missing.append(f"calls: {why}")
        else:
            blocked = found
        parts: dict[str, tuple[Part, Any]] = {
            "limits": (about.limits, reply.usages),
            "identity": (about.identity, []),
            "files": (partial(about.files, request.paths), reply.paths),
            "sockets": (partial(about.listeners, request.ports), reply.listeners),
            "what it waits for": (partial(about.waits, blocked), reply.waits),
            "who holds locks": (partial(about.locks, blocked), reply.waits),
        }
        started = {name: self._start(cgroup.id, name, part) for name, (part, _) in parts.items()}
        for name, (future, found) in started.items():
            if why := _wait(future, until):
                reply.missing.append(f"{name}: {why}")
            into = parts[name][1]
            into.extend(found[:])
            if name == "identity" and into:
                reply.identity.CopyFrom(into[0])
        return self._masked(reply)

    def _start(self, id_: int, name: str, part: Part) -> tuple[Future[None] | Exhausted, list[Any]]:
        found: list[Any] = []
        try:
            return self._threads.start((id_, name), partial(part, found)), found
        except Exhausted as error:
            return error, found

    def _find(self, cgroup_id: int) -> Cgroup:
        for item in self._tracker.containers():
            if item.id == cgroup_id and not item.ended:
                return item
        raise UsageError(f"{self._node} has no container that runs in cgroup {cgroup_id}")

    def _masked(self, reply: pb.InspectReply) -> pb.InspectReply:
        if self._mask:
            _mask(reply, self._mask)
        return reply


class _Container:
    """The parts of an answer about a container. Each may fail or hang by itself, and runs in a thread of its own."""

    def __init__(self, cgroup: Cgroup, pids: Callable[[], list[int]], proc: Path, folder: Path) -> None:
        self._cgroup, self._pids, self._proc, self._folder = cgroup, pids, proc, folder

    def calls(self, found: list[Any]) -> None:
        with self._first() as process:
            process.read("syscall")  # an error if that is not allowed: below none would be found
        found.extend(waits.chosen(find_blocked([pid for pid in self._pids() if pid])))

    def limits(self, found: list[Any]) -> None:
        with self._first() as process:
            found.extend(usage.of_process(process))

    def identity(self, found: list[Any]) -> None:
        with self._first() as process:
            fields = dict(line.split(":", 1) for line in process.read("status", 1 << 16).split("\n") if ":" in line)
            found.append(
                pb.Identity(
                    pid=process.pid,
                    uid=int(fields["Uid"].split()[3]),  # fsuid
                    gid=int(fields["Gid"].split()[3]),
                    groups=[int(group) for group in fields["Groups"].split()[:_GROUPS]],
                    capabilities=int(fields["CapEff"], 16),
                )
            )

    def files(self, paths: Sequence[str], found: list[Any]) -> None:
        if not paths:
            return
        with self._first() as process:
            root = process.open("root", os.O_PATH | os.O_DIRECTORY)
            try:
                for path in paths:
                    whole = path if path.startswith("/") else f"{process.link('cwd')}/{path}"
                    with Walk(root) as walk:
                        components = walk.along(whole)
                        found.append(pb.InspectedPath(components=components, mount=walk.mount()))
            finally:
                os.close(root)

    def listeners(self, ports: Sequence[int], found: list[Any]) -> None:
        if not ports:
            return
        with self._first() as process:
            there = sockets.find(process, ports=frozenset(ports))
        # containers of a pod share its network
        in_pod = self._cgroup.container and self._cgroup.container.pod_uid
        pids = processes_in(self._folder.parent, _PROCESSES) if in_pod else self._pids()
        found.extend(sockets.listeners(there, sockets.owners(there, pids, self._proc)))

    def waits(self, blocked: Sequence[pb.Blocked], found: list[Any]) -> None:
        with self._of(blocked) as processes:
            found.extend(waits.descriptors(blocked, processes))
        found.extend(waits.file_locks(blocked, self._proc))
        found.extend(waits.children(blocked, self._pids(), self._proc))

    def locks(self, blocked: Sequence[pb.Blocked], found: list[Any]) -> None:
        with self._of(blocked) as processes:
            found.extend(waits.mutexes(blocked, processes))
            found.extend(waits.descriptors(waits.polled(blocked, processes), processes))

    @contextmanager
    def _first(self) -> Iterator[Process]:
        """The container's first process. OSError if it has just ended."""
        first = first_of(self._pids(), self._proc, settled=0)
        with held(self._pids, self._proc, 1, [first]) as processes:
            if not processes:
                raise OSError("it has ended")
            yield processes[0]

    @contextmanager
    def _of(self, blocked: Sequence[pb.Blocked]) -> Iterator[list[Process]]:
        wanted = {call.pid: None for call in blocked}
        if not wanted:
            yield []
            return
        with held(self._pids, self._proc, waits.MOST_PROCESSES, wanted) as processes:
            yield processes


def _check(request: pb.InspectRequest) -> None:
    if len(request.paths) > MOST_PATHS or len(request.ports) > MOST_PORTS:
        raise UsageError(f"at most {MOST_PATHS} paths and {MOST_PORTS} ports at a time")
    if any(len(path.encode()) > LONGEST_PATH or "\0" in path for path in request.paths):
        raise UsageError(f"a path has at most {LONGEST_PATH} bytes, and no NUL")


def _wait(future: Future[None] | Exhausted, until: float) -> str:
    """Wait for a part while there is time. Returns why it is incomplete; empty if it is whole."""
    if isinstance(future, Exhausted):
        return str(future)
    try:
        future.result(max(0.0, until - time.monotonic()))
    except TimeoutError:
        return "the container does not answer"
    except PermissionError:
        return "the agent lacks CAP_SYS_PTRACE"
    except OSError as error:
        return error.strerror or str(error)
    except Exception:
        log.exception("inspect")
        return "an error of the agent, which is in its log"
    return ""


def _mask(message: Any, mask: Callable[[bytes], bytes]) -> None:
    """Hide in every text of a message."""
    for field, value in message.ListFields():
        several = field.is_repeated
        if field.message_type:
            for each in value if several else [value]:
                _mask(each, mask)
        elif field.type == field.TYPE_STRING and field.name not in (
            "node",
            "missing",
            "kind",
            "state",
            "protocol",
            "error",
        ):
            if several:
                value[:] = [mask(text.encode()).decode("utf-8", "replace") for text in value]
            else:
                with suppress(ValueError):
                    setattr(message, field.name, mask(value.encode()).decode("utf-8", "replace"))
