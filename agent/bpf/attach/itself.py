"""Programs whose section says all: libbpf attaches them."""

from __future__ import annotations

from collections.abc import Iterator

from agent.bpf import libbpf
from agent.bpf.attach.where import Where

_SECTIONS = ("tp_btf/", "tp/", "tracepoint/", "raw_tp/", "raw_tracepoint/", "fentry/", "fexit/", "lsm/")


def takes(section: str) -> bool:
    """Tracepoints, functions and LSM hooks."""
    return section.startswith(_SECTIONS)


def attach(program: int, where: Where) -> Iterator[int | None]:
    """One link."""
    yield libbpf.library().bpf_program__attach(program)
