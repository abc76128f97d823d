"""Commands that stream: one for each gadget of the catalogue, and containers."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from gadget import catalog
from gadget.catalog import Gadget
from gadget.errors import UsageError
from gadget.recorded import STORY
from gadget.schema import SNAPSHOT, TABLE
from gadget.selector import parse_names
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.completion import complete_filter, recorded
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import (
    USUAL_SECONDS,
    Option,
    gadget_options,
    not_empty,
    output_options,
    standing_options,
    stream_options,
    table_options,
    where_options,
)
from kubectl_gadget.output import Extent, all_fields, explain, find_form, make_output
from kubectl_gadget.pods import read_pods
from kubectl_gadget.standing.detach import check_detached, let_stand
from kubectl_gadget.stream.order import read_order
from kubectl_gadget.stream.request import make_request, make_selection
from kubectl_gadget.where import default_namespace, find_selection, find_targets


class ContainersCommand(HeadedCommand):
    """`containers`: what the agents know."""

    def __init__(self) -> None:
        """Make the command."""
        form, *_ = output_options()
        watch = Option(["watch", "-w", "--watch"], heading="Output", is_flag=True, help="Go on with each change.")
        super().__init__(
            "containers",
            "the containers that agents know: what to trust the rest by",
            "kubectl gadget containers -n shop -w",
            [*where_options(), *cluster_options(), watch, form],
            self._run,
        )

    def _run(self, local: bool, agent: tuple[str, ...], watch: bool, form: str, **selected: Any) -> None:
        if not (selected["namespace"] or selected["all_namespaces"]):
            selected["namespace"] = default_namespace(agent, local)
        selection = make_selection(**selected)
        with find_targets(agent, local) as targets:
            selection = find_selection(selection, agent, local)
            from gadget._generated import gadget_pb2 as pb
            from kubectl_gadget.stream import containers

            every = find_form(form).extent > Extent.COLUMNS
            fields = [field for field in containers.FIELDS if every or field.name in containers.COLUMNS]
            request = pb.ContainersRequest(follow=watch, selection=pb.Selection(**selection.message()))
            headers = {"cgroup_id": "CGROUP", "containerId": "ID"}
            containers.show(targets(), request, make_output(form, fields, headers, containers.LOOK), selection)


class GadgetCommand(HeadedCommand):
    """Runs one gadget."""

    def __init__(self, gadget: Gadget) -> None:
        """Make the command of gadget."""
        self.gadget = gadget
        form = "histogram" if gadget.has_histograms else "columns"
        output = [*output_options(form=form), *stream_options()]
        params = [*gadget_options(gadget), *where_options(), *cluster_options(), *output]
        if gadget.has_tables:
            params = [param for param in params if param.name not in _OF_EVENTS] + table_options(gadget)
        if gadget.source != SNAPSHOT:
            params += standing_options(tables=gadget.has_tables)
        super().__init__(gadget.command.rpartition(" ")[2], gadget.title, gadget.example, params, self._run)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """And the fields."""
        super().format_help(ctx, formatter)
        with formatter.section("Fields"):
            schema = self.gadget.schema
            rows = [(field.name, explain(field, schema)) for field in all_fields(schema).values()]
            formatter.write_dl(rows, col_max=26)

    def _run(
        self,
        namespace: tuple[str, ...],
        all_namespaces: bool,
        pod: tuple[str, ...],
        container: tuple[str, ...],
        selector: str,
        local: bool,
        agent: tuple[str, ...],
        form: str,
        fields: str,
        filter_: tuple[str, ...],
        timeout: float,
        strict: bool,
        record: Path | None,
        count_by: str = "",
        max_events: int | None = None,
        buffer: int = 0,
        detach: bool = False,
        name: str | None = None,
        keep: int | None = None,
        metric: tuple[str, ...] = (),
        print_only: bool = False,
        interval: float = 0.0,
        sort: str = "",
        top: int | None = None,
        count: int | None = None,
        totals: bool = False,
        every: bool = False,
        **settings: Any,
    ) -> None:
        check_detached(detach, {"--name": name, "--keep": keep, "--metric": metric, "--print-only": print_only})
        selection = make_selection(namespace, all_namespaces, pod, container, selector)
        request = make_request(
            self.gadget,
            settings,
            form,
            fields,
            filter_,
            count_by,
            ring_bytes=buffer,
            max_events=max_events or 0,
            timeout=timeout,
            strict=strict,
            record=record,
            **(_of_tables(self.gadget, interval, sort, top or 0, count or 0) if self.gadget.has_tables else {}),
            totals=totals,
            usual="" if every else self.gadget.usual.get("condition", ""),
        )
        if not (namespace or all_namespaces):
            selection = replace(selection, namespaces=default_namespace(agent, local))
        if detach:
            from kubectl_gadget.standing.make import standing_of

            request = request.about(find_selection(selection, agent, local))
            name = name or self.gadget.name
            run = standing_of(name, keep or 0, metric, request)
            let_stand(name, [run], story=False, print_only=print_only, agent=agent, local=local)
            return
        with find_targets(agent, local) as targets:
            request = request.about(find_selection(selection, agent, local))
            from kubectl_gadget.stream.begin import begin  # grpc, while a local agent starts

            reached = targets()
            with begin(request, reached) as streams:
                from kubectl_gadget.cluster.directory import find_directory  # numpy, while it loads the gadget
                from kubectl_gadget.stream.session import stream

                namespaces = request.selection.namespaces
                stream(request, reached, streams, find_directory(reached, namespaces, cluster=not (agent or local)))


class GadgetGroup(click.Group):
    """The commands of gadgets whose names begin with the same word."""

    def __init__(self, word: str) -> None:
        """Make the group."""
        gadgets = [gadget for gadget in catalog.load().values() if gadget.command.startswith(f"{word} ")]
        names = ", ".join(gadget.command.removeprefix(f"{word} ") for gadget in gadgets)
        super().__init__(word, help=f"Shows one of {names}.", short_help=names)
        self.context_settings = {"help_option_names": ["-h", "--help"]}
        for gadget in gadgets:
            self.add_command(GadgetCommand(gadget))


#: Options that mean nothing where rows come as whole tables.
_OF_EVENTS = ("count_by", "max_events", "buffer")


def _of_tables(gadget: Gadget, interval: float, sort: str, top: int, count: int) -> dict[str, Any]:
    """What a request has to know of tables. Without an interval a snapshot is taken once."""
    if gadget.source == TABLE:
        interval = interval or gadget.interval or USUAL_SECONDS
    elif not (interval := interval or gadget.interval):
        count = 1
    return {"interval": interval, "order": read_order(gadget, sort, top), "count": count}


def _narrowing() -> list[click.Parameter]:
    """Options that choose containers and nodes of a recording."""
    wanted = ("namespace", "pod", "container", "selector")
    node = Option(["--node"], heading="Where", multiple=True, metavar="A,B|!C", help="Nodes. [default: all]")
    return [*(option for option in where_options() if option.name in wanted), node]


def _complete_recorded(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A condition on the fields of a recording, which may be a story's."""
    header = recorded(ctx)
    if not (header and header.gadget == STORY):
        return complete_filter(ctx, param, incomplete)
    from kubectl_gadget.story.kinds import recorded as kinds_of
    from kubectl_gadget.story.requests import complete_of

    with suppress(UsageError):
        return complete_of(kinds_of({each.kind: each.in_full for each in header.kinds}), incomplete)
    return []


