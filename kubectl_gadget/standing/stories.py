"""Stories that stand: a standing run of each kind, called NAME.KIND, which are listed, read and ended as NAME."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gadget import catalog
from gadget.errors import GadgetError, UsageError
from gadget.standing import shown_name, story_kinds, story_of, story_run
from gadget.story import Story

if TYPE_CHECKING:
    from gadget._generated import gadget_pb2 as pb

#: What `runs` calls their gadget.
STORY = "story"
#: What an agent that a command starts for itself does not have.
LACKING = "nothing runs on without you"


def members(story: str, replies: Mapping[str, Any]) -> dict[str, list[pb.StandingStatus]]:
    """The runs of a story on all agents that have answered, by kind."""
    found: dict[str, list[pb.StandingStatus]] = {}
    for status in _all(replies):
        of = story_of(status.run)
        if of and of[0] == story:
            found.setdefault(of[1], []).append(status)
    return found


def is_run(name: str, replies: Mapping[str, Any]) -> bool:
    """Whether there is a run of just that name."""
    return any(status.run.name == name for status in _all(replies))


def meant(names: Iterable[str], replies: Mapping[str, Any]) -> dict[str, list[str]]:
    """The runs that each name means: one run, or the runs of a story. An unknown name means itself."""
    found = {}
    for name in names:
        story = [] if is_run(name, replies) else [story_run(name, kind) for kind in members(name, replies)]
        found[name] = story or [name]
    return found


def possible(name: str) -> list[str]:
    """The runs that a story of that name may have; none if no story can be called so."""
    try:
        return [story_run(name, kind) for kind in story_kinds()]
    except UsageError:
        return []


def check_free(name: str, replies: Mapping[str, Any], *, story: bool) -> None:
    """UsageError if a name stands for something of the other sort already."""
    if story:
        other = next((status.run.start.gadget or "a file" for status in _all(replies) if status.run.name == name), "")
    else:
        other = "a story" if members(name, replies) else ""
    if other:
        raise UsageError(f"{name} is a run of {other} already: give it another --name, or end that one first")


def together(statuses: Sequence[pb.StandingStatus]) -> pb.StandingStatus:
    """One status of the runs of a story on a node."""
    first = statuses[0]
    made = type(first)(
        since_ns=min(each.since_ns for each in statuses),
        events=sum(each.events for each in statuses),
        rate=sum(each.rate for each in statuses),
        kept_bytes=sum(each.kept_bytes for each in statuses),
        overwritten=sum(each.overwritten for each in statuses),
        lost=sum(each.lost for each in statuses),
    )
    made.run.name, made.run.start.gadget = shown_name(first.run), STORY
    made.run.start.selection.CopyFrom(first.run.start.selection)
    problems: dict[str, list[str]] = {}
    for each in statuses:
        if each.problem:
            problems.setdefault(each.problem, []).append(each.run.name.rpartition(".")[2])
    made.problem = "; ".join(f"{', '.join(kinds)}: {problem}" for problem, kinds in problems.items())
    return made


def chosen_kinds(statuses: Iterable[pb.StandingStatus]) -> str:
    """What --kinds has to say for them, and the options that all gadgets have."""
    runs = {kind: each.run.start for each in statuses if (of := story_of(each.run)) for kind in [of[1]]}
    usual = [kind for kind, name in story_kinds().items() if not _story(name).optional]
    named = [kind for kind, start in runs.items() if is_whole(start)]
    changes = [f"+{kind}" for kind in named] + [f"-{kind}" for kind in usual if kind not in runs]
    kinds = changes if len(changes) <= len(runs) else [*runs]
    first, *_ = runs.values()
    own = {*_story(first.gadget).parameters, *_story(first.gadget).whole}
    rest = {name: value for name, value in first.parameters.items() if name not in own}
    words = [f"--kinds {','.join(kinds)}"] if kinds else []
    for name, value in sorted(rest.items()):
        words.append(f"--{name.replace('_', '-')}" + f" {value}" * (value not in ("True", "true")))
    return " ".join(words)


def is_whole(start: pb.Start) -> bool:
    """Whether a run has all events of its kind, as of one that was named."""
    story, given = _story(start.gadget), start.parameters
    if story.whole:
        return all(given.get(name) == value for name, value in story.whole.items())
    less = any(given.get(name) == value for name, value in story.parameters.items())
    return story.optional or (bool(story.parameters) and not less)


def _story(gadget: str) -> Story:
    story = catalog.find(gadget).story
    assert story
    return story


def _all(replies: Mapping[str, Any]) -> list[pb.StandingStatus]:
    return [status for reply in replies.values() if not isinstance(reply, GadgetError) for status in reply.runs]
