"""A BPF object through its life: open, configure, load, attach, detach, close."""

from __future__ import annotations

import ctypes
import errno
import logging
import mmap
import os
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from ctypes import byref, c_size_t, c_uint32, c_void_p
from pathlib import Path
from types import TracebackType

import numpy as np

from agent.bpf import libbpf
from agent.bpf.attach import HOOKS_OF_CALLS, KINDS, AttachKind, Seat, Where, kind_of
from agent.bpf.bpffs import open_pinned, pinned, remove, unpin
from agent.bpf.features import missing_feature
from gadget.btf import Btf
from gadget.errors import Exhausted, GadgetError, KernelLacks, NoRights, Unsupported

log = logging.getLogger(__name__)

BTF = Path("/sys/kernel/btf/vmlinux")
CALLS = ".rodata.calls"  # the section of a table of system calls: CALLS of bpf/include/calls.h
PROGRAM = "-program"  # ends the name of a pinned program: bpffs allows no dot

#: A program's name, and what the kernel says of it.
Program = tuple[str, libbpf.ProgInfo]

#: linux/bpf.h: BPF_MAP_TYPE_HASH and _LRU_HASH, BPF_F_NO_PREALLOC
_HASHES, _NO_PREALLOC = (1, 9), 1
#: What the kernel takes for an entry of a hash map beside key and value (struct htab_elem), and for its bucket.
ENTRY_BYTES = 48 + 16
#: Why the kernel refuses what it would take at another time.
_USED_UP = (-errno.ENOMEM, -errno.EMFILE, -errno.ENFILE)

_load_lock = threading.Lock()  # libbpf's print hook is one per process
_log_lines: list[str] = []
_libc = ctypes.CDLL(None)
#: What is kept of a message, in bytes: a verifier's log may have 16 MiB, and says at its end why it refused.
_HEAD, _TAIL = 1 << 10, 64 << 10


def _collect(level: int, text: bytes, arguments: int) -> int:
    if level > libbpf.PRINT_INFO:
        return 0
    whole = c_void_p()
    length = _libc.vasprintf(ctypes.byref(whole), text, c_void_p(arguments))
    if length >= 0 and whole.value:
        said = ctypes.string_at(whole.value, min(length, _HEAD))
        if length > _HEAD:
            kept = min(length - _HEAD, _TAIL)
            said += ctypes.string_at(whole.value + length - kept, kept)
        _libc.free(whole)
        _log_lines.append(said.decode(errors="replace"))
    return 0


_print = libbpf.PRINT_FUNCTION(_collect)  # kept: libbpf holds only the address


def _useful_tail(lines: list[str]) -> str:
    """The line of a verifier log that says why: the last one before its statistics."""
    log = [line for text in lines for line in text.splitlines() if line.strip()]
    if "-- END PROG LOAD LOG --" in log:
        end = log.index("-- END PROG LOAD LOG --")
        noise = ("processed ", "verification time", "stack depth", "max_states")
        return next((line for line in reversed(log[:end]) if not line.startswith(noise)), log[-1]).strip()
    return log[-1].strip().removeprefix("libbpf: ") if log else "no reason given"


