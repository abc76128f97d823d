"""Programs that look once at what is there already, such as the files of all processes."""

from __future__ import annotations

import os
from collections.abc import Iterator

from agent import libbpf
from agent.attach.where import Where


def takes(section: str) -> bool:
    """Iterators."""
    return section.startswith("iter/")


def attach(program: int, where: Where) -> Iterator[int | None]:
    """One link, by which the program has run over everything."""
    lib = libbpf.library()
    link = lib.bpf_program__attach(program)
    yield link
    if not link or not where.looks:
        return
    fd = libbpf.check(lib.bpf_iter_create(lib.bpf_link__fd(link)), "iterator")
    try:
        while True:
            try:
                if not os.read(fd, 4096):
                    break
            except BlockingIOError:  # it has looked at a million things and written nothing: go on (bpf_seq_read)
                continue
    finally:
        os.close(fd)
