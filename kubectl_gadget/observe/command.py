"""The command `observe`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gadget import catalog
from gadget.errors import UsageError
from gadget.filters import joined
from kubectl_gadget.cluster.options import chosen_clusters, cluster_options
from kubectl_gadget.completion import Complete, complete_contexts, complete_namespaces, complete_pods
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.observe.choosing import (
    KINDS,
    SIDES,
    EndOption,
    Find,
    decisions,
    of_contexts,
    of_domains,
    of_drops,
    of_ends,
    of_versions,
    of_words,
    option_of,
    other_than,
)
from kubectl_gadget.observe.completion import complete_terms
from kubectl_gadget.observe.terms import read as read_terms
from kubectl_gadget.options import (
    DurationType,
    FormType,
    Option,
    SizeType,
    output_options,
    stream_options,
    where_options,
)
from kubectl_gadget.stream.request import Request, Selection, make_request, make_selection
from kubectl_gadget.where import default_namespace, find_targets

if TYPE_CHECKING:
    from gadget.kube.api import ApiServer
    from kubectl_gadget.agents.targets import Targets
    from kubectl_gadget.observe.policies import Opinions

GADGET = "observe"
_WHICH, _BY_END = "Which flows", "Which flows, by either end; each also --from-… and --to-…"
_SHORT = {"pod": "-p", "label": "-l"}
_COMPLETE: dict[str, Complete] = {
    "pod": complete_pods,
    "workload": complete_pods,
    "namespace": complete_namespaces,
    "cluster": complete_contexts,
}
#: The forms that are Hubble's own.
JSONPB, COMPACT = "jsonpb", "hubble"
OWN_FORM = FormType({JSONPB: "Hubble's flows, an object a line", COMPACT: "lines as of hubble observe"})
#: How many flows are shown where nothing says how many.
USUAL = 20
_WORDS = {
    "protocol": "Protocols",
    "verdict": "What became of it",
    "type": "Which of its rows",
    "direction": "Whose rows: egress has those of the end that began it",
}


class When(click.ParamType[int]):
    """A moment: so long ago, or a time of RFC 3339."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Nanoseconds since 1970."""
        text = str(value)
        if "T" in text:
            try:
                return int(datetime.fromisoformat(text).timestamp() * 1e9)
            except (ValueError, OverflowError):
                self.fail(f"{text!r} is no time: want 2026-01-31T12:00:00Z, or 10m for so long ago", param, ctx)
        return time.time_ns() - int(DurationType().convert(value, param, ctx) * 1e9)


