"""Asks agents for their recordings, and finds the one that a user means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gadget.errors import GadgetError, Unsupported, UsageError
from gadget.text import escape
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.pods import KINDS
from kubectl_gadget.stream.nothing import where_of
from kubectl_gadget.stream.request import Selection
from kubectl_gadget.tell import tell

if TYPE_CHECKING:
    from kubectl_gadget.traceloop.instances import Instance

#: Where an agent of this machine that was not told otherwise keeps recordings beyond its own end.
PINS = Path("/sys/fs/bpf/gadget")


def pods_of(name: str | None, agents: Sequence[str], local: bool) -> tuple[str, ...]:
    """A name as -p takes it, if it is KIND/NAME. UsageError if that takes a cluster, and there is none."""
    kind, slash, _ = (name or "").partition("/")
    plural = KINDS.get(kind.partition(".")[0], "") if slash else ""
    if plural not in ("", "pods") and (agents or local):
        how = "--agent" if agents else "--local"
        raise UsageError(f"{name}: only a cluster knows which pods that is: with {how} give a pod's name")
    return (name,) if name and plural else ()


def choose_one(
    found: list[Instance], selection: Selection, name: str | None, number: int, previous: bool, *, anywhere: bool
) -> Instance:
    """The recording to show: of a name, or of all that are selected; with anywhere also elsewhere, which is told."""
    from kubectl_gadget.traceloop import instances

    if number and previous:
        raise UsageError("--instance and --previous: choose one")

    def among(selection: Selection) -> Instance:
        here = instances.among(found, selection)
        if name:
            return instances.choose(instances.named(here, name, begins=True), name, number, previous)
        if number or previous:
            return instances.choose(here, ",".join(selection.pods), number, previous)
        if not here:
            raise UsageError(instances.why_none(found, selection))
        newest = instances.newest_bad_end(here)
        if newest is None and selection.pods:
            newest = max(here, key=lambda each: each.newest)
        if newest is None:
            raise UsageError(f"nothing that is recorded here ended badly: name one of {len(here)} (traceloop list)")
        return newest

    try:
        return among(selection)
    except UsageError as error:
        if not (anywhere and selection.namespaces):
            if name and (hint := _where_else(found, selection, name)):
                raise UsageError(hint) from error
            raise
        try:
            chosen = among(replace(selection, namespaces=()))
        except UsageError:
            chosen = None
        if chosen is None:
            raise
    tell(f"{chosen.name} is in namespace {chosen.container.namespace}")
    return chosen


def _where_else(found: Sequence[Instance], selection: Selection, name: str) -> str:
    """Where else there are recordings of a name that has none in a selection; empty if nowhere, or if it has some."""
    from kubectl_gadget.traceloop import instances

    def named(selection: Selection) -> list[Instance]:
        try:
            return instances.named(instances.among(found, selection), name, begins=True)
        except UsageError:
            return []

    if named(selection):
        return ""
    if selection.containers and (others := named(replace(selection, containers=()))):
        known = sorted({escape(each.container.container) for each in others})
        return f"no recording of {name!r} with -c {','.join(selection.containers)}: it has {', '.join(known)}"
    if selection.namespaces and (others := named(replace(selection, namespaces=()))):
        known = sorted({escape(each.container.namespace) for each in others})
        return f"no recording of {name!r} in {where_of(selection)}: it is in -n {' and -n '.join(known)}"
    return ""


def ask_all(targets: Targets) -> list[Instance]:
    """The recordings of all targets. Which did not answer is said; GadgetError if none did."""
    from kubectl_gadget.traceloop import instances

    found, failures = instances.ask(targets)
    _fail(failures, bool(found))
    return found


def need_recorder(agents: Sequence[str], local: bool) -> None:
    """Unsupported for --local where no agent runs: one for the life of a command has recorded nothing."""
    if not local or agents:
        return
    from kubectl_gadget.agents.local import need_agent

    waiting = sum(1 for _ in PINS.rglob("ring-*")) if PINS.exists() else 0
    kept = f"; recordings of an earlier agent wait for it in {PINS} ({waiting})" if waiting else ""
    need_agent("nothing is recorded", kept)


def _fail(failures: list[GadgetError], some: bool) -> None:
    """Say which agents failed; it is an error if none answered. An agent without a recorder is no failure of others."""
    told = failures if some else failures[1:]
    for failure in told:
        if not isinstance(failure, Unsupported):
            tell(f"incomplete: {failure}")
    if failures and not some:
        raise failures[0]
