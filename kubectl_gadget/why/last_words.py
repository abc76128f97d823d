"""What a program said last, and whether that is about what it said before."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kubectl_gadget.why.history import CallHistory

#: What Python says between the stack of an exception and that of the one that was raised because of it.
CHAINED = re.compile(r"^The above exception was the direct cause of the following exception:$", re.MULTILINE)
#: What a line has in it that tells no more than that a program ends, or is a part of what was said before.
FAREWELL = re.compile(
    r"(?i)\b(?:shut(?:ting)? ?down|stop(?:s|ped|ping)?|exit(?:s|ed|ing)?|clos(?:e|ed|ing)|terminat(?:e|ed|ing)|"
    r"abort(?:ed|ing)?|quit(?:ting)?|bye|giv(?:e|es|ing) up|gave up|restart(?:ed|ing)?|retr(?:y|ies|ying)|"
    r"fail(?:s|ed|ing|ure)?|clean(?:ed|ing)? ?up|finish(?:ed|ing)?|done|see|check|help|usage|hint|debug|traceback|"
    r"stack|node\.js v[\d.]+)\b|^[\s})\]^~|>*=-]"
)
#: How runtimes begin to tell of an exception that nobody caught.
UNCAUGHT = re.compile(
    r"^(?:panic: |fatal error: |Exception in thread |Unhandled exception|thread '.*panicked at |"
    r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception)(?:: |$))"
)
#: Calls of a thread that are more than what comes between two lines of one error.
_WORKED = 4
#: So soon before the end of a program the last of what it kept back is told, nanoseconds.
_KEPT_NS = 200_000_000


def of_errors(history: CallHistory, pids: Sequence[int]) -> str:
    """What was said on standard error last, if what came on standard output then was only kept back till the end.

    Libraries keep what goes into a pipe until a program ends. Empty if it did not happen so.
    """
    said = [each for each in history.said if not pids or each.pid in pids]
    if not said or said[-1].descriptor != 1:
        return ""
    errors = [each for each in said if each.descriptor == 2 and said[-1].time_ns - each.time_ns < _KEPT_NS]
    return "".join(each.text for each in errors)


def at_the_end(history: CallHistory) -> str:
    """The last words of the processes whose end it was, in the order in which they were meant."""
    return of_errors(history, history.chain) or history.last_words(history.chain)


def said_at(history: CallHistory, line: str) -> int:
    """When a line was said by one of the processes whose end it was, the last time; 0 if it was not."""
    text = line.strip()
    own = (each.time_ns for each in history.said if text and each.pid in history.chain and text in each.text)
    return max(own, default=0)


def outlived(history: CallHistory, line: str) -> bool:
    """Whether who said a line worked on, and then ended with words of something else."""
    text, own = line.strip(), [each for each in history.said if each.pid in history.chain]
    said = next((each for each in reversed(own) if text and text in each.text), None)
    if said is None or said is own[-1] or said.pid != own[-1].pid:
        return False
    last = "".join([each for each in at_the_end(history).splitlines() if each.strip()][-1:])
    if not last or text in last or FAREWELL.search(last) or UNCAUGHT.search(last):
        return False
    return history.worked(said.tid, said.time_ns, own[-1].time_ns) >= _WORKED
