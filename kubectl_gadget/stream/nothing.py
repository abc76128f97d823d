"""Explains why a selection finds nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import click

from gadget.selector import parse_names
from kubectl_gadget.stream.request import Selection

#: How many names are listed if a name was not found.
LISTED = 5


class ExistingContainer(NamedTuple):
    """A container that exists."""

    namespace: str
    pod: str
    container: str


def where_of(selection: Selection) -> str:
    """The namespaces of a selection, in words; empty for all."""
    if not selection.namespaces:
        return ""
    names = parse_names(selection.namespaces)
    words = [*sorted(names.wanted), *(f"!{name}" for name in sorted(names.unwanted))]
    return f"namespace{'s' * (len(words) > 1)} {', '.join(words)}"


def takes_host() -> bool:
    """Whether the command that runs has --host."""
    context = click.get_current_context(silent=True)
    return context is not None and any("--host" in param.opts for param in context.command.params)


def why_nothing(
    selection: Selection, known: Iterable[ExistingContainer], *, watching: bool = True, host: bool = False
) -> str:
    """Why a selection chooses none of the containers that there are, and what there is like it; empty if it does.

    host: --host would show more.
    """
    there = set(known)
    if not there:
        return f"no containers run there{'; --host shows what runs outside them' if host else ''}"
    chosen = selection.chosen()
    where = where_of(selection)
    near = [each for each in there if chosen.in_namespaces(each.namespace)]
    if not near:
        from difflib import get_close_matches

        namespaces = sorted({each.namespace for each in there if each.namespace})
        wanted = sorted(parse_names(selection.namespaces).wanted)
        like = [name for each in wanted for name in get_close_matches(each, namespaces, 1)]
        hint = f"there is {', '.join(like)}" if like else "-A for all"
        has = "have" if "," in where else "has"
        return f"{f'watching {where}, which' if watching else where} {has} no containers; {hint}"
    within = f" in {where}" if where else ""
    if selection.any_of:
        pods = Selection(selection.namespaces, any_of=selection.any_of).chosen()
        if not any(pods.matches(*each, None) for each in near):
            return _none("pod", "-p", selection.pods, within, {each.pod or each.container for each in near})
    if selection.containers:
        names = parse_names(selection.containers)
        if not any(names.matches(each.container) for each in near):
            return _none("container", "-c", selection.containers, within, {each.container for each in near})
    if selection.labels:
        return f"no pod matches -l {selection.labels}{within}"
    if any(chosen.matches(*each, None) for each in near):
        return ""
    options = [
        f"{flag} {','.join(asked)}" for flag, asked in (("-p", selection.pods), ("-c", selection.containers)) if asked
    ]
    return f"nothing matches {' '.join(options)}{within}"


def _none(what: str, option: str, asked: Sequence[str], within: str, names: set[str]) -> str:
    return f"no {what} matches {option} {','.join(asked)}{within}; there is {like(asked, names)}"


def like(asked: Sequence[str], names: set[str]) -> str:
    """The names most like one that was asked for, else the first names."""
    from difflib import get_close_matches

    every = sorted(name for name in names if name)
    heads = {name[: len(each) + 1]: name for each in _plain(asked) for name in reversed(every)}
    near = [heads[head] for each in _plain(asked) for head in get_close_matches(each, [*heads], 2)]
    near += [name for each in _plain(asked) for name in every if each in name]
    found = list(dict.fromkeys(near))[:LISTED] or every[:LISTED]
    more = len(every) - len(found)
    return ", ".join(found) + (f" and {more} more" if more > 0 else "")


def _plain(asked: Sequence[str]) -> list[str]:
    """The names that were asked for, without kinds and signs."""
    parts = (part.strip().rpartition("/")[2].strip("*") for item in asked for part in item.split(","))
    return [part for part in parts if part and part[0] != "!"]
