"""The BPF objects that the package carries."""

from __future__ import annotations

import os
from pathlib import Path

from agent import libbpf
from gadget.errors import GadgetError

OBJECTS = Path(__file__).parent / "_objects"


#: Between an object's name and what it needs of the kernel, as between a type's name and its flavour for CO-RE.
FLAVOUR = "___"


def read_object(name: str) -> bytes:
    """The object of a program for this machine, of several the one for what this kernel has. GadgetError if none is."""
    folder = OBJECTS / os.uname().machine
    names = sorted(path.name.removesuffix(".bpf.o") for path in folder.glob(f"{name}{FLAVOUR}*.bpf.o"))
    needed = next((each for _, _, each in (name.partition(FLAVOUR) for name in names) if libbpf.kernel_has(each)), "")
    try:
        return (folder / f"{name}{FLAVOUR if needed else ''}{needed}.bpf.o").read_bytes()
    except FileNotFoundError:
        raise GadgetError(f"no {name} for {os.uname().machine} in this agent") from None
