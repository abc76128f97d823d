"""Programs that look once at what is there already, such as the files of all processes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

from agent.bpf import libbpf
from agent.bpf.attach.where import Where

#: The kernel gives no more than its own buffer at a time: 8 pages (bpf_seq_read).
READ_BYTES = 1 << 16
#: Iterates over the elements of a map.
_OVER_MAP = b"iter/bpf_map_elem"


def takes(section: str) -> bool:
    """Iterators."""
    return section.startswith("iter/")


def attach(program: int, where: Where) -> Iterator[int | None]:
    """One link. When it is made, the program has run over everything."""
    lib = libbpf.library()
    link = (
        _over_map(program, where.turns)
        if lib.bpf_program__section_name(program) == _OVER_MAP
        else (lib.bpf_program__attach(program))
    )
    yield link
    if not link or not where.looks:
        return
    for _ in read(libbpf.check(lib.bpf_iter_create(lib.bpf_link__fd(link)), "iterator")):
        pass


def _over_map(program: int, fd: int) -> int | None:
    info = ctypes.c_uint32(fd)  # union bpf_iter_link_info (linux/bpf.h)
    options = libbpf.IterationOptions(
        ctypes.sizeof(libbpf.IterationOptions), ctypes.addressof(info), ctypes.sizeof(info)
    )
    link: int | None = libbpf.library().bpf_program__attach_iter(program, ctypes.byref(options))
    return link


def read(fd: int) -> Iterator[bytes]:
    """What an iterator's program writes, in parts. The descriptor is closed in the end."""
    try:
        while True:
            try:
                part = os.read(fd, READ_BYTES)
            except BlockingIOError:  # it has looked at a million things and written nothing: go on (bpf_seq_read)
                continue
            if not part:
                return
            yield part
    finally:
        os.close(fd)