class EndFlag(Option):
    """An option about an end of flows. Help has one line for the three of a kind."""

    def __init__(self, kind: EndOption, side: str, short: str, **settings: Any) -> None:
        """About the ends of a side; short is what the one about either end is called besides."""
        flags = [option_of(kind, side), *([short] if short and not side else [])]
        has_either = kind.name != "namespace"  # which is -n
        help_ = f"{kind.help[0].upper()}{kind.help[1:]}{'' if has_either else '; -n is of either'}."
        super().__init__(flags, heading=_BY_END, multiple=True, metavar=kind.metavar, help=help_, **settings)
        self._is_first = side == ("" if has_either else "from")

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Of the first of a kind alone."""
        return super().get_help_record(ctx) if self._is_first else None


class FilterArgument(click.Argument):
    """The terms of a filter, which help tells of among the options."""

    heading = _WHICH


class ObserveCommand(HeadedCommand):
    """`observe`: the flows that agents keep, and those that come."""

    def __init__(self) -> None:
        """Make the command."""
        self.gadget = catalog.find(GADGET)
        where = {option.name: option for option in where_options()}
        title = "flows: what became of each connection, and whose it was"
        super().__init__(
            "observe",
            title,
            "kubectl gadget observe -n shop --verdict refused,no-answer --since 1h\n"
            "  kubectl gadget observe -A -f 'from:pod=web,!dns=*.internal'",
            [
                *_how_many(),
                *_which(),
                where["namespace"],
                where["all_namespaces"],
                where["container"],
                where["local"],
                where["agent"],
                *cluster_options(),
                Option(
                    ["form", "-o", "--output"],
                    heading="Output",
                    type=OWN_FORM,
                    default="columns",
                    help="jsonpb: Hubble's flows, an object a line; hubble: lines as of `hubble observe`.",
                ),
                *output_options()[1:],
                *(option for option in stream_options() if option.name in ("record", "timeout")),
            ],
            self._run,
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, with each --not and the option behind it made one --without."""
        return super().parse_args(ctx, self._negated(ctx, args))

    def _negated(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = {flag: option.name for option in self.params if _may_be_left_out(option) for flag in option.opts}
        kept: list[str] = []
        rest = iter(args)
        for arg in rest:
            if arg == "--":
                return [*kept, arg, *rest]
            if arg != "--not":
                kept.append(arg)
                continue
            flag, equals, value = next(rest, "").partition("=")
            value = value if equals else next(rest, "")
            if flag not in options or not value:
                said = f"{flag} {value}".rstrip() or "nothing"
                raise click.UsageError(f"--not {said}: want what is left out, such as --not --to-port 53", ctx)
            kept += ["--without", f"{options[flag]}={value}"]
        return kept

    def _run(
        self,
        follow: bool,
        last: int | None,
        first: int | None,
        all_: bool,
        since: int | None,
        until: int | None,
        namespace: tuple[str, ...],
        all_namespaces: bool,
        ends: str | None,
        policy: Path | None,
        host: bool,
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
        without: tuple[str, ...],
        terms: tuple[str, ...],
        decided_by: tuple[str, ...],
        **chosen: Any,
    ) -> None:
        _check_how_many(follow, last, first, all_, until)
        selection = make_selection((), False, (), container, "")
        if namespace and all_namespaces:
            raise UsageError("-n and -A: choose one")
        if host and (last or first or all_ or since is not None or until is not None):
            raise UsageError("--host: agents keep no flows of the nodes' own processes: it shows those that come")
        if host and (namespace or all_namespaces or container):
            raise UsageError("--host: the nodes' own processes are in no namespace and no container")
        if not (host or namespace or all_namespaces or any(chosen[f"{side}_namespace"] for side in ("from", "to"))):
            namespace = default_namespace(agent, local)
        finds = _finds(agent, local, namespace)
        conditions = _conditions(self.gadget, {**chosen, "namespace": namespace}, finds)
        decided = [decisions(decided_by, "--decided-by")] if decided_by else []
        for each in without:
            name, _, value = each.partition("=")
            if name == "decided_by":
                decided.append(other_than(decisions([value], "--decided-by")))
                continue
            conditions.append(f"!({joined(_conditions(self.gadget, {name: (value,)}, finds))})")
        read = read_terms(" ".join(terms), self.gadget, finds)
        conditions += read.conditions
        decided += read.decisions
        if decided and not policy and (agent or local):
            raise UsageError("--decided-by: policies are a cluster's: with --local and --agent want --policy FILE")
        if since is not None:
            conditions.append(f"timestamp>={since}")
        elif follow and last is None and not all_:
            since = time.time_ns()
            conditions.append(f"timestamp>={since}")
        if until is not None:
            conditions.append(f"timestamp<={until}")
        if last is None and first is None and since is None and until is None and not all_:
            last = USUAL
        if host:
            conditions, last = [*_conditions(self.gadget, chosen, finds), *read.conditions, 'containerId==""'], None
        as_hubble, as_lines = form in (JSONPB, COMPACT), form == "columns" and not (fields or count_by)
        if as_hubble and (fields or count_by):
            raise UsageError(f"-o {form} has Hubble's fields: choose it, or --fields and --count-by")
        request = make_request(
            self.gadget,
            {"host": True} if host else {},
            "json" if as_hubble else form,
            fields,
            (*filter_, *conditions),
            count_by,
            max_events=first or max_events or 0,
            timeout=timeout,
            strict=strict,
            record=record,
            selection=selection,
            standing="" if host else GADGET,
            since_ns=since or 0,
            last=last or 0,
            follow=follow,
        )
        from kubectl_gadget.observe.endpoints import Endpoints
        from kubectl_gadget.observe.hubble import CompactFlows, Flows  # numpy
        from kubectl_gadget.observe.lines import FlowLines
        from kubectl_gadget.observe.session import LogSession
        from kubectl_gadget.output import find_form

        hubbles = {JSONPB: Flows, COMPACT: CompactFlows}
        own = hubbles.get(form, FlowLines if as_lines else None)
        once = ends == "once" if ends else as_lines
        if policy and not decided and (count_by or (not own and find_form(form).names is not None)):
            raise UsageError("--policy: each flow is judged: leave out --count-by, and a form that names its fields")

        def make(targets: Targets) -> Callable[..., LogSession]:
            api = None if agent or local else _only_api()
            judged = "--policy" if policy else "--decided-by" if decided else ""
            if judged and not (api or agent or local):
                raise UsageError(f"{judged}: judged for one cluster at a time")
            opinions = _opinions(targets, policy, namespace, api) if judged else None
            if opinions and (follow or host):
                opinions.follow()
            endpoints = Endpoints(api) if api else None
            why_none = partial(_why_none, asked, targets)
            return partial(
                LogSession, form=own, once=once, opinions=opinions, endpoints=endpoints, why_none=why_none,
                decided=decided,
            )  # fmt: skip

        pods = chosen["pod"] if not any("/" in name for name in chosen["pod"]) else ()
        asked = make_selection(namespace, False, pods, container, "")
        read_log_of(request, agent, local, namespace, make)


def read_log_of(
    request: Request, agent: Sequence[str], local: bool, namespaces: Sequence[str], make: Callable[[Targets], Any]
) -> None:
    """Show what request asks of the flow log, in a session of what make returns for the targets.

    namespaces are those it is about.
    """
    with find_targets(agent, local, lacking="no flows are kept" if request.standing else "") as targets:
        from kubectl_gadget.cluster.directory import find_directory
        from kubectl_gadget.stream.begin import begin  # grpc, while a local agent starts
        from kubectl_gadget.stream.session import stream

        reached, request = targets(), replace(request, reads=GADGET)
        session = make(reached)
        with begin(request, reached) as streams:
            directory = find_directory(reached, namespaces, cluster=not (agent or local))
            stream(request, reached, streams, directory, session)


def _why_none(asked: Selection, targets: Targets) -> str:
    """Why no container can have had such a flow; empty if one can."""
    from kubectl_gadget.stream.containers import known_containers
    from kubectl_gadget.stream.nothing import why_nothing

    known = known_containers(targets)
    return why_nothing(asked, known, watching=False) if known else ""


def _only_api() -> ApiServer | None:
    """The cluster's API server, if there is one cluster."""
    from gadget.kube.api import api_server
    from gadget.kube.kubeconfig import read_context

    first, *others = chosen_clusters()
    return None if others else api_server(read_context(first.flags))


def _opinions(targets: Targets, file: Path | None, namespaces: Sequence[str], api: ApiServer | None) -> Opinions:
    from kubectl_gadget.observe.policies import read_opinions

    return read_opinions(targets, file, namespaces, api)


def _how_many() -> list[click.Parameter]:
    heading = "How many"
    number = click.IntRange(1)
    return [
        Option(["-f", "--follow"], heading=heading, is_flag=True,
               help="Show what comes, after what --last, --since or --all choose."),
        Option(["--last"], heading=heading, type=number, default=None, metavar="N",
               help=f"The last N that are kept. [default: {USUAL}]"),
        Option(["--first"], heading=heading, type=number, default=None, metavar="N", help="The first N that are kept."),
        Option(["all_", "--all"], heading=heading, is_flag=True, help="All that are kept."),
        Option(["--since"], heading=heading, type=When(), default=None, metavar="10m|TIME",
               help="Since so long ago, or since a time."),
        Option(["--until"], heading=heading, type=When(), default=None, metavar="5m|TIME",
               help="Until so long ago, or until a time."),
        Option(["--ends"], heading=heading, type=click.Choice(["once", "each"]), default=None,
               help="What both ends of a flow tell, as one or each. [default: once as lines, else each]"),
        Option(["--policy"], heading=heading, type=click.Path(path_type=Path), default=None, metavar="FILE|DIR",
               help="Say what these NetworkPolicies would do to each flow."),
    ]  # fmt: skip


def _which() -> list[click.Parameter]:
    heading = _WHICH
    options: list[click.Parameter] = []
    for kind in KINDS:
        options += [
            EndFlag(kind, side, _SHORT.get(kind.name, ""), shell_complete=_COMPLETE.get(kind.name))
            for side in SIDES
            if side or kind.name != "namespace"  # -n
        ]
    options.append(
        FilterArgument(["terms"], nargs=-1, metavar="[FILTER]", shell_complete=complete_terms,
               help="Terms with commas, [from:|to:][!]KEY=VALUE or a word of a name; keys are namespace, workload, "
               "pod, service, ip, label, dns, port, protocol, verdict, policy.")
    )  # fmt: skip
    options += _of_domain()
    options += [
        Option([f"--{field}"], heading=heading, multiple=True, metavar="A,B|!C", help=_words_of(field))
        for field in _WORDS
    ]
    options += [
        Option(["--drop-reason"], heading=heading, multiple=True, metavar="A,B|!C",
               help="The kernel's word for why it dropped a packet: NETFILTER_DROP."),
        Option(["--decided-by"], heading=heading, multiple=True, metavar="[NS/]A,B|!C",
               help="Policies that allow it, or would deny it: those of --policy, else the cluster's."),
        Option(["--ip-version"], heading=heading, multiple=True, metavar="4|6", help="IPv4 or IPv6."),
        Option(["--comm"], heading=heading, multiple=True, metavar="A,B|!C", help="Name of the thread."),
        Option(["--pid"], heading=heading, multiple=True, metavar="N,…", help="Process, as the host sees it."),
        Option(["--not"], heading=heading, is_flag=True, expose_value=False,
               help="Leave out what the option behind it chooses: --not --to-port 53."),
        Option(["--without"], heading=heading, multiple=True, hidden=True),
        Option(["--min-bytes"], heading=heading, type=SizeType(), default=None, metavar="1M",
               help="At least so many bytes, both ways."),
        Option(["--host"], heading=heading, is_flag=True,
               help="What processes of the nodes do outside containers, as it comes: that is not kept."),
        Option(["--min-duration"], heading=heading, type=DurationType(), default=None, metavar="100ms",
               help="That took at least so long."),
    ]  # fmt: skip
    return options


def _of_domain() -> list[click.Parameter]:
    metavar = "NAME,…|!NAME"

    def refuse(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> None:
        if value:
            raise UsageError(
                "--from-dns: names are known of the end that was asked: want --to-dns, --from-pod or --from-ip"
            )

    return [
        Option(["--dns", "--to-dns"], heading=_WHICH, multiple=True, metavar=metavar,
               help="By the name that it was made for, as TLS or DNS tells: api.example.com, *.example.com."),
        Option(["--from-dns"], heading=_WHICH, multiple=True, hidden=True, expose_value=False, callback=refuse),
    ]  # fmt: skip


def _may_be_left_out(option: click.Parameter) -> bool:
    """Whether --not may stand before an option: it takes lists of what flows may be."""
    return isinstance(option, Option) and option.heading in (_WHICH, _BY_END) and option.multiple and not option.hidden


def _words_of(field: str) -> str:
    column = catalog.find(GADGET).schema[field]
    words = [word.replace(" ", "-") for word in column.means.words(column)]
    known = ["tcp", "udp"] if field == "protocol" else words
    return f"{_WORDS[field]}: {', '.join(known)}."


def _check_how_many(follow: bool, last: int | None, first: int | None, all_: bool, until: int | None) -> None:
    given = [name for name, value in {"--last": last, "--first": first, "--all": all_ or None}.items() if value]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]}: choose one")
    if follow and (first or until is not None):
        raise UsageError(f"-f and {'--first' if first else '--until'}: what comes has no end")


