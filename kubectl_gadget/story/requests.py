"""What a story asks of each of its gadgets; --filter, on the fields of one kind or on those that all kinds have."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from gadget import filters
from gadget.errors import UsageError
from gadget.schema import IDENTITY, Column
from gadget.text import meant
from kubectl_gadget.completion import conditions
from kubectl_gadget.output import all_fields
from kubectl_gadget.story.kinds import ShownKind, all_kinds, choose, hint
from kubectl_gadget.stream.request import Request, make_request

_KIND = re.compile(r"\s*(\w+)\s*:\s*")
#: A kind where it means nothing: within an expression, outside double quotes.
_WITHIN = re.compile(r'"(?:[^"\\]|\\.)*"|[\s,&|(!](?P<kind>[a-z]+):\s*[\w.]+\s*[=!<>~]')


def make_requests(
    chosen: Sequence[ShownKind], settings: Mapping[str, Any], form: str, conditions: Sequence[str], **rest: Any
) -> dict[str, Request]:
    """What is asked of each kind's gadget. UsageError if a condition does not fit."""
    asked = conditions_of(conditions, chosen)
    requests = {}
    for each in chosen:
        kind, story = each.story.kind, each.story
        parameters = story.whole if each.is_named else story.parameters
        usual = {f"param_{name}": value for name, value in parameters.items()}
        requests[kind] = make_request(each.gadget, {**usual, **settings}, form, "", tuple(asked[kind]), "", **rest)
    return requests


def conditions_of(texts: Sequence[str], chosen: Sequence[ShownKind]) -> dict[str, list[str]]:
    """The conditions on each kind's events. UsageError that names the kind or the field that was meant."""
    by_kind = {each.story.kind: each for each in chosen}
    found: dict[str, list[str]] = {kind: [] for kind in by_kind}
    for text in texts:
        for part in _WITHIN.finditer(text):
            if part["kind"] in all_kinds():
                raise UsageError(f"--filter {text[part.start('kind') :]!r}: give each kind a --filter of its own")
        if not (head := _KIND.match(text)):
            _check_common(text, chosen)
            for each in found.values():
                each.append(text)
            continue
        kind, condition = head[1], text[head.end() :]
        if kind not in all_kinds():
            raise UsageError(f"--filter {text!r}: no kind {kind!r}: {hint(kind)}")
        if kind not in by_kind:
            raise UsageError(f"--filter {text!r}: {kind} is not shown: there is {', '.join(by_kind)}")
        if not condition.strip():
            raise UsageError(f"--filter {text!r}: {filters.WANTED}")
        filters.parse(condition, by_kind[kind].gadget.schema, IDENTITY)
        found[kind].append(condition)
    return found


def _check_common(text: str, chosen: Sequence[ShownKind]) -> None:
    """UsageError unless conditions make sense for every kind."""
    wrong: UsageError | None = None
    for each in chosen:
        try:
            filters.parse(text, each.gadget.schema, IDENTITY)
        except filters.UnknownField as error:
            have = [other.story.kind for other in chosen if error.field in _fields(other)]
            if have:
                kinds = f"{have[0]}:{error.field}" + f", or as well {', '.join(have[1:])}" * (len(have) > 1)
                raise UsageError(f"--filter: not every kind has {error.field}: write {kinds}") from None
            common = _common(chosen)
            every = {name for other in chosen for name in _fields(other)}
            near = meant(error.field, common) or meant(error.field, every)
            told = near or f"all kinds have {', '.join(common)}"
            raise UsageError(f"unknown field {error.field!r} in --filter: {told}") from None
        except UsageError as error:
            wrong = wrong or error
    if wrong:
        raise wrong


def _fields(each: ShownKind) -> dict[str, Column]:
    schema = each.gadget.schema
    return {**all_fields(schema), **schema.parts}


def _common(chosen: Sequence[ShownKind]) -> dict[str, Column]:
    """The fields that all kinds have."""
    first, *others = map(_fields, chosen)
    return {name: field for name, field in first.items() if all(name in other for other in others)}


def complete_conditions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Of the command `story`: a kind, a field of it or of all, or the words for a field's value."""
    try:
        return complete_of(choose(ctx.params.get("kinds") or ""), incomplete)
    except UsageError:
        return []


def complete_of(chosen: Sequence[ShownKind], incomplete: str) -> list[CompletionItem]:
    """The same for these kinds."""
    by_kind = {each.story.kind: each for each in chosen}
    if head := _KIND.match(incomplete):
        known = by_kind.get(head[1])
        items = conditions(_fields(known).values(), incomplete[head.end() :]) if known else []
        return [CompletionItem(incomplete[: head.end()] + item.value, help=item.help) for item in items]
    kinds = [
        CompletionItem(f"{kind}:", help=each.gadget.title)
        for kind, each in by_kind.items()
        if kind.startswith(incomplete.strip())
    ]
    return [*kinds, *conditions(_common(chosen).values(), incomplete)]
