"""What agents read from files for a gadget: reader.py of its folder, which the build copies to agent/_generated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from agent.containers.tracker import Cgroup


class Reading(NamedTuple):
    """A row: values by field, text as bytes, of an enum the word; and how many rows of the container are lost.

    Without values it is none: whoever reads may stop there, as what is looked at may have no end.
    """

    cgroup_id: int
    values: Mapping[str, Any]
    lost: int = 0


class Reader(Protocol):
    """Reads rows of containers. One that remembers does so from one table to the next."""

    def read(self, containers: Sequence[Cgroup]) -> Iterator[Reading]:
        """The rows of containers that run."""


def find_reader(gadget: str, mount: Path, proc: Path) -> Reader | None:
    """What reads a gadget's rows, where cgroup2 is mounted at mount; None if its programs make them.

    Unsupported if this machine has nothing to read.
    """
    name = f"agent._generated.readers.{gadget}"
    if find_spec(name) is None:
        return None
    made: Reader = import_module(name).Reader(mount, proc)
    return made
