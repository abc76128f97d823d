"""What is said of a flow that policies were asked about."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gadget.text import escape
from kubectl_gadget.terms import SAID

#: What is said of a flow, in a word.
ALLOWED, DENIED, PERHAPS, NOT_JUDGED = (word.replace("-", " ") for word in SAID)
#: The namespace and name of policies.
Names = tuple[tuple[str, str], ...]


class Opinion(NamedTuple):
    """What policies would do to a flow: in a word, empty if none has a say, and why; and which ones, at each end.

    is_judged: it was asked of them.
    """

    word: str = ""
    why: str = ""
    egress: Names = ()
    ingress: Names = ()
    is_judged: bool = False


#: Whether an opinion is one that is asked for.
Decides = Callable[[Opinion], bool]


def told(opinion: Opinion) -> tuple[bool, str]:
    """Whether an opinion is bad news, and how it stands behind a flow."""
    word, why = opinion.word, escape(opinion.why)
    if word == NOT_JUDGED:
        return False, f"; policies: not judged, as {why}"
    if word in (DENIED, PERHAPS):
        return True, f"; policies {'would' if word == DENIED else 'may'} deny it: {why}"
    return False, f" allowed by {why}" if word else ""
