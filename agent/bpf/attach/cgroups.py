"""Programs that see the packets and sockets of a cgroup, and of all cgroups below it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from agent.bpf import libbpf
from agent.bpf.attach.where import Where


def takes(section: str) -> bool:
    """Of packets (cgroup_skb), of addresses (connect, sendmsg) and of sockets (sock_create)."""
    return section.startswith(("cgroup_skb/", "cgroup/"))


def attach(program: int, where: Where) -> Iterator[int | None]:
    """One link, for which CAP_NET_ADMIN is needed. Programs that others have attached there stay."""
    if where.cgroup is None:
        raise FileNotFoundError(2, "no cgroup to attach to")
    fd = os.open(where.cgroup, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield libbpf.library().bpf_program__attach_cgroup(program, fd)
    finally:
        os.close(fd)
