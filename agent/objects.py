"""The BPF objects that the package carries."""

from __future__ import annotations

import os
from pathlib import Path

from gadget.errors import GadgetError

OBJECTS = Path(__file__).parent / "_objects"


def read_object(name: str) -> bytes:
    """The object of a program for this machine. GadgetError if there is none."""
    try:
        return (OBJECTS / os.uname().machine / f"{name}.bpf.o").read_bytes()
    except FileNotFoundError:
        raise GadgetError(f"no {name} for {os.uname().machine} in this agent") from None
