"""How long a stream waits for its agents."""

from __future__ import annotations

from gadget.values import dataclass


@dataclass(frozen=True)
class Patience:
    """Times of one command, in seconds."""

    #: A stream that is silent says so, for those who wait with what they have: soon at first, and then less often.
    quiet: float = 0.05
    most_quiet: float = 0.4
    #: How long after the end of a target it is looked for again, at first and when it stays away.
    look: float = 0.5
    most_look: float = 5.0
    #: A target that starts so long after the first has missed something, and it is told.
    late: float = 2.0
    #: How long agents may take to end a run that they were asked to end, without a word; and one that has not begun.
    end: float = 5.0
    unbegun: float = 0.3
    #: How long what agents kept is still shown after Ctrl-C: there may be much more of it than anybody waits for.
    rest: float = 0.4
    #: How long what others kept waits for an agent that says nothing, or not how often it beats.
    backlog: float = 10.0


#: That of all commands.
PATIENCE = Patience()
