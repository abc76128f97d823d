"""The kinds of events that a story has, and which of them --kinds chooses. Nothing here knows a gadget by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

import click
from click.shell_completion import CompletionItem

from gadget import catalog
from gadget.catalog import Gadget
from gadget.errors import UsageError
from gadget.story import Story

ALL = "all"
#: What -o takes.
FORMS = ("columns", "json")


@dataclass(frozen=True)
class ShownKind:
    """A kind of events that is shown. is_named: the user named it, so all of its events are."""

    gadget: Gadget
    story: Story
    is_named: bool


@cache
def all_kinds() -> dict[str, tuple[Gadget, Story]]:
    """The gadget and the story of each kind, those of the default first."""
    found = [(gadget, gadget.story) for gadget in catalog.load().values() if gadget.story]
    found.sort(key=lambda each: (each[1].optional, each[1].kind))
    return {story.kind: (gadget, story) for gadget, story in found}


def choose(text: str) -> list[ShownKind]:
    """What "exec,open" names, or "+open,-dns" changes of the default. UsageError that names the kind that was meant."""
    known = all_kinds()
    items = [item.strip() for item in text.split(",") if item.strip()]
    changes = not items or items[0][0] in "+-"
    named = dict.fromkeys((kind for kind, (_, story) in known.items() if changes and not story.optional), False)
    for item in items:
        kind = item.lstrip("+-")
        if kind == ALL:
            found = list(known)
        elif kind in known:
            found = [kind]
        else:
            raise UsageError(f"--kinds: no kind {kind!r}: {hint(kind)}")
        for each in found:
            named.pop(each, None)
            if item[0] != "-":
                named[each] = True
    if not named:
        raise UsageError(f"--kinds {text}: leaves nothing")
    return [ShownKind(*known[kind], named[kind]) for kind in known if kind in named]


def recorded(kinds: Mapping[str, bool]) -> list[ShownKind]:
    """The kinds of a recording, each with whether it is in it in full. UsageError if one is of another version."""
    known = all_kinds()
    for kind in kinds:
        if kind not in known:
            raise UsageError(
                f"the recording has {kind}, unknown to this version of kubectl gadget: use the one that made it"
            )
    return [ShownKind(*known[kind], kinds[kind]) for kind in known if kind in kinds]


def hint(kind: str) -> str:
    """A hint with the kind that was meant, else with all kinds."""
    known = all_kinds()
    names = {gadget.name: name for name, (gadget, _) in known.items()} | {name: name for name in known}
    near = get_close_matches(kind, names, 1)
    return f"did you mean {names[near[0]]!r}?" if near else f"there is {', '.join(known)}"


def by_default(story: Story) -> str:
    """Which events of a kind are shown if the user has not named it, in words."""
    return "nothing" if story.optional else story.said or "all"


def complete_kinds(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The kinds, in a list such as a,+b,-c."""
    last = incomplete.rpartition(",")[2].lstrip("+-")
    before = incomplete[: len(incomplete) - len(last)]
    texts = {kind: gadget.title for kind, (gadget, _) in all_kinds().items()} | {ALL: "all of these, in full"}
    return [CompletionItem(before + kind, help=text) for kind, text in texts.items() if kind.startswith(last)]
