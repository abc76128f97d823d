"""`kubectl gadget runs`, `attach` and `delete`: the standing runs that `GADGET --detach` makes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from gadget import catalog
from gadget.errors import GadgetError
from gadget.schema import Column
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.completion import complete_standing
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import Duration, Option, not_empty, output_options, stream_options, where_options
from kubectl_gadget.output import Look, make_output, write_table
from kubectl_gadget.request import make_request, make_selection
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


def _places() -> list[click.Parameter]:
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
            [*_places(), *cluster_options(), form],
            self._run,
        )

    def _run(self, local: bool, agent: tuple[str, ...], form: str) -> None:
        with find_targets(agent, local) as targets:
            from kubectl_gadget.standing.make import ask_list

            replies = ask_list(targets())
        rows = [
            (
                reply.node,
                status.run.name,
                status.run.start.gadget,
                _chosen(status.run.start) if status.run.start.gadget else "",
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
            for status in reply.runs
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


def _chosen(start: Any) -> str:
    """What a run is about, in the words of the options."""
    selection = start.selection
    pods = [f"{'!' * each.without}{each.pattern or each.labels}" for each in selection.any_of]
    parts = {"-n": selection.namespaces, "-p": pods, "-c": selection.containers}
    words = [f"{flag} {','.join(names)}" for flag, names in parts.items() if names]
    words += [f"-l {selection.labels}"] if selection.labels else []
    for name, value in sorted(start.parameters.items()):
        words.append(f"--{name.replace('_', '-')}" + f" {value}" * (value not in ("True", "true")))
    return " ".join(words if any(parts.values()) or selection.labels else ["-A", *words])


class AttachCommand(HeadedCommand):
    """`attach`: what a standing run has kept, and what comes."""

    in_overview = False  # `runs` tells of it

    def __init__(self) -> None:
        """Make the command."""
        record = [option for option in stream_options() if option.name in ("record", "timeout")]
        narrowing = [option for option in where_options() if option.name in ("namespace", "pod", "container")]
        super().__init__(
            "attach",
            "what a standing run has kept, and with -f what comes",
            "kubectl gadget attach bad-opens --since 10m -f",
            [
                click.Argument(["name"], metavar="NAME", callback=not_empty, shell_complete=complete_standing),
                Option(["-f", "--follow"], heading="What", is_flag=True, help="Go on with what comes."),
                Option(["--since"], heading="What", type=Duration(), default=0.0, metavar="10m",
                       help="What happened in so long. [default: all that is kept]"),
                Option(["--last"], heading="What", type=click.IntRange(1), default=None, metavar="N",
                       help="The last N events of what is kept."),
                *narrowing,
                *_places(),
                *cluster_options(),
                *output_options(),
                *record,
            ],
            self._run,
        )  # fmt: skip

    def _run(
        self,
        name: str,
        follow: bool,
        since: float,
        last: int | None,
        namespace: tuple[str, ...],
        pod: tuple[str, ...],
        container: tuple[str, ...],
        local: bool,
        agent: tuple[str, ...],
        form: str,
        fields: str,
        filter_: tuple[str, ...],
        count_by: str,
        max_events: int | None,
        strict: bool,
        timeout: float,
        record: Path | None,
    ) -> None:
        selection = make_selection(namespace, False, pod, container, "")
        since_ns = time.time_ns() - int(since * 1e9) if since else 0
        with find_targets(agent, local) as targets:
            from kubectl_gadget.begin import begin
            from kubectl_gadget.peers import find_directory
            from kubectl_gadget.session import stream
            from kubectl_gadget.standing.make import ask_list, find

            reached = targets()
            found = find(name, ask_list(reached))
            request = make_request(
                catalog.find(found.run.start.gadget),
                {},
                form,
                fields,
                (*filter_, *([f"timestamp>={since_ns}"] if since_ns else [])),
                count_by,
                max_events=max_events or 0,
                timeout=timeout,
                strict=strict,
                record=record,
                selection=selection,
                standing=name,
                since_ns=since_ns,
                last=last or 0,
                follow=follow,
            )
            with begin(request, reached) as streams:
                stream(request, reached, streams, find_directory(reached, (), cluster=not (agent or local)))


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
                *_places(),
                *cluster_options(),
            ],
            self._run,
            verb="Deletes",
        )

    def _run(self, names: tuple[str, ...], local: bool, agent: tuple[str, ...]) -> None:
        with find_targets(agent, local) as targets:
            from kubectl_gadget.standing.make import delete

            reached = targets()
            if not (agent or local):
                from kubectl_gadget.cluster.definitions import forget

                forget(names)
            delete(names, reached, forgotten=not (agent or local))
