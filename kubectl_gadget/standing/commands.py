"""`kubectl gadget runs` and `delete`: the standing runs that `GADGET --detach` and `story --detach` make."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from gadget.errors import GadgetError
from gadget.schema import Column
from gadget.standing import story_of
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.completion import complete_standing
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import output_options, where_options
from kubectl_gadget.output import Look, make_output, write_table
from kubectl_gadget.standing.stories import LACKING, chosen_kinds, is_run, meant, possible, together
from kubectl_gadget.tell import tell
from kubectl_gadget.where import find_targets

FIELDS = [
    Column("node", "identity"),
    Column("name", "identity"),
    Column("gadget", "identity"),
    Column("selection", "text"),
    Column("since", "age"),
    Column("events", "int"),
    Column("rate", "rate"),
    Column("kept", "size"),
    Column("overwritten", "int"),
    Column("lost", "int"),
    Column("problem", "text"),
]
LOOK = Look(narrow=("selection", "rate", "overwritten", "since"), failed={"problem": bool, "lost": bool})


def places() -> list[click.Parameter]:
    """Options for the agents of this machine."""
    return [option for option in where_options() if option.name in ("local", "agent")]


class RunsCommand(HeadedCommand):
    """`runs`: what stands, on each node."""

    def __init__(self) -> None:
        """Make the command."""
        form, *_ = output_options()
        super().__init__(
            "runs",
            "standing runs, which go on without you; see attach, delete",
            "kubectl gadget runs",
            [*places(), *cluster_options(), form],
            self._run,
        )

    def _run(self, local: bool, agent: tuple[str, ...], form: str) -> None:
        with find_targets(agent, local, lacking=LACKING) as targets:
            from kubectl_gadget.standing.make import ask_list

            replies = ask_list(targets())
        rows = [
            (
                reply.node,
                status.run.name,
                status.run.start.gadget,
                selection,
                status.since_ns,
                status.events,
                status.rate,
                status.kept_bytes,
                status.overwritten,
                status.lost,
                status.problem,
            )
            for reply in replies.values()
            if not isinstance(reply, GadgetError)
            for status, selection in _listed(reply.runs)
        ]
        if rows or form != "columns":
            rows.sort(key=lambda row: (row[1], row[0]))
            write_table(make_output(form, FIELDS, {"rate": "EVENTS/S"}, LOOK), rows)
        sys.stdout.flush()
        failed = [reply for reply in replies.values() if isinstance(reply, GadgetError)]
        for error in failed[: None if len(failed) < len(replies) else -1]:
            tell(f"warning: {error}")
        if failed and len(failed) == len(replies):
            raise failed[-1]
        if not rows:
            tell("No standing runs. Make one: kubectl gadget opensnoop -n shop --failed --detach --name bad-opens")


def _listed(runs: Sequence[Any]) -> Iterator[tuple[Any, str]]:
    """The runs of a node with what each is about; those of a story as one."""
    stories: dict[str, list[Any]] = {}
    for status in runs:
        if story := story_of(status.run):
            stories.setdefault(story[0], []).append(status)
        else:
            yield status, _chosen(status.run.start) if status.run.start.gadget else ""
    for statuses in stories.values():
        one = together(statuses)
        yield one, " ".join(filter(None, (_chosen(one.run.start), chosen_kinds(statuses))))


def _chosen(start: Any) -> str:
    """The selection and parameters of a run, written as options."""
    selection = start.selection
    pods = [f"{'!' * each.without}{each.pattern or each.labels}" for each in selection.any_of]
    parts = {"-n": selection.namespaces, "-p": pods, "-c": selection.containers}
    words = [f"{flag} {','.join(names)}" for flag, names in parts.items() if names]
    words += [f"-l {selection.labels}"] if selection.labels else []
    for name, value in sorted(start.parameters.items()):
        words.append(f"--{name.replace('_', '-')}" + f" {value}" * (value not in ("True", "true")))
    return " ".join(words if any(parts.values()) or selection.labels else ["-A", *words])


class DeleteCommand(HeadedCommand):
    """`delete`: end standing runs."""

    in_overview = False  # `runs` tells of it

    def __init__(self) -> None:
        """Make the command."""
        super().__init__(
            "delete",
            "standing runs, with what they have kept",
            "kubectl gadget delete bad-opens",
            [
                click.Argument(["names"], metavar="NAME…", nargs=-1, required=True, shell_complete=complete_standing),
                *places(),
                *cluster_options(),
            ],
            self._run,
            verb="Deletes",
        )

    def _run(self, names: tuple[str, ...], local: bool, agent: tuple[str, ...]) -> None:
        with find_targets(agent, local, lacking=LACKING) as targets:
            from kubectl_gadget.standing.make import ask_list, delete

            reached = targets()
            replies = ask_list(reached)
            if not (agent or local):
                from kubectl_gadget.cluster.definitions import forget

                forget(run for name in names for run in (name, *(() if is_run(name, replies) else possible(name))))
            delete(meant(names, replies), reached, forgotten=not (agent or local))
