"""How programs are attached: a module for each kind, which says what sections of an object it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from agent.bpf.attach import cgroups, iterators, itself, samples
from agent.bpf.attach.where import Calls, Seat, Where

__all__ = ["HOOKS_OF_CALLS", "KINDS", "Calls", "Kind", "Seat", "Where", "kind_of"]

#: Where programs run at system calls, all or those of a table.
HOOKS_OF_CALLS = ("tp_btf/sys_enter", "tp_btf/sys_exit")


class AttachKind(Protocol):
    """What each of the modules is."""

    def takes(self, section: str) -> bool:
        """Whether programs of that section are attached so."""

    def attach(self, program: int, where: Where) -> Iterator[int | None]:
        """The links of a program, each once it is made; None, and errno, if one could not be. OSError says why, too."""


#: In this order: what an agent may not do comes late, so that other programs are attached by then. A look at what is
#: there already comes when nothing new is missed any more.
KINDS: tuple[AttachKind, ...] = (itself, samples, cgroups, iterators)


def kind_of(section: str) -> AttachKind | None:
    """How programs of a section are attached; None if nobody knows."""
    return next((kind for kind in KINDS if kind.takes(section)), None)
