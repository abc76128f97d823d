"""The command why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from gadget.errors import GadgetError, UsageError
from gadget.kinds.times import short_duration
from gadget.schema import Column
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import DurationType, Option, not_empty, where_options
from kubectl_gadget.output import Look, make_output, terminal, write_table
from kubectl_gadget.stream.request import Selection, make_selection
from kubectl_gadget.tell import tell, write_line
from kubectl_gadget.traceloop.asked import ask_all, choose_one, need_recorder, pods_of
from kubectl_gadget.traceloop.completion import complete_pods_and_recordings, complete_recorded_containers
from kubectl_gadget.where import default_namespace, find_selection, find_targets

if TYPE_CHECKING:
    from kubectl_gadget.agents.targets import Targets
    from kubectl_gadget.traceloop.instances import Instance
    from kubectl_gadget.why.choose import Candidate
    from kubectl_gadget.why.cluster import ClusterFacts
    from kubectl_gadget.why.facts import Facts
    from kubectl_gadget.why.pod import PodContainer

#: Other containers that are named beside the one that is shown.
OTHERS = 5

FIELDS = [
    Column("ended", "age"),
    *(Column(name, "identity") for name in ("namespace", "pod", "container")),
    Column("state", "identity"),
    Column("why", "text"),
]
_EXAMPLES = """kubectl gadget why cart -n shop     of pods whose name begins so
  kubectl gadget why                  the newest bad end
  kubectl gadget why -A --since 6h    every bad end, each in a line"""
#: How far back -A looks unless --since says otherwise.
HOUR_SECONDS = 3600.0
_SHOW = "kubectl gadget traceloop show"
_COLOURS = {"certain": terminal.RED, "head": terminal.BOLD, "before": terminal.DIM, "more": terminal.DIM}


class WhyCommand(HeadedCommand):
    """`why`: what ended a container, in a sentence."""

    def __init__(self) -> None:
        """Make the command."""
        heading = "Options"
        options: list[click.Parameter] = [
            click.Argument(["name"], metavar="[POD|KIND/NAME|ID]", required=False, callback=not_empty,
                           shell_complete=complete_pods_and_recordings),
            Option(["--instance"], heading=heading, type=click.IntRange(1), metavar="N",
                   help="The Nth newest run of it instead; 1 is the newest."),
            Option(["--previous"], heading=heading, is_flag=True, help="The run before the newest."),
            Option(["--since"], heading=heading, type=DurationType(), default=None,
                   help="With -A: how far back ends are looked for. [default: 1h]"),
            Option(["form", "-o", "--output"], heading="Output", type=click.Choice(["columns", "wide", "json"]),
                   default="columns", help="Format."),
        ]  # fmt: skip
        where = where_options(complete_recorded_containers)
        where = [option for option in where if option.name not in ("pod", "selector")] + cluster_options(several=False)
        title = "what ended a pod, or keeps it from running; -A: all that are bad"
        super().__init__("why", title, _EXAMPLES, [*options, *where], _why)


def _why(
    name: str | None,
    instance: int | None,
    previous: bool,
    since: float | None,
    form: str,
    namespace: tuple[str, ...],
    all_namespaces: bool,
    container: tuple[str, ...],
    local: bool,
    agent: tuple[str, ...],
) -> None:
    asked = bool(namespace or all_namespaces)
    if not asked:
        namespace = default_namespace(agent, local)
    pods = pods_of(name, agent, local)
    selection = make_selection(namespace, all_namespaces and not namespace, pods, container, "")  # -A -n: its table
    every = all_namespaces and not name
    if every and (instance or previous):
        raise UsageError(f"{'--instance' if instance else '--previous'} is of one container: name a pod")
    if since is not None and not every:
        raise UsageError("--since goes with -A, the table of all bad ends; of one container the newest run is told")
    need_recorder(agent, local)
    cluster = None if agent or local else _begin(namespace, name if name and "/" not in name else "", every=every)
    with find_targets(agent, local) as targets:
        selection = find_selection(selection, agent, local)
        found, failure = _recordings(targets, cluster)
        if every:
            if failure:
                tell(f"incomplete: {failure}")
            _table(found, selection, HOUR_SECONDS if since is None else since, form, cluster)
            return
        plain_name = None if pods else name
        if cluster is None or instance or previous:
            chosen = choose_one(found, selection, plain_name, instance or 0, previous, anywhere=not asked)
            _show(_facts(chosen, found, cluster), form, _calls_of(chosen, found, agent, local))
            return
        worst = _worst(found, selection, cluster, plain_name or "", anywhere=not asked)
        recording = worst.instance
        if recording:
            _show(_facts(recording, found, cluster), form, _calls_of(recording, found, agent, local))
            return
        assert worst.status
        from kubectl_gadget.why.gather import unrecorded

        _show(unrecorded(worst.status, _why_unrecorded(worst.status, targets, failure), cluster), form)


def _begin(namespaces: tuple[str, ...], name: str, *, every: bool) -> ClusterFacts:
    """Ask the API server, while agents are still being reached."""
    from gadget.kube.api import api_server
    from gadget.kube.kubeconfig import read_context
    from kubectl_gadget.cluster.options import chosen_cluster
    from kubectl_gadget.why.cluster import ClusterFacts

    chosen = chosen_cluster()
    api = api_server(read_context(chosen.flags))
    return ClusterFacts(api, namespaces, name, nodes=chosen.nodes, every_event=every)


def _recordings(
    targets: Callable[[], Targets], cluster: ClusterFacts | None
) -> tuple[list[Instance], GadgetError | None]:
    """All recordings, or why there are none; of a cluster the API server can still tell something then."""
    try:
        return ask_all(targets()), None
    except UsageError:
        raise
    except GadgetError as error:
        if cluster is None or not cluster.pods:
            raise
        return [], error


def _worst(
    found: Sequence[Instance], selection: Selection, cluster: ClusterFacts, name: str, *, anywhere: bool
) -> Candidate:
    """The container that a name stands for; of several the one that is worst off, and which others are badly off."""
    from kubectl_gadget.traceloop import instances
    from kubectl_gadget.why import choose

    try:
        these = choose.candidates(found, cluster.pods, selection, name)
        if not these:
            raise UsageError(instances.why_none(found, selection))
    except UsageError:
        these = []
        if anywhere and selection.namespaces:
            with suppress(UsageError):
                these = choose.candidates(found, None, replace(selection, namespaces=()), name)
        if not these:
            for line in cluster.missing:
                tell(line)
            raise
        tell(f"{these[0].name} is in namespace {these[0].namespace}")
    worst = these[0]
    if not name and not selection.pods:
        bad = [each for each in these if each.rank > choose.RUNS]
        if not bad:
            raise UsageError(f"nothing here ended badly: name one of {len(these)} containers")
        worst = max(bad, key=lambda each: (each.rank >= choose.CRASHED, each.when_ns))
    others = [each.name for each in these if each.rank >= choose.NOT_READY and each.pod != worst.pod]
    if others:
        tell(f"also badly off: {', '.join(others[:OTHERS])}{', …' if len(others) > OTHERS else ''}")
    return worst


def _why_unrecorded(status: PodContainer, targets: Callable[[], Targets], failure: GadgetError | None) -> str:
    """Why there is no recording of a container."""
    if failure:
        return str(failure)
    node = (status.pod.get("spec") or {}).get("nodeName") or ""
    if not node:
        return "its pod is on no node yet"
    if node not in targets():
        return f"no agent on node {node}"
    return "it is not recorded" if status.runs or status.ended else "it has not started"


def _facts(instance: Instance, every: Sequence[Instance], cluster: ClusterFacts | None) -> Facts:
    from kubectl_gadget.why.gather import gather, with_cluster
    from kubectl_gadget.why.live import with_node

    facts = with_node(gather(instance, every), instance, every)
    return with_cluster(facts, cluster) if cluster else facts


def _calls_of(shown: Instance, every: Sequence[Instance], agents: Sequence[str], local: bool) -> str:
    """The command that shows all calls of a recording: by its name if that means no other run, and is not too long."""
    import shlex

    container = shown.container
    how = f" --agent {shlex.quote(shown.agent.target)}" if agents else " --local" if local else ""
    by_id = f"{_SHOW} {container.id[:12]}{how}"
    runs = [each for each in every if each.name == shown.name]
    meant = max([each for each in runs if each.crashed] or runs, key=lambda each: each.newest)
    if not container.pod or meant is not shown:
        return by_id
    which = f" -c {container.container}" if container.container else ""
    by_name = f"{_SHOW} {container.pod} -n {container.namespace}{which}{how}"
    return by_name if len(by_name) + len("  all calls: ") <= terminal.columns() else by_id


def _show(facts: Facts, form: str, calls: str = "") -> None:
    from kubectl_gadget.why import screen
    from kubectl_gadget.why.judge import judge

    findings = judge(facts)
    if form == "json":
        from kubectl_gadget.output.encode import encode
        from kubectl_gadget.output.stdout import write_all

        write_all(encode(screen.to_json(facts, findings)) + b"\n")
        return
    for kind, line in screen.lines(facts, findings, terminal.columns(), calls):
        write_line(line, _COLOURS.get(kind, ""))


def _table(
    found: Sequence[Instance], selection: Selection, since: float, form: str, cluster: ClusterFacts | None
) -> None:
    """Every bad end of the last while, of each container the newest, and what is kept from running: each in a line."""
    from kubectl_gadget.why.several import reasons

    rows = [
        (each.ended_ns or None, each.namespace, each.pod, each.container, each.state, each.why)
        for each in reasons(found, selection, since, cluster)
    ]
    for line in cluster.missing if cluster else ():
        tell(line)
    if rows:
        write_table(make_output(form, FIELDS, {}, Look(narrow=("container", "ended"), failed={"state": bool})), rows)
    else:
        tell(f"nothing ended badly{f' in the last {short_duration(int(since * 1e9))}' if since else ''}")
