"""The agents that a command talks to."""

from __future__ import annotations

from collections.abc import Callable


class Targets(dict[str, Callable[[], str]]):
    """For each agent, by what users call it, a function that waits for its address, or raises GadgetError.

    look gives the targets that there are by now, where they can change: agents restart, nodes come. It raises
    GadgetError while nobody can tell.
    """

    look: Callable[[], Targets] | None = None
