"""The command `story`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from gadget.schema import Parameter
from gadget.standing import story_run
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import (
    Option,
    SizeType,
    gadget_options,
    output_options,
    standing_options,
    stream_options,
    where_options,
)
from kubectl_gadget.standing.detach import check_detached, let_stand
from kubectl_gadget.story.kinds import FORMS, all_kinds, by_default, choose, complete_kinds
from kubectl_gadget.story.requests import complete_conditions, make_requests
from kubectl_gadget.stream.request import make_selection
from kubectl_gadget.where import default_namespace, find_selection, find_targets

#: Of each ring: there are two for each kind, and an agent may have 32 runs in less than a gigabyte.
RING_BYTES = 1 << 20
#: What an agent keeps of one that stands, half of what all may keep.
KEEP_BYTES = 32 << 20
#: Options that are those of a gadget's command.
_TAKEN = ("max_events", "strict", "timeout", "record")


class StoryCommand(HeadedCommand):
    """`story`: what happens in containers, as a story."""

    def __init__(self) -> None:
        """Make the command."""
        first, *_ = all_kinds().values()
        options: list[click.Parameter] = [
            Option(["--kinds"], heading="Options", default="", metavar="A,B|+A,-B|all", shell_complete=complete_kinds,
                   help="Kinds of events to show, or to add and leave out: see below. Those that you name are shown in "
                   "full."),
            *gadget_options(replace(first[0], parameters=_of_all())),
            *where_options(),
            *cluster_options(),
            Option(["form", "-o", "--output"], heading="Output", type=click.Choice(FORMS),
                   default="columns", help="Format."),
            Option(["filter_", "--filter"], heading="Output", multiple=True, metavar="[KIND:]EXPR",
                   shell_complete=complete_conditions, help="Only events like 'comm==sh && uid!=0'. KIND: is for one "
                   "kind, the others stay as they are: 'exec:args~curl'. Operators: == != < <= > >= ~ !~ (regular "
                   "expression)."),
            *(option for option in (*output_options(), *stream_options()) if option.name in _TAKEN),
            Option(["--buffer"], heading="Output", type=SizeType(), default=RING_BYTES,
                   help="Size of each of the two kernel rings of a kind, such as 4M. [default: 1M]"),
            *(option for option in standing_options("story", "32M, in equal parts for each kind")
              if option.name != "metric"),
        ]  # fmt: skip
        title = "what happens in a pod: many kinds of events, a line each"
        super().__init__("story", title, "kubectl gadget story -n shop cart", options, self._run)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """And the kinds."""
        super().format_help(ctx, formatter)
        with formatter.section("Kinds, and what is shown of them by default"):
            rows = [(kind, f"{by_default(story)} ({gadget.title})") for kind, (gadget, story) in all_kinds().items()]
            formatter.write_dl(rows, col_max=26)

    def _run(
        self,
        kinds: str,
        namespace: tuple[str, ...],
        all_namespaces: bool,
        pod: tuple[str, ...],
        container: tuple[str, ...],
        selector: str,
        local: bool,
        agent: tuple[str, ...],
        form: str,
        filter_: tuple[str, ...],
        max_events: int | None,
        strict: bool,
        timeout: float,
        record: Path | None,
        buffer: int,
        detach: bool,
        name: str | None,
        keep: int | None,
        print_only: bool,
        **settings: Any,
    ) -> None:
        chosen = choose(kinds)
        check_detached(detach, {"--name": name, "--keep": keep, "--print-only": print_only})
        selection = make_selection(namespace, all_namespaces, pod, container, selector)
        if not (namespace or all_namespaces):
            selection = replace(selection, namespaces=default_namespace(agent, local))
        requests = make_requests(
            chosen,
            settings,
            form,
            filter_,
            max_events=max_events or 0,
            strict=strict,
            timeout=timeout,
            ring_bytes=buffer,
            record=record,
        )
        if detach:
            from kubectl_gadget.standing.make import standing_of

            name = name or "story"
            selection = find_selection(selection, agent, local)
            part = max((keep or KEEP_BYTES) // len(requests) >> 10, 1) << 10  # 0 would be as much as agents like
            stands = [
                standing_of(story_run(name, kind), part, (), request.about(selection))
                for kind, request in requests.items()
            ]
            let_stand(name, stands, story=True, print_only=print_only, agent=agent, local=local)
            return
        with find_targets(agent, local) as targets:
            selection = find_selection(selection, agent, local)
            requests = {kind: request.about(selection) for kind, request in requests.items()}
            from kubectl_gadget.story.together import Together
            from kubectl_gadget.stream.begin import stops  # grpc, while a local agent starts

            reached = targets()
            runs = Together(reached, requests)
            with stops(runs, timeout), runs:
                from kubectl_gadget.cluster.directory import find_directory  # numpy, while it loads the gadgets
                from kubectl_gadget.story.session import show

                directory = find_directory(reached, selection.namespaces, cluster=not (agent or local))
                show(requests, chosen, reached, runs, directory)


def _of_all() -> list[Parameter]:
    """The settings that every gadget of a story has."""
    (first, _), *others = all_kinds().values()
    kinds = [{item.name: item.kind for item in gadget.parameters} for gadget, _ in others]
    return [item for item in first.parameters if all(each.get(item.name) == item.kind for each in kinds)]