class ReplayCommand(HeadedCommand):
    """`replay`: a recording, with any output, fields and filter."""

    def __init__(self) -> None:
        """Make the command."""
        super().__init__(
            "replay",
            "a stream again that --record has kept; needs no agent",
            "kubectl gadget replay FILE -o wide --filter 'error!=0'",
            [
                click.Argument(["file"], metavar="FILE|-", callback=not_empty, type=click.Path(path_type=Path)),
                *_narrowing(),
                *output_options(_complete_recorded),
            ],
            self._run,
        )

    def _run(
        self,
        file: Path,
        form: str,
        fields: str,
        filter_: tuple[str, ...],
        count_by: str,
        max_events: int | None,
        strict: bool,
        namespace: tuple[str, ...],
        pod: tuple[str, ...],
        container: tuple[str, ...],
        selector: str,
        node: tuple[str, ...],
    ) -> None:
        from kubectl_gadget.stream.recording import Recording
        from kubectl_gadget.stream.session import replay

        selection = make_selection(namespace, False, pod, container, selector)
        if selector or any(name.is_workload for name in read_pods(pod)):
            what = "-l" if selector else "-p KIND/NAME"
            raise UsageError(f"{what}: recordings have no labels: choose with -n, -p and -c, or when you record")
        parse_names(node)
        recording = Recording(file)
        if recording.header.gadget == STORY:
            from kubectl_gadget.story.session import replay as replay_story

            of_fields = {"--fields": fields, "--count-by": count_by}
            rest = {"max_events": max_events or 0, "strict": strict, "selection": selection, "nodes": node}
            replay_story(recording, form, [name for name, value in of_fields.items() if value], filter_, **rest)
            return
        if recording.header.gadget == "detect":
            raise UsageError(f"{file}: rules judge it again: kubectl gadget detect --dry-run {file}")
        gadget = catalog.find(recording.header.gadget)
        if gadget.has_tables and max_events:
            raise UsageError(f"--max-events: {gadget.command} has tables, no events")
        request = make_request(
            gadget,
            {},
            form,
            fields,
            filter_,
            count_by,
            max_events=max_events or 0,
            strict=strict,
            selection=selection,
            nodes=node,
            order=read_order(gadget, "", 0),
        )
        replay(recording, request)