class BpfObject:
    """One opened object. A context manager that closes it: links go, programs and maps with them."""

    def __init__(self, elf: bytes, name: str) -> None:
        """Open an object from an ELF file's bytes. Unsupported or GadgetError if it cannot be."""
        if not BTF.exists():
            raise Unsupported(f"Linux {os.uname().release} has no BTF ({BTF}): this machine cannot be traced")
        self._lib = libbpf.library()
        self.name = name
        self._links: list[tuple[int, int]] = []  # program and link
        self._seats: list[Seat] = []
        self._missed = 0  # by those of its seats that it has left
        self._closing = threading.Lock()  # status may look at the programs of a run while it ends
        with _load_lock:
            self._lib.libbpf_set_print(_print)
            _log_lines.clear()
            self._object = self._lib.bpf_object__open_mem(elf, len(elf), None)
            if not self._object:
                raise GadgetError(f"{name}: not a BPF object: {_useful_tail(_log_lines)}")

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def configure(self, offset: int, value: bytes) -> None:
        """Set bytes of .rodata before load."""
        size = c_size_t()
        address = self._lib.bpf_map__initial_value(self._map(".rodata"), byref(size))
        if not address or offset + len(value) > size.value:
            raise GadgetError(f"{self.name}: no setting at {offset}")
        ctypes.memmove(address + offset, value, len(value))

    def fits(self, map_name: str, fd: int) -> bool:
        """Whether fd is a map with the same type and sizes as this object's own map."""
        try:
            found = libbpf.map_info(fd)
        except OSError:  # no map
            return False
        own = self._map(map_name)
        return (found.type, found.key_size, found.value_size, found.max_entries, found.map_flags) == (
            self._lib.bpf_map__type(own),
            self._lib.bpf_map__key_size(own),
            self._lib.bpf_map__value_size(own),
            self._lib.bpf_map__max_entries(own),
            self._lib.bpf_map__map_flags(own),
        )

    def share_pinned(self, pins: Mapping[str, Path]) -> dict[str, int]:
        """Use pinned maps in place of the object's own, if they are there and fit; unpin those that do not fit.

        Returns the file descriptors of the pinned maps in use. They belong to the object. Call it before load.
        """
        shared = {}
        for name, path in pins.items():
            try:
                fd = open_pinned(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("%s: %s: made anew", path, error)
                unpin(path)
                continue
            try:
                if self.fits(name, fd):
                    self.share(name, fd)
                    shared[name] = self.map_fd(name)
                else:
                    log.warning("%s is not the map %s: made anew", path, name)
                    unpin(path)
            finally:
                os.close(fd)
        return shared

    def has_map(self, name: str) -> bool:
        """Whether the object has a map of that name."""
        return bool(self._lib.bpf_object__find_map_by_name(self._object, name.encode()))

    def preallocated_bytes(self, but: Collection[str]) -> int:
        """What entries take that the kernel allocates as it makes hash maps, but for maps of some names."""
        left_out = {self._map(name) for name in but if self.has_map(name)}
        lib, found = self._lib, 0
        at: int | None = lib.bpf_object__next_map(self._object, None)
        while at:
            if (
                at not in left_out
                and lib.bpf_map__type(at) in _HASHES
                and not lib.bpf_map__map_flags(at) & _NO_PREALLOC
            ):
                size = lib.bpf_map__key_size(at) + lib.bpf_map__value_size(at) + ENTRY_BYTES
                found += lib.bpf_map__max_entries(at) * size
            at = lib.bpf_object__next_map(self._object, at)
        return found

    def share(self, map_name: str, fd: int) -> None:
        """Use the map behind fd, which another object made, instead of one of its own; before load."""
        libbpf.check(self._lib.bpf_map__reuse_fd(self._map(map_name), fd), f"share {map_name}")

    def resize(self, map_name: str, entries: int | None) -> int:
        """Set a map's max_entries (a ring's size in bytes) before load, or leave it; returns what it is."""
        if entries is not None:
            libbpf.check(self._lib.bpf_map__set_max_entries(self._map(map_name), entries), f"size of {map_name}")
        return int(self._lib.bpf_map__max_entries(self._map(map_name)))

    def value_size(self, map_name: str) -> int:
        """The size of a map's values, in bytes."""
        return int(self._lib.bpf_map__value_size(self._map(map_name)))

    def key_size(self, map_name: str) -> int:
        """The size of a map's keys, in bytes."""
        return int(self._lib.bpf_map__key_size(self._map(map_name)))

    def resize_inner(self, map_name: str, value_size: int) -> None:
        """Set the value size in bytes of the maps that a map of maps holds, before load."""
        inner = self._lib.bpf_map__inner_map(self._map(map_name))
        libbpf.check(self._lib.bpf_map__set_value_size(inner, value_size), f"size of {map_name}")

    def preallocate(self, *map_names: str) -> None:
        """Before load: let programs that may not allocate use these maps, on every kernel.

        Before kernel commit 96da3f7d489d (6.1) one for samples could use no map that allocates its entries. Since then
        maps have an allocator of their own, which BTF tells.
        """
        if not libbpf.kernel_has("bpf_mem_alloc"):
            for name in map_names:
                libbpf.check(self._lib.bpf_map__set_map_flags(self._map(name), 0), f"flags of {name}")

    def has_programs(self, section: str) -> bool:
        """Whether there are programs whose section begins so."""
        return any(self._section(program).startswith(section) for program in self._programs())

    def leave_only(self, section: str) -> None:
        """Before load: leave out the programs of other sections."""
        for program in self._programs():
            self._lib.bpf_program__set_autoload(program, self._section(program) == section)

    def calls(self) -> list[int]:
        """The places that its table of system calls fills; none if it has no table."""
        if not self.has_map(CALLS):
            return []
        size = c_size_t()
        address = self._lib.bpf_map__initial_value(self._map(CALLS), byref(size))
        length = c_uint32()
        data = self._lib.btf__raw_data(self._lib.bpf_object__btf(self._object), byref(length))
        entries = Btf(ctypes.string_at(data, length.value)).lengths(CALLS)["calls"]
        table = np.frombuffer(ctypes.string_at(address, size.value), np.uint8).reshape(entries, -1)
        return [int(place) for place in np.flatnonzero(table.any(axis=1))]

    def load(self) -> None:
        """Create maps and verify programs.

        Raises:
            KernelLacks: It names a feature.
            NoRights: Nothing may be loaded.
            Exhausted: There is no memory for it now, or no file descriptor.
            GadgetError: It has the verifier's reason.

        """
        with _load_lock:
            _log_lines.clear()
            result = self._lib.bpf_object__load(self._object)
            if result == 0:
                return
            log, reason = "".join(_log_lines), _useful_tail(_log_lines)
        if result in (-errno.EPERM, -errno.EACCES) and "BEGIN PROG LOAD LOG" not in log:
            raise NoRights("the kernel refuses to load BPF programs: CAP_BPF, CAP_PERFMON, or a seccomp or LSM policy")
        if result in _USED_UP and "BEGIN PROG LOAD LOG" not in log:
            raise Exhausted(f"{self.name}: could not be loaded: {os.strerror(-result)}")
        kernel = os.uname().release
        if feature := missing_feature(log):
            raise KernelLacks(f"this kernel ({kernel}) lacks {feature}, which {self.name} needs")
        raise GadgetError(f"{self.name}: Linux {kernel} refused the program: {reason}")

    def attach(self, where: Where | None = None) -> None:
        """Attach every program. What can be attached is, also if another program cannot be for want of a right."""
        for kind in KINDS:
            for program in self._programs():
                if self._kind_of(program) is kind and self._lib.bpf_program__autoload(program):
                    self._attach(program, kind, where or Where())

    def _section(self, program: int) -> str:
        return os.fsdecode(self._lib.bpf_program__section_name(program))

    def _kind_of(self, program: int) -> AttachKind:
        section = self._section(program)
        if kind := kind_of(section):
            return kind
        raise GadgetError(f"{self.name}: nobody knows how to attach {self._name(program)}: its section is {section}")

    def _attach(self, program: int, kind: AttachKind, where: Where) -> None:
        failed = f"{self.name}: could not attach {self._name(program)}"
        section = self._section(program)
        try:
            if where.calls and section in HOOKS_OF_CALLS and (calls := self.calls()):
                self._seats.append(where.calls.attach(section, self._lib.bpf_program__fd(program), calls))
                return
            for link in kind.attach(program, where):
                if not link:
                    raise GadgetError(f"{failed}: {os.strerror(ctypes.get_errno())}")
                self._links.append((program, link))
        except OSError as error:
            raise GadgetError(f"{failed}: {error.strerror}") from None

    def iterators(self) -> Iterator[int]:
        """A file descriptor to read for each attached iterator, which belongs to the caller."""
        for program, link in self._links:
            if self._lib.bpf_program__section_name(program).startswith(b"iter/"):
                made = self._lib.bpf_iter_create(self._lib.bpf_link__fd(link))
                yield libbpf.check(made, f"iterate {self._name(program)}")

    def pin(self, map_name: str, path: Path) -> None:
        """Keep a map in bpffs at path."""
        libbpf.check(self._lib.bpf_obj_pin(self.map_fd(map_name), os.fsencode(path)), f"pin {path}")

    def pin_links(self, folder: Path) -> None:
        """Keep every program attached, by a link in bpffs for each in a new folder, also when this process ends.

        The program is pinned beside its link: only with CAP_SYS_ADMIN could it be found by that. The folder is there
        once it holds all of them, however this process ends.
        """
        making = folder.with_name("making")
        if making.exists():
            remove(making)
        making.mkdir()
        for program, link in self._links:
            path = making / self._name(program)
            libbpf.check(self._lib.bpf_link__pin(link, os.fsencode(path)), f"pin {path}")
            beside = path.with_name(path.name + PROGRAM)
            fd = self._lib.bpf_program__fd(program)
            libbpf.check(self._lib.bpf_obj_pin(fd, os.fsencode(beside)), f"pin {beside}")
        making.rename(folder)

    def detach(self) -> None:
        """Stop every program. Maps stay readable."""
        while self._seats:
            self._missed += self._seats[-1].missed()
            self._seats.pop().leave()
        while self._links:
            self._lib.bpf_link__destroy(self._links.pop()[1])

    def close(self) -> None:
        """Detach and free everything."""
        self.detach()
        with self._closing:
            if self._object:
                self._lib.bpf_object__close(self._object)
                self._object = None

    def programs(self) -> list[Program]:
        """Each program's name, and what the kernel says of it; none once it is closed. Callable from any thread."""
        with self._closing:
            every = [each for each in self._programs() if self._lib.bpf_program__autoload(each)] if self._object else []
            return [(self._name(each), libbpf.program_info(self._lib.bpf_program__fd(each))) for each in every]

    def program_names(self) -> list[str]:
        """The names of its programs."""
        return [self._name(each) for each in self._programs()]

    def _name(self, program: int) -> str:
        return str(self._lib.bpf_program__name(program).decode())

    def missed(self) -> int:
        """How often a program did not run because it was already running on that CPU (from Linux 5.12 on)."""
        own: int = sum(info.recursion_misses for _, info in self.programs())
        return own + self._missed + sum(seat.missed() for seat in self._seats)

    def map_fd(self, name: str) -> int:
        """The file descriptor of a map. It belongs to the object."""
        return libbpf.check(self._lib.bpf_map__fd(self._map(name)), f"map {name}")

    def percpu_totals(self, map_name: str, entries: int) -> list[int]:
        """The sums over all CPUs of a per-CPU array of u64."""
        fd = self.map_fd(map_name)
        values = np.zeros(self._lib.libbpf_num_possible_cpus(), np.uint64)
        totals = []
        for index in range(entries):
            key = ctypes.c_uint32(index)
            libbpf.check(self._lib.bpf_map_lookup_elem(fd, byref(key), values.ctypes.data), map_name)
            totals.append(int(values.sum()))
        return totals

    def array_value(self, map_name: str, index: int) -> int:
        """One u64 of an array."""
        value = ctypes.c_uint64()
        fd, key = self.map_fd(map_name), ctypes.c_uint32(index)
        libbpf.check(self._lib.bpf_map_lookup_elem(fd, byref(key), byref(value)), map_name)
        return value.value

    def set_array_value(self, map_name: str, index: int, value: int) -> None:
        """Set one u64 of an array."""
        fd, key, new = self.map_fd(map_name), ctypes.c_uint32(index), ctypes.c_uint64(value)
        libbpf.check(self._lib.bpf_map_update_elem(fd, byref(key), byref(new), 0), map_name)

    def set(self, map_name: str, key: int, value: int) -> bool:
        """Put u64 value under u64 key; False if the map is full."""
        pair = ctypes.c_uint64(key), ctypes.c_uint64(value)
        return int(self._lib.bpf_map_update_elem(self.map_fd(map_name), byref(pair[0]), byref(pair[1]), 0)) == 0

    def delete(self, map_name: str, key: int) -> None:
        """Remove a u64 key, if it is there."""
        self._lib.bpf_map_delete_elem(self.map_fd(map_name), byref(ctypes.c_uint64(key)))

    def items(self, map_name: str) -> Iterator[tuple[int, int]]:
        """Keys and values of a hash map from u64 to u64."""
        return ((key, value) for key, (value,) in self.tallies(map_name, 1))

    def tallies(self, map_name: str, size: int) -> Iterator[tuple[int, list[int]]]:
        """Keys and values of a hash map from u64 to so many u64."""
        fd = self.map_fd(map_name)
        key, following, values = ctypes.c_uint64(), ctypes.c_uint64(), (ctypes.c_uint64 * size)()
        previous = None
        while self._lib.bpf_map_get_next_key(fd, previous, byref(following)) == 0:
            key.value = following.value
            previous = byref(key)
            if self._lib.bpf_map_lookup_elem(fd, byref(key), byref(values)) == 0:
                yield key.value, list(values)

    def _map(self, name: str) -> int:
        object_ = self._object  # none once it is closed
        found: int | None = object_ and self._lib.bpf_object__find_map_by_name(object_, name.encode())
        if not found:
            raise GadgetError(f"{self.name}: no map {name}")
        return found

    def _programs(self) -> Iterator[int]:
        program = self._lib.bpf_object__next_program(self._object, None)
        while program:
            yield program
            program = self._lib.bpf_object__next_program(self._object, program)


def why_not_attached(wanted: BpfObject, folder: Path, maps: Iterable[int], of_some: Iterable[int] = ()) -> str:
    """Why the pins in folder do not keep all programs of an object running with these maps; empty if they do.

    Every program must use all of maps, and each map of of_some must be used by a program or more.
    """
    used, missing = ({libbpf.map_info(fd).id for fd in fds} for fds in (maps, of_some))
    for name in wanted.program_names():
        try:
            with pinned(folder / name) as link, pinned(folder / f"{name}{PROGRAM}") as program:
                info = libbpf.program_info(program)
                if libbpf.link_info(link).prog_id != info.id:
                    return f"{folder / name} is not the link of its program"
                if info.name != name[:15].encode():
                    return f"{folder / name} is of another program"
                of_program = libbpf.program_maps(program)
                if not used <= of_program:
                    return f"{folder / name} uses other maps"
                missing -= of_program
        except OSError as error:
            return str(error)
    return f"the programs of {folder} use other maps" if missing else ""


def programs_in(folder: Path) -> list[Program]:
    """BpfObject.programs for the programs that are pinned anywhere below folder."""
    found = []
    with suppress(FileNotFoundError):  # they are being removed
        for path in sorted(folder.rglob(f"*{PROGRAM}")):
            fd = open_pinned(path)
            found.append((path.name.removesuffix(PROGRAM), libbpf.program_info(fd)))
            os.close(fd)
    return found


def missed_by(folder: Path) -> int:
    """BpfObject.missed for the programs that are pinned anywhere below folder."""
    return sum(info.recursion_misses for _, info in programs_in(folder))


def ring_bytes(wanted: int) -> int:
    """The size a ring must have for wanted bytes: a power of two of whole pages (BPF_MAP_TYPE_RINGBUF)."""
    return int(max(mmap.PAGESIZE, 1 << (max(wanted, 1) - 1).bit_length()))