def _finds(agents: Sequence[str], local: bool, namespaces: Sequence[str]) -> Callable[[str], Find]:
    """Gives what asks the cluster for the pods that an option names, by the kind of option."""

    def find(kind: str) -> Find:
        if kind == "cluster":
            return of_contexts([""] if agents or local else [each.context for each in chosen_clusters()])
        if agents or local:
            how = "--local" if local else "--agent"
            raise UsageError(f"--{kind}: who these are a cluster tells: with {how} name pods")
        from gadget.kube.api import api_server
        from gadget.kube.kubeconfig import read_context
        from kubectl_gadget.observe.members import find_labelled, find_members

        apis = [api_server(read_context(cluster.flags)) for cluster in chosen_clusters()]
        return {"label": find_labelled, "workload": find_members}[kind](apis, namespaces)

    return find


def _conditions(gadget: catalog.Gadget, chosen: dict[str, Any], finds: Callable[[str], Find]) -> list[str]:
    found = [
        condition
        for kind in KINDS
        for side in SIDES
        if (items := chosen.get(option_of(kind, side)[2:].replace("-", "_"), ()))
        for condition in of_ends(kind, side, items, None if kind.condition else finds(kind.name))
    ]
    for field in (*_WORDS, "comm", "pid"):
        found += of_words(gadget, field, chosen.get(field, ()))
    found += of_domains(gadget, chosen.get("dns", ()))
    found += of_drops(gadget, chosen.get("drop_reason", ()))
    found += of_versions(chosen.get("ip_version", ()))
    if chosen.get("min_bytes"):
        found.append(f"bytes>={chosen['min_bytes']}")
    if chosen.get("min_duration"):
        found.append(f"duration>={int(chosen['min_duration'] * 1e9)}")
    return found
