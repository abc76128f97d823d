"""Causes that a call which failed shows: of all that failed, which mattered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from kubectl_gadget.why import telling
from kubectl_gadget.why.facts import Facts
from kubectl_gadget.why.findings import BACKGROUND, Finding
from kubectl_gadget.why.history import CallHistory
from kubectl_gadget.why.last_words import CHAINED, FAREWELL, UNCAUGHT, at_the_end, outlived, said_at
from kubectl_gadget.why.meant import (
    CLEANS,
    ERROR_LINE,
    HARMLESS,
    IDLE,
    LIBRARY,
    ORDINARY,
    mentions_another_error,
    mentions_error,
    mentions_subject,
    what_failed,
)
from kubectl_gadget.why.noted import Failure
from kubectl_gadget.why.telling import Attempts


@dataclass(frozen=True)
class Signs:
    """What speaks for a failure and against it.

    named, told: what was said afterwards names what the call was about, and its error. both: one line does, of the
    processes whose end it was, and was said late. plainly: in words that mean no other error. told_last: late so too,
    and nothing else of its process failed so later. final: no error of something else is told after it. work: the
    calls that its process made since. quiet: nothing was said at all. near: what was said last tells it (1), or
    something earlier (less). chain: its process' place among those whose end it was, the first is 0; none for others.
    recovered: it was found elsewhere, or another answered. idle: programs look for it as a matter of course.
    harmless: what was said of it is that it does not matter. outlived: its program worked on, and told something else.
    overtaken: something serious of another kind failed long after it. outdone: its program ended by an exception that
    is not of it. another: what was said of its subject is another error. of_note: it is the last failure that may have
    mattered. tells: the last words are more than that it ends. shell: it ended as shells do that find no command. runs:
    it has not ended. serves: it has begun to listen since. interrupted: by a signal that has nothing to do with it.
    """

    attempts: Attempts
    named: bool
    told: bool
    both: bool
    plainly: bool
    told_last: bool
    final: bool
    work: int
    quiet: bool
    near: float
    chain: int | None
    recovered: bool
    idle: bool
    harmless: bool
    outlived: bool
    overtaken: bool
    outdone: bool
    another: bool
    of_note: bool
    tells: bool
    shell: bool
    runs: bool
    serves: bool
    interrupted: bool

    @property
    def serious(self) -> bool:
        """Whether programs seldom fail so without harm."""
        return self.attempts.meant.serious and self.attempts.rank <= (self.chain or 0) + 1


class Weight(NamedTuple):
    """Points for a sign, and why."""

    points: Callable[[Signs], float]
    applies: Callable[[Signs], bool]
    why: str


#: What is said so many calls after a failure is late only if nothing is said after it.
LATE_WORK = 40
#: What fails so many calls later is something else.
_APART = 8
_TRIED = ("refused", "no-answer", "unreachable")
#: The first that applies is where a failure begins.
BASES = (
    Weight(lambda signs: 88, lambda signs: signs.both, "named, with its error"),
    Weight(lambda signs: 82, lambda signs: signs.told_last, "its error is told, and nothing failed so later"),
    Weight(lambda signs: 78, lambda signs: signs.told and signs.work < 10, "its error is told soon afterwards"),
    Weight(
        lambda signs: 60, lambda signs: signs.told and (signs.plainly or signs.work < LATE_WORK), "its error is told"
    ),
    Weight(lambda signs: 60, lambda signs: signs.named and signs.work < LATE_WORK, "named soon afterwards"),
    Weight(lambda signs: 45, lambda signs: signs.named, "named"),
    Weight(lambda signs: 58 * 0.8**signs.work, lambda signs: signs.quiet, "nothing is said: how near is the end?"),
    Weight(lambda signs: 45 * 0.8**signs.work, lambda signs: True, "how near is the end?"),
)
#: All that apply are added.
WEIGHTS = (
    Weight(lambda signs: 44, lambda signs: signs.serious and signs.work <= 2 and not (signs.named or signs.told),
           "serious, and right before the end"),
    Weight(lambda signs: 15, lambda signs: signs.serious and (signs.work > 2 or signs.named or signs.told), "serious"),
    Weight(lambda signs: -40, lambda signs: signs.attempts.last.name in CLEANS and not signs.both, "cleaning up"),
    Weight(lambda signs: -8, lambda signs: signs.shell and signs.attempts.meant.cause == "missing-file",
           "what a shell looked for: said.toml tells it better"),
    Weight(lambda signs: min(signs.attempts.count, 8), lambda signs: signs.attempts.meant.cause in _TRIED,
           "tried again and again"),
    Weight(lambda signs: -4 * (signs.chain or 0), lambda signs: signs.chain is not None, "a child's, passed on"),
    Weight(lambda signs: -8 if signs.both else -25, lambda signs: signs.chain is None,
           "of a process that does not count"),
    Weight(lambda signs: -45, lambda signs: signs.recovered, "it came to what it wanted"),
    Weight(lambda signs: -30, lambda signs: signs.runs and not signs.both, "it runs on"),
    Weight(lambda signs: 5, lambda signs: signs.named and signs.attempts.meant.cause in ("disk", "read-only"),
           "of a whole file system"),
    Weight(lambda signs: -80, lambda signs: signs.runs and signs.serves, "it serves without"),
    Weight(lambda signs: -25, lambda signs: signs.interrupted, "a signal ended it"),
    Weight(lambda signs: -40, lambda signs: signs.idle and not signs.both, "everybody looks for it"),
    Weight(lambda signs: -70, lambda signs: signs.harmless, "told as what it does without"),
    Weight(lambda signs: -85, lambda signs: signs.outlived, "its program worked on, and told something else"),
    Weight(lambda signs: -60, lambda signs: signs.overtaken and not signs.serious, "something worse came later"),
    Weight(lambda signs: -20, lambda signs: signs.outdone, "its program ended by an exception that is not of it"),
    Weight(lambda signs: -60, lambda signs: signs.another, "what was said is another error"),
    Weight(lambda signs: -30, lambda signs: bool(LIBRARY.search(signs.attempts.last.subject)) and not signs.named,
           "loaders look for a library in many places"),
    Weight(lambda signs: 14 * signs.near, lambda signs: signs.named or signs.told, "what was said last counts most"),
)  # fmt: skip
#: The last failure that is not a matter of course has at least this much, and more if it was tried again: but not
#: what was looked for long before words of an error that are about something else.
OF_NOTE, MOST_TRIES = 44.0, 30
#: Of more that failed, those are judged that were most likely told, and the last ones.
MOST_ATTEMPTS = 64
#: More than anything else.
MOST = 99.0


def find(facts: Facts) -> Iterator[Finding]:
    """Findings of the calls that failed, of the process whose end it was and of those that it waited for."""
    history = facts.history
    of_note = _last_of_note(history)
    for attempts in _likeliest(history, of_note):
        yield _finding(facts, attempts, of_note)


def _likeliest(history: CallHistory, of_note: Failure | None) -> list[Attempts]:
    """What failed, without most of it where that is very much."""
    words, every = history.last_words(), _attempts(history)

    def likelihood(attempts: Attempts) -> tuple[bool | int, ...]:
        failure = attempts.last
        base = failure.subject.rpartition("/")[2]
        return (
            failure is of_note,
            attempts.rank < len(history.chain),
            bool(base) and base in words,
            attempts.meant.serious,
            not IDLE.search(failure.subject),
            failure.at,
        )

    return sorted(every, key=likelihood)[-MOST_ATTEMPTS:]


def _attempts(history: CallHistory) -> list[Attempts]:
    chain = {pid: rank for rank, pid in enumerate(history.chain)}
    found: dict[tuple[str, str, str], Attempts] = {}
    for failure in history.failures:
        meant = what_failed(failure)
        if meant is None or (failure.error in ORDINARY and not meant.serious):
            continue
        rank = chain.get(failure.call.pid, len(chain) + 1)
        # a name that is looked for in one folder after another is one thing that is missing
        base = failure.subject.rpartition("/")[2] if failure.error == "ENOENT" else failure.subject
        key = (meant.cause, failure.name if meant.serious else "", base or failure.name)
        if known := found.get(key):
            known.last, known.count, known.rank = failure, known.count + 1, min(known.rank, rank)
            known.places.add(failure.subject)
        else:
            found[key] = Attempts(meant, failure, 1, rank, {failure.subject})
    return list(found.values())


def _signs(facts: Facts, attempts: Attempts, words: str, said: str, of_note: Failure | None) -> Signs:
    history, failure = facts.history, attempts.last
    named, told = mentions_subject(words, failure), mentions_error(words, failure.error)
    plainly = mentions_error(words, failure.error, hints=False)
    work = history.work_after(failure.at, failure.call.pid)
    own = telling.lines_of(history.words_after(failure.call.time_ns, history.chain))
    both = mentions_subject(said, failure) and mentions_error(said, failure.error)
    after = own[len(own) - own[::-1].index(said) :] if said in own else []
    late = said in own and (not after or work < LATE_WORK)
    in_chain = attempts.rank < len(history.chain)
    said_last = "".join(telling.lines_of(at_the_end(history))[-1:])
    return Signs(
        attempts=attempts,
        named=named,
        told=told,
        both=both and late,
        plainly=plainly,
        told_last=plainly and late and _is_last(history, failure),
        final=late and not any(_tells_of_another(line, failure) for line in after),
        work=work,
        quiet=not history.last_words(),
        near=_nearness(words, said),
        chain=attempts.rank if in_chain else None,
        recovered=history.reached(failure),
        idle=bool(IDLE.search(failure.subject)),
        harmless=bool(HARMLESS.search(said)),
        outlived=bool(said) and not facts.running and outlived(history, said),
        overtaken=work >= _APART and _is_overtaken(history, failure),
        another=mentions_another_error(said, failure.error),
        outdone=bool(said)
        and not said[0].isspace()
        and any(_ends_by_another(line, failure) for line in after)
        and not CHAINED.search(words),
        of_note=in_chain and bool(facts.status) and failure is of_note,
        tells=bool(said_last) and (bool(ERROR_LINE.search(said_last)) or not FAREWELL.search(said_last)),
        shell=facts.code == 127,
        runs=facts.running,
        serves=any(call.time_ns > failure.call.time_ns for call in history.calls("listen")),
        interrupted=history.interrupted,
    )


def _weight(signs: Signs) -> float:
    base = next(each.points(signs) for each in BASES if each.applies(signs))
    weight = base + sum(each.points(signs) for each in WEIGHTS if each.applies(signs))
    apart = signs.tells and signs.work >= LATE_WORK and signs.attempts.meant.cause == "missing-file"
    if signs.of_note and not (signs.named or signs.told or apart):
        weight = max(weight, OF_NOTE + min(signs.attempts.count - 1, MOST_TRIES))
    return min(weight, MOST)


def _finding(facts: Facts, attempts: Attempts, of_note: Failure | None) -> Finding:
    history, failure = facts.history, attempts.last
    words = history.words_after(failure.call.time_ns)
    said = telling.telling_line(words, failure)
    signs = _signs(facts, attempts, words, said, of_note)
    cause, weight = _cause(history, attempts), _weight(signs)
    if cause == "wrong-format" and re.search("\x7fELF|exec format|cannot execute", words, re.IGNORECASE):
        weight = MOST
    forced = signs.final and (signs.both or (signs.told_last and _is_only(history, failure)))
    at_once = not signs.work and not signs.idle and (signs.plainly or not words)
    forced = forced or (at_once and len(history.last_words()) <= len(words))
    told_ns = said_at(history, said)
    counts = bool(facts.status) and signs.chain is not None and not signs.recovered and not signs.interrupted
    counts = counts and not (signs.harmless or signs.outlived or signs.overtaken or signs.outdone)
    counts = counts and not (of_note and of_note.subject != failure.subject and 0 < told_ns < of_note.call.time_ns)
    counts = counts and not (signs.chain and history.ambiguous)
    return Finding(
        cause=cause,
        sentence=telling.sentence(facts, attempts, said),
        weight=weight,
        certain=counts and forced and weight >= BACKGROUND,
        evidence=(failure.call, *telling.ending(history, failure.call, said)),
        details=telling.details(facts, attempts),
        told=said,
    )


def _cause(history: CallHistory, attempts: Attempts) -> str:
    """What a failure means where more is known of it than its call and error."""
    cause, failure = attempts.meant.cause, attempts.last
    if cause == "permission" and failure.error == "EPERM" and (failure.call.pid, failure.subject) in history.made:
        return "seccomp"  # its own file: nothing else refuses that
    if cause == "missing-file" and LIBRARY.search(failure.subject):
        return "missing-library"
    if cause in ("refused", "no-answer") and failure.subject.endswith(":53"):
        return "dns"
    return cause


def _is_last(history: CallHistory, failure: Failure) -> bool:
    """Whether no call of its process failed so afterwards: then it is the one that was told."""
    later = (each for each in history.failures if each.at > failure.at and each.call.pid == failure.call.pid)
    return not any(each.error == failure.error for each in later)


def _is_only(history: CallHistory, failure: Failure) -> bool:
    """Whether nothing else failed so in the processes whose end it was."""
    alike = (each for each in history.failures if each.error == failure.error and each.call.pid in history.chain)
    return all(each.subject == failure.subject for each in alike)


def _tells_of_another(line: str, failure: Failure) -> bool:
    """Whether a line, if it is no part of a stack, tells an error that is not this one."""
    if line[0].isspace() or mentions_error(line, failure.error) or mentions_subject(line, failure):
        return False
    return bool(ERROR_LINE.search(line))


def _is_overtaken(history: CallHistory, failure: Failure) -> bool:
    """Whether something failed later, in one of the processes whose end it was, that programs seldom do without."""
    for each in reversed(history.failures):
        if each.at <= failure.at:
            return False
        meant = what_failed(each)
        if meant and meant.serious and each.error != failure.error and each.call.pid in history.chain:
            return not (IDLE.search(each.subject) or history.reached(each) or each.name in CLEANS)
    return False


def _ends_by_another(line: str, failure: Failure) -> bool:
    """Whether a line tells an exception that ends a program and is not of this failure."""
    return (
        bool(UNCAUGHT.search(line)) and not mentions_error(line, failure.error) and not mentions_subject(line, failure)
    )


def _nearness(words: str, said: str) -> float:
    """How late a line was said: 1 for the last one, below a half for others."""
    if not said:
        return 0
    lines = telling.lines_of(words)
    return 1 if lines and lines[-1] == said else 0.43 * (words.rfind(said) + len(said)) / (len(words) + 1)


def _last_of_note(history: CallHistory) -> Failure | None:
    """The last failure of the processes whose end it was that is not a matter of course."""
    for failure in reversed(history.failures):
        if failure.call.pid not in history.chain or what_failed(failure) is None or failure.name in CLEANS:
            continue
        if LIBRARY.search(failure.subject):
            continue
        if failure.error not in ORDINARY and not IDLE.search(failure.subject) and not history.reached(failure):
            return _why_so(history, failure)
    return None


def _why_so(history: CallHistory, failure: Failure) -> Failure:
    """What could not be made just before, if a failure only shows that it is not there."""
    if failure.error != "ENOENT":
        return failure
    for each in reversed(history.failures):
        meant = what_failed(each)
        if each.at < failure.at and each.call.pid == failure.call.pid and each.subject == failure.subject:
            return each if meant and meant.serious else failure
    return failure
