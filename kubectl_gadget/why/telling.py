"""A failed call in a sentence: what it could not do, what was said of it, and what else is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gadget.kinds.times import short_duration
from kubectl_gadget.strace import Call
from kubectl_gadget.why import now
from kubectl_gadget.why.arguments import meaning
from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.findings import plain, quoted
from kubectl_gadget.why.history import CallHistory
from kubectl_gadget.why.meant import PRIVILEGED, SHORT, VERBS, Meant, mentions_error, mentions_subject
from kubectl_gadget.why.noted import Failure


@dataclass
class Attempts:
    """Failures that were alike: the last one, and how many there were. rank: in the chain of ends, 0 is the first.

    places are the paths at which one name was looked for.
    """

    meant: Meant
    last: Failure
    count: int
    rank: int
    places: set[str]


def lines_of(words: str) -> list[str]:
    """The lines of output that are not empty."""
    return [line for line in words.splitlines() if line.strip()]


def telling_line(words: str, failure: Failure) -> str:
    """The line of output that tells a failure: that which names it, else the last that tells the error."""
    lines = lines_of(words)
    tests: tuple[Callable[[str], bool], ...] = (
        lambda line: mentions_subject(line, failure) and mentions_error(line, failure.error),
        lambda line: mentions_error(line, failure.error),
        lambda line: mentions_subject(line, failure),
    )
    for test in tests:
        if found := [line for line in lines if test(line)]:
            return found[-1]
    return ""


def sentence(facts: Facts, attempts: Attempts, said: str) -> str:
    """What could not be done, by whom, how often, and what came of it; said is the line of output that tells it."""
    failure, history = attempts.last, facts.history
    verb = VERBS.get(failure.name, f"{failure.name}:" if failure.subject else failure.name)
    subject = plain(facts.names.get(failure.subject, failure.subject))
    short = SHORT.get(failure.error, meaning(failure.error).lower())
    who = "it"
    if failure.call.pid != history.main and (name := history.program(failure.call.pid)):
        who = plain(name, 40)
    more = " or more" if history.failures_left_out else ""
    times = f", {attempts.count} times{more}" if attempts.count > 2 else ""
    if len(attempts.places) > 1:
        subject, times = plain(failure.subject.rpartition("/")[2]), f", in {len(attempts.places)} folders{more}"
    error = f" ({failure.error})" if failure.error.startswith("E") else ""
    takes = PRIVILEGED.get(failure.name, "") if attempts.meant.cause == "capability" else ""
    right = f", as that takes {takes}" if takes else ""
    what = f"{who} could not {verb}{f' {subject}' if subject else ''}: {short}{error}{right}{times}"
    return what + _until_end(facts, failure.call, said)


def _until_end(facts: Facts, call: Call, said: str) -> str:
    """What was said about it, and how much later the container ended."""
    last = facts.history.words_after(call.time_ns).strip().splitlines()[-1:]
    words = (
        f"; it said {quoted(said, 100)}" if said else f"; its last words were {quoted(last[0], 100)}" if last else ""
    )
    over = max((end.time_ns for ends in facts.history.ends.values() for end in ends), default=0)
    if not over or facts.running:
        return words
    later = f"ended {short_duration(max(0, over - call.time_ns))} later"
    return f"{words} and {later}" if said else f"{words}; it {later}"


def ending(history: CallHistory, call: Call, said: str) -> Sequence[Call]:
    """The calls behind a failure that show what it led to: what said it, and the end."""
    words = said.strip()[:24]
    after = (each for each in history.calls("write", "writev") if each.time_ns > call.time_ns)
    telling = next((each for each in after if words in _written(each)), None) if words else None
    ends = [each for each in history.calls("exit", "exit_group") if each.time_ns > call.time_ns]
    return [*([telling] if telling else []), *[each for each in ends if each.pid in history.chain][-1:]]


def _written(call: Call) -> str:
    found = call.captured.get(1)
    return found.data.decode("utf-8", "backslashreplace") if found else ""


def details(facts: Facts, attempts: Attempts) -> tuple[str, ...]:
    """What else is known about the object of a failure."""
    failure, found = attempts.last, []
    if attempts.meant.cause == "permission" and (failure.call.pid, failure.subject) in facts.history.made:
        found.append(f"it made that itself, so a seccomp profile or a security module refuses {failure.name}")
    if attempts.meant.cause == "seccomp":
        found.append(f"the kernel seldom refuses {failure.name} by itself: a seccomp profile does")
    if failure.name.startswith("inotify") and not facts.live:
        found.append("the node's limits are fs.inotify.max_user_instances and fs.inotify.max_user_watches")
    if note := facts.notes.get(failure.subject):
        found.append(note)
    if facts.kubernetes:
        for path, what in facts.kubernetes.mounts.items():
            if failure.subject == path or failure.subject.startswith(path.rstrip("/") + "/"):
                found.append(f"the pod mounts {plain(what)} at {plain(path)}")
    return (*found, *now.details(facts, failure, attempts.meant.cause))
