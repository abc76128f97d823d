"""Names the functions at addresses of a container's processes. The container may be hostile: it may take forever."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from agent.files import open_regular, read_bytes
from agent.processes import Process
from agent.profile import mappings
from agent.profile.elf import Functions, NotElf
from agent.profile.jit import MOST_BYTES, JitFunctions
from agent.profile.kept import FileCache, Identity, identity
from agent.profile.mappings import Mappings

#: How old a list of mappings may be: a library may have been loaded since, where another one was.
FRESH_SECONDS = 1.0
#: Processes of a container whose mappings are remembered, also when they are over.
MOST_PROCESSES = 1024
#: Addresses of a program that are remembered.
MOST_PLACES = 16_384
#: How long reading the files of a container may take: so long at once, and this part of all time beyond that.
AT_ONCE_SECONDS, PART = 4.0, 0.1
JIT, ANONYMOUS = "[jit]", "[anonymous]"
UNKNOWN = "[unknown]"
#: What is no code, so that nothing can have been called from there.
NOWHERE = "[nowhere]"


class ProfiledProgram(NamedTuple):
    """A process from one exec to the next one: start in nanoseconds since boot, and where its arguments lie."""

    pid: int
    start: int
    arguments: int
    exec: int


class CodePlace(NamedTuple):
    """What an address is: name is empty if no function is known; address is one in the file then, or in memory."""

    name: str
    module: str
    address: int
    kernel: bool = False


@dataclass
class _Known:
    """A program's mappings, and since when. version grows when an address may mean something else."""

    mappings: Mappings | None = None
    text: str = ""
    read_at: float = -FRESH_SECONDS
    jit: JitFunctions | None = None
    jit_identity: Identity | None = None
    version: int = 0
    places: dict[int, CodePlace] = field(default_factory=dict)

    def change(self) -> None:
        """Note that addresses may belong to other functions now."""
        self.version += 1
        self.places = {}


class NamedPlaces(NamedTuple):
    """The places of a program's addresses, as its mappings of that version have them."""

    version: int
    places: Mapping[int, CodePlace]


