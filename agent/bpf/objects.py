"""The BPF objects that the package carries."""

from __future__ import annotations

import os
from pathlib import Path

from agent.bpf import libbpf
from gadget.errors import GadgetError

OBJECTS = Path(__file__).parents[1] / "_objects"
#: Between an object's name and what it needs of the kernel, as between a type's name and its flavour for CO-RE.
FLAVOUR = "___"


def read_object(name: str) -> bytes:
    """The object of a program for this machine and this kernel. GadgetError if there is none."""
    folder = OBJECTS / os.uname().machine
    for path in sorted(folder.glob(f"{name}{FLAVOUR}*.bpf.o")):
        if libbpf.kernel_has(path.name.removesuffix(".bpf.o").partition(FLAVOUR)[2]):
            return path.read_bytes()
    try:
        return (folder / f"{name}.bpf.o").read_bytes()
    except FileNotFoundError:
        raise GadgetError(f"no {name} for {os.uname().machine} in this agent") from None
