"""Shares the hooks at the beginning and the end of all system calls among programs that want some calls only.

A lane (bpf/calls) is one program at one hook. It looks up a call's number, and jumps to the program that wants the
call. It cannot come back from there, so those who want the same call have it in lanes of their own: there are as many
lanes as there are programs for the call that most want. Who comes or goes touches no other's place.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable
from ctypes import byref, c_uint32

from agent.bpf import libbpf
from agent.bpf.bpf_object import BpfObject, Program
from agent.bpf.objects import read_object

OBJECT = "calls"


class Lane:
    """One program at a hook. It leads to one program for each call."""

    def __init__(self, hook: str) -> None:
        """Load a lane that leads nowhere yet. It is not attached."""
        self.object = BpfObject(read_object(OBJECT), OBJECT)
        try:
            self.object.leave_only(hook)
            self.object.load()
        except BaseException:
            self.object.close()
            raise
        self._programs = self.object.map_fd(hook.rpartition("/")[2])
        self.taken: set[int] = set()

    def give(self, calls: Iterable[int], program: int) -> None:
        """Run a program, by its descriptor, at each of these calls. No program has them yet."""
        for call in calls:
            key, value = c_uint32(call), c_uint32(program)
            made = libbpf.library().bpf_map_update_elem(self._programs, byref(key), byref(value), 0)
            libbpf.check(made, f"call {call}")
            self.taken.add(call)

    def take_back(self, calls: Iterable[int]) -> None:
        """Run nothing at these calls."""
        for call in calls:
            libbpf.library().bpf_map_delete_elem(self._programs, byref(c_uint32(call)))
            self.taken.discard(call)


class Seat:
    """The calls that one program has, in each of several lanes."""

    def __init__(self, lanes: Lanes, hook: str, places: list[tuple[Lane, set[int]]]) -> None:
        """Take places: the lanes of a hook, each with the calls that the program has in it."""
        self._lanes, self._hook, self.places = lanes, hook, places
        self._before = self._misses()

    def missed(self) -> int:
        """How often a lane did not run because it was already running on that CPU."""
        return self._misses() - self._before

    def _misses(self) -> int:
        return sum(lane.object.missed() for lane, _ in self.places)

    def leave(self) -> None:
        """Give the places back."""
        self._lanes.leave(self._hook, self.places)
        self.places = []


class Lanes:
    """All lanes of this process."""

    def __init__(self) -> None:
        """Begin without lanes. A lane is made when a program needs it, and ends with its last program."""
        self._lock = threading.Lock()
        self._of: dict[str, list[Lane]] = {}

    def attach(self, hook: str, program: int, calls: Collection[int]) -> Seat:
        """Let a program, by its descriptor, run at these calls. Other programs miss no call meanwhile."""
        with self._lock:
            left, places = set(calls), list[tuple[Lane, set[int]]]()
            lanes = self._of.setdefault(hook, [])
            try:
                for lane in lanes:
                    if free := left - lane.taken:
                        places.append((lane, free))
                        lane.give(free, program)
                        left -= free
                if left:
                    lane = Lane(hook)
                    lanes.append(lane)
                    places.append((lane, left))
                    lane.give(left, program)
                    lane.object.attach()
            except BaseException:
                self._leave(hook, places)
                raise
            return Seat(self, hook, places)

    def leave(self, hook: str, places: Iterable[tuple[Lane, set[int]]]) -> None:
        """Let a program no longer run."""
        with self._lock:
            self._leave(hook, places)

    def _leave(self, hook: str, places: Iterable[tuple[Lane, set[int]]]) -> None:
        for lane, calls in places:
            lane.take_back(calls)
            if not lane.taken:
                self._of[hook].remove(lane)
                lane.object.close()

    def programs(self) -> list[Program]:
        """Each lane's program, and what the kernel says of it. Callable from any thread."""
        # copies, without the lock: attach() may hold it long
        lanes = [lane for each in [*self._of.values()] for lane in [*each]]
        return [program for lane in lanes for program in lane.object.programs()]


#: The lanes that all runs share.
LANES = Lanes()
