"""`kubectl gadget attach`: what standing runs have kept, and what comes."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from gadget import catalog
from gadget.errors import UsageError
from gadget.standing import story_run
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.completion import complete_standing
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import DurationType, Option, not_empty, output_options, stream_options, where_options
from kubectl_gadget.standing.commands import places
from kubectl_gadget.standing.stories import LACKING, is_run, is_whole, members
from kubectl_gadget.stream.request import make_request, make_selection
from kubectl_gadget.where import find_targets


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
                Option(["--since"], heading="What", type=DurationType(), default=0.0, metavar="10m",
                       help="What happened in so long. [default: all that is kept]"),
                Option(["--last"], heading="What", type=click.IntRange(1), default=None, metavar="N",
                       help="The last N events of what is kept."),
                *narrowing,
                *places(),
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
        conditions = (*filter_, *([f"timestamp>={since_ns}"] if since_ns else []))
        rest: dict[str, Any] = {
            "max_events": max_events or 0, "timeout": timeout, "strict": strict, "record": record,
            "selection": selection, "since_ns": since_ns, "last": last or 0, "follow": follow,
        }  # fmt: skip
        with find_targets(agent, local, lacking=LACKING) as targets:
            from kubectl_gadget.cluster.directory import find_directory
            from kubectl_gadget.standing.make import ask_list, find
            from kubectl_gadget.stream.begin import begin, stops
            from kubectl_gadget.stream.session import stream

            reached = targets()
            replies, directory = ask_list(reached), find_directory(reached, (), cluster=not (agent or local))
            if not is_run(name, replies) and (kinds := members(name, replies)):
                from kubectl_gadget.story.kinds import recorded
                from kubectl_gadget.story.requests import make_requests
                from kubectl_gadget.story.session import check_form, show
                from kubectl_gadget.story.together import Together

                given = {"--fields": fields, "--count-by": count_by}
                check_form(f"{name} is a story", form, [option for option, value in given.items() if value])
                chosen = recorded({kind: is_whole(status.run.start) for kind, (status, *_) in kinds.items()})
                requests = {
                    kind: replace(request, standing=story_run(name, kind))
                    for kind, request in make_requests(chosen, {}, form, conditions, **rest).items()
                }
                runs = Together(reached, requests)
                with stops(runs, timeout), runs:
                    show(requests, chosen, reached, runs, directory)
                return
            gadget = catalog.find(find(name, replies).run.start.gadget)
            if gadget.has_tables:
                raise UsageError(f"{name} keeps no tables of {gadget.command}: what it counts is for Prometheus")
            request = make_request(
                gadget,
                {},
                form,
                fields,
                conditions,
                count_by,
                standing=name,
                **rest,
            )
            with begin(request, reached) as streams:
                stream(request, reached, streams, directory)