class Naming:
    """Names the addresses of one container's processes. Not for two threads at once."""

    def __init__(self, kept: FileCache, proc: Path) -> None:
        """With what is kept of files, and where the node's processes are."""
        self._kept, self._proc = kept, proc
        self._known: dict[ProfiledProgram, _Known] = {}
        self._began, self._spent = time.monotonic(), 0.0

    def name(self, wanted: Mapping[ProfiledProgram, Iterable[int]]) -> dict[ProfiledProgram, NamedPlaces]:
        """Name addresses of programs. Some programs may have ended, if they were asked about before."""
        return {program: self._name(program, addresses) for program, addresses in wanted.items()}

    def _name(self, program: ProfiledProgram, addresses: Iterable[int]) -> NamedPlaces:
        known = self._known.pop(program, None) or _Known()
        self._known[program] = known
        if len(self._known) > MOST_PROCESSES:
            del self._known[next(iter(self._known))]
        process: Process | None = None
        with suppress(OSError):
            process = Process(program.pid, self._proc)
        if process:
            before = replace(known)
            try:
                if time.monotonic() - known.read_at >= FRESH_SECONDS:
                    self._look(known, process)
                places = self._find(known, process, addresses)
                if _is(process, program):  # all the time, then
                    known.places = places if len(known.places) > MOST_PLACES else {**known.places, **places}
                    return NamedPlaces(known.version, places)
            finally:
                process.close()
            self._known[program] = known = before
        return NamedPlaces(known.version, self._find(known, None, addresses))

    def _find(self, known: _Known, process: Process | None, addresses: Iterable[int]) -> dict[int, CodePlace]:
        new = [each for each in addresses if each not in known.places]
        found = dict(self._places(known, process, new))
        return found | {each: known.places[each] for each in addresses if each in known.places}

    def _look(self, known: _Known, process: Process) -> None:
        """Read the mappings of a process, and its own map of functions."""
        with suppress(OSError):
            text = process.read("maps", mappings.MOST_BYTES)
            known.read_at = time.monotonic()
            if text != known.text:
                found = Mappings(text)
                known.text = text
                if known.mappings is None or found.all != known.mappings.all:
                    known.mappings = found
                    known.change()
        if known.mappings and any(each.is_anonymous for each in known.mappings.all):
            with suppress(OSError, ValueError, KeyError, IndexError), closing_fd(_own_map(process)) as fd:
                of = identity(fd)
                if of != known.jit_identity and (read := self._read_jit(fd, of)):
                    known.jit, known.jit_identity = read, of
                    known.change()

    def _read_jit(self, fd: int, of: Identity) -> JitFunctions | None:
        if not self._may_read and not self._kept.has(JitFunctions, of):
            return None
        with self._timed():
            found = self._kept.get(JitFunctions, of, lambda: JitFunctions(read_bytes(fd, MOST_BYTES)))
        assert found is None or isinstance(found, JitFunctions)
        return found

    def _places(
        self, known: _Known, process: Process | None, addresses: Iterable[int]
    ) -> Iterator[tuple[int, CodePlace]]:
        by_mapping: dict[mappings.MappedPart | None, list[int]] = {}
        for address in addresses:
            found = known.mappings.find(address) if known.mappings else None
            by_mapping.setdefault(found, []).append(address)
        for mapping, here in by_mapping.items():
            if mapping is None:
                yield from ((each, CodePlace("", NOWHERE if known.mappings else UNKNOWN, each)) for each in here)
            elif mapping.inode:
                yield from self._in_file(known, process, mapping, here)
            else:
                yield from ((each, self._in_memory(known, mapping, each)) for each in here)

    def _in_memory(self, known: _Known, mapping: mappings.MappedPart, address: int) -> CodePlace:
        if not mapping.is_anonymous:  # [vdso] and the like
            return CodePlace("", mapping.name, address - mapping.start)
        name = known.jit.find(address) if known.jit else ""
        return CodePlace(name, JIT, 0) if name else CodePlace("", ANONYMOUS, address)

    def _in_file(
        self, known: _Known, process: Process | None, mapping: mappings.MappedPart, addresses: list[int]
    ) -> Iterator[tuple[int, CodePlace]]:
        names: dict[int, CodePlace] = {}
        if process and self._may_read:
            with suppress(OSError), self._timed(), closing_fd(_mapped(process, mapping)) as fd:
                functions = self._kept.get(Functions, identity(fd), lambda: _functions(fd))
                assert functions is None or isinstance(functions, Functions)
                for address in addresses if functions else ():
                    assert functions
                    own = functions.address_of(address - mapping.start + mapping.offset)
                    if own is not None:
                        name = functions.find(own, fd)
                        names[address] = CodePlace(name, mapping.name, 0 if name else own)
        for address in addresses:
            jitted = known.jit.find(address) if known.jit and address not in names else ""
            if jitted:
                yield address, CodePlace(jitted, JIT, 0)
            else:
                offset = address - mapping.start + mapping.offset
                yield address, names.get(address) or CodePlace("", mapping.name, offset)

    @property
    def _may_read(self) -> bool:
        return self._spent < AT_ONCE_SECONDS + PART * (time.monotonic() - self._began)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._spent += time.monotonic() - began


@contextmanager
def closing_fd(fd: int) -> Iterator[int]:
    """Close a descriptor in the end."""
    try:
        yield fd
    finally:
        os.close(fd)


_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


def _is(process: Process, program: ProfiledProgram) -> bool:
    """Whether the process still runs the same program: no exec since, and no later process with its pid."""
    with suppress(OSError, ValueError, IndexError):
        # proc_pid_stat(5): the name, in parentheses, may hold anything; start is field 22, arg_start field 48
        fields = process.read("stat").rpartition(")")[2].split()
        return (int(fields[19]), int(fields[45])) == (program.start // _TICK_NS, program.arguments)
    return False


def _mapped(process: Process, mapping: mappings.MappedPart) -> int:
    """A descriptor of the very file that is mapped, whatever its path leads to by now. OSError unless it is regular."""
    name = f"map_files/{mapping.range}"
    found = process.open(name, os.O_PATH)
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):  # a device does things when it is opened
            raise OSError("not a regular file")
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(found)


def _functions(fd: int) -> Functions | None:
    with suppress(NotElf):
        return Functions(fd)
    return None


def _own_map(process: Process) -> int:
    """A descriptor of the map that a process writes. OSError if it writes none, or somebody else did."""
    status = dict(line.split(":\t", 1) for line in process.read("status").splitlines() if ":\t" in line)
    own, user = int(status["NSpid"].split()[-1]), int(status["Uid"].split()[1])
    with closing_fd(process.open("root", os.O_PATH | os.O_DIRECTORY)) as root:
        fd = open_regular(root, f"/tmp/perf-{own}.map".encode())
    if os.fstat(fd).st_uid != user:
        os.close(fd)
        raise OSError("of another user")
    return fd
