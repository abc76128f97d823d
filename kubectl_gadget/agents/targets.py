"""The agents that a command talks to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Agent(NamedTuple):
    """An agent: what users call it, its address, and the node that it was reached on, empty if only it can tell."""

    target: str
    address: str
    node: str = ""


def context_of(target: str) -> str:
    """The cluster of a target that is a node of one of several, called CONTEXT/NODE; else empty."""
    return target.rpartition("/")[0]


class Targets(dict[str, Callable[[], str]]):
    """For each agent, by what users call it, a function that waits for its address, or raises GadgetError.

    look gives the targets that there are by now, where they can change: agents restart, nodes come. It raises
    GadgetError while nobody can tell. are_nodes: they are called by the nodes that they were reached on.
    """

    look: Callable[[], Targets] | None = None
    are_nodes: bool = False

    def reach(self, target: str) -> Agent:
        """A target's address, once it can be reached. GadgetError if it cannot be."""
        return Agent(target, self[target](), self.node(target))

    def node(self, target: str) -> str:
        """The node that a target was reached on, empty if only it can tell."""
        return target if self.are_nodes else ""
