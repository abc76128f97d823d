"""What passes through a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from agent.containers.identity import Container

#: Packed events of one size, (events, bytes of each). Steps get views of a source's memory.
Rows = npt.NDArray[np.uint8]
#: One thing that is done with the rows of a look, in the order in which a run has its steps.
Step = Callable[[list[Rows]], list[Rows]]


@dataclass(frozen=True)
class Loss:
    """Events that were lost so far, all told, for one reason. cgroup_id 0: not known whose."""

    reason: str
    cgroup_id: int
    count: int


class TableInfo(NamedTuple):
    """A table: its number in the run, from 1 on, and how long it took, in nanoseconds.

    is_cut: it has less than a whole interval, as the end came before.
    """

    number: int
    length_ns: int
    is_cut: bool = False


@dataclass(frozen=True)
class Packed:
    """Rows of one size, one after the other."""

    record_size: int
    count: int
    rows: bytes


@dataclass
class Batch:
    """What one look at a source gave. losses are all so far, None if they are as before."""

    sections: list[Packed]
    containers: Mapping[int, Container]  # by cgroup; for a subscriber those that it has not been told of
    losses: list[Loss] | None = None
    read_ns: int = field(default_factory=time.time_ns)  # since 1970: up to then the source has been read
    whole: TableInfo | None = None  # the table that the sections are, if they are one


def pack(rows: Rows) -> Packed:
    """A copy of rows, wherever they are. Each is one item for numpy, which would else go byte by byte."""
    size = rows.shape[1]
    return Packed(size, len(rows), rows.view(f"V{size}").tobytes())


def column(rows: Rows, dtype: np.dtype[np.void], name: str) -> npt.NDArray[np.integer[Any]]:
    """A numeric field of rows of any length."""
    form, offset = dtype.fields[name][:2]  # type: ignore[index]
    found: npt.NDArray[np.integer[Any]] = rows[:, offset : offset + form.itemsize].view(form)[:, 0]
    return found
