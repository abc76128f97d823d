"""Samples for one client: stacks as the kernel counts them, each told once, and how often each was seen."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agent.files import read_text
from agent.profile.kept import FileCache
from agent.profile.kernel import KernelFunctions
from agent.profile.naming import NOWHERE, UNKNOWN, CodePlace, NamedPlaces, Naming, ProfiledProgram
from agent.run.batch import Batch
from agent.threads import Bounded
from gadget._generated import gadget_pb2 as pb
from gadget.catalog import Gadget
from gadget.errors import Exhausted
from gadget.kinds.texts import decode_text

log = logging.getLogger(__name__)

#: What is remembered to have been told: beyond that it is told anew, under other numbers.
MOST_FRAMES, MOST_STACKS, MOST_CONTAINERS = 65_536, 32_768, 1024
#: How long the names of a batch are waited for. What has none by then is told as addresses.
SECONDS = 3.0
#: The calls that the kernel tells of a stack at most: see DEEPEST of bpf/include/stacks.h.
DEEPEST = 127
_MODULES, _MODULES_BYTES = Path("/proc/modules"), 1 << 20


class _Seen(NamedTuple):
    """A stack of a batch, and how often or how long it was seen. Addresses are of calls, the innermost first."""

    key: bytes
    cgroup_id: int
    program: ProfiledProgram
    comm: str
    user: Sequence[int]
    kernel: Sequence[int]
    cut: bool
    times: int


class Profiling:
    """Makes messages of batches of a gadget whose rows have stacks."""

    def __init__(self, gadget: Gadget, counted: str, kept: FileCache, threads: Bounded, proc: Path) -> None:
        """Of the field that says how much there was of a stack; proc is where the node's processes are.

        kept is what is kept of files, and threads are for what may not return.
        """
        self._kept, self._threads, self._proc = kept, threads, proc
        schema = gadget.schema
        self._dtype = schema.dtype(schema.text_offset)
        self._key = slice(schema["cgroup_id"].offset, schema[counted].offset)
        self._counted = counted
        self._naming: dict[int, Naming] = {}
        self._kernel: KernelFunctions | None = None
        self._modules = ""
        self._frames: dict[CodePlace, int] = {}
        self._stacks: dict[tuple[bytes, int], int] = {}
        self._versions: dict[ProfiledProgram, int] = {}
        self._last_frame = self._last_stack = 0

    def take(self, batch: Batch) -> pb.Samples:
        """A batch as a message. Stacks and names that the client does not have yet are in it."""
        self._make_room()
        seen = [each for section in batch.sections for each in self._read(section.rows)]
        made = pb.Samples()
        answers = self._name(seen)
        self._look_at_kernel(seen)
        for each in seen:
            version = self._versions.get(each.program, 0)
            number = self._stacks.get((each.key, version)) or self._tell(each, version, answers, made)
            made.seen.append(number)
            made.counts.append(each.times)
        return made

    def _make_room(self) -> None:
        if len(self._frames) > MOST_FRAMES or len(self._stacks) > MOST_STACKS or len(self._versions) > MOST_STACKS:
            self._frames, self._stacks, self._versions = {}, {}, {}
        while len(self._naming) > MOST_CONTAINERS:
            del self._naming[next(iter(self._naming))]

    def _read(self, data: bytes) -> Iterator[_Seen]:
        rows = np.frombuffer(data, self._dtype)
        keys = [row[self._key].tobytes() for row in rows.view(np.uint8).reshape(len(rows), -1)]
        stacks = rows["stacks"]
        names = ("cgroup_id", "pid", "start", "arguments", "exec", "comm", self._counted)
        depths = (stacks["user_depth"], stacks["kernel_depth"])
        columns = [*(rows[name].tolist() for name in names), *(depth.tolist() for depth in depths)]
        for at, values in enumerate(zip(*columns, strict=True)):  # there are as many as there are different stacks
            cgroup_id, pid, start, arguments, exec_, comm, count, user, kernel = values
            yield _Seen(
                keys[at],
                cgroup_id,
                ProfiledProgram(pid, start, arguments, exec_),
                decode_text(comm.partition(b"\0")[0]),
                _calls(stacks["user"][at, :user].tolist()),
                _calls(stacks["kernel"][at, :kernel].tolist()),
                DEEPEST in (user, kernel),
                count,
            )

    def _name(self, seen: Sequence[_Seen]) -> dict[ProfiledProgram, NamedPlaces]:
        """What the addresses of stacks are that were not told yet; all programs' mappings are brought up to date."""
        until = time.monotonic() + SECONDS
        before = self._versions.copy()
        new = [each for each in seen if each.user]
        answers = self._ask(new, lambda each: (each.key, before.get(each.program, 0)) not in self._stacks, until)
        changed = {program for program, answer in answers.items() if before.get(program) not in (None, answer.version)}
        if changed:
            answers.update(self._ask([each for each in new if each.program in changed], lambda each: True, until))
        self._versions.update((program, answer.version) for program, answer in answers.items())
        return answers

    def _ask(
        self, seen: Sequence[_Seen], is_new: Callable[[_Seen], bool], until: float
    ) -> dict[ProfiledProgram, NamedPlaces]:
        """Let threads name what is new, as long as there is time: a container's files need not answer."""
        wanted: dict[int, dict[ProfiledProgram, set[int]]] = {}
        for each in seen:
            addresses = wanted.setdefault(each.cgroup_id, {}).setdefault(each.program, set())
            if is_new(each):
                addresses.update(each.user)
        started: list[Future[dict[ProfiledProgram, NamedPlaces]]] = []
        for cgroup_id, of_programs in wanted.items():
            naming = self._naming.pop(cgroup_id, None) or Naming(self._kept, self._proc)
            self._naming[cgroup_id] = naming
            with suppress(Exhausted):  # what was asked before has not been answered yet
                started.append(self._threads.start((id(self), cgroup_id), partial(naming.name, of_programs)))
        answers: dict[ProfiledProgram, NamedPlaces] = {}
        for future in started:
            try:
                answers.update(future.result(max(0.0, until - time.monotonic())))
            except TimeoutError:
                continue
            except Exception:
                log.exception("names of functions")
        return answers

    def _look_at_kernel(self, seen: Sequence[_Seen]) -> None:
        """Read the kernel's functions, and again when a module has come or gone."""
        if not any(each.kernel for each in seen):
            return
        try:
            modules = read_text(_MODULES, _MODULES_BYTES)
        except OSError:  # a kernel without modules
            modules = ""
        # how often a module is used changes all the time
        modules = "\n".join(" ".join(line.split()[::5]) for line in modules.splitlines())
        if self._kernel is None or modules != self._modules:
            self._kernel, self._modules = KernelFunctions(), modules

    def _tell(self, each: _Seen, version: int, answers: dict[ProfiledProgram, NamedPlaces], made: pb.Samples) -> int:
        """Add a stack to a message. Returns its number."""
        assert self._kernel or not each.kernel
        answer = answers.get(each.program)
        places = [CodePlace(*self._kernel.find(call), call, True) for call in each.kernel] if self._kernel else []
        places = [place._replace(address=0) if place.name else place for place in places]
        named = answer.places if answer else {}
        user = [named.get(call) or CodePlace("", UNKNOWN, call) for call in each.user]
        while len(user) > 1 and user[-1].module == NOWHERE:  # what lies where a caller without a frame pointer put none
            user.pop()
        places += user
        self._last_stack += 1
        made.stacks.add(
            number=self._last_stack,
            cgroup_id=each.cgroup_id,
            pid=each.program.pid,
            comm=each.comm,
            frames=[self._frames.get(place) or self._tell_frame(place, made) for place in places],
            cut=each.cut,
        )
        self._stacks[each.key, version] = self._last_stack
        return self._last_stack

    def _tell_frame(self, place: CodePlace, made: pb.Samples) -> int:
        self._last_frame += 1
        made.frames.add(
            number=self._last_frame,
            name=place.name,
            module=place.module,
            address=place.address,
            kernel=place.kernel,
        )
        self._frames[place] = self._last_frame
        return self._last_frame


def _calls(addresses: list[int]) -> list[int]:
    """Where calls are: what the kernel tells are the addresses that they return to, but for the innermost one."""
    return [*addresses[:1], *(max(address - 1, 0) for address in addresses[1:])]
