"""The commands of `advise network-policy`."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gadget.errors import GadgetError, UsageError
from kubectl_gadget import interrupts
from kubectl_gadget.advise.capabilities.commands import CapabilitiesCommand
from kubectl_gadget.advise.seccomp.commands import SeccompProfileCommand
from kubectl_gadget.cluster.options import chosen_cluster, cluster_options
from kubectl_gadget.headed import HeadedCommand, HeadedGroup
from kubectl_gadget.options import DurationType, Option, where_options
from kubectl_gadget.output import terminal
from kubectl_gadget.progress import Progress
from kubectl_gadget.tell import tell, write_line, write_lines
from kubectl_gadget.where import default_namespace, find_targets

if TYPE_CHECKING:
    from kubectl_gadget.advise.collect import HeardFlows
    from kubectl_gadget.advise.observation import Observation
    from kubectl_gadget.advise.policy import Advice
    from kubectl_gadget.advise.talks import Settings

FILE = click.Path(path_type=Path)
DIALECTS = ("kubernetes", "cilium", "calico", "calico-enterprise")
#: How an object's name may begin, with room for the rest.
NAME_PREFIX = re.compile(r"[a-z0-9][-a-z0-9]{0,39}")
#: How often the time that is left is shown.
TICK_SECONDS = 0.5


def _option(*names: str, **settings: Any) -> Option:
    return Option([*names], heading="Options", **settings)


def _where() -> list[click.Parameter]:
    wanted = ("namespace", "all_namespaces", "selector", "local", "agent")
    return [option for option in where_options() if option.name in wanted] + cluster_options(several=False)


def _with_local(run: Callable[..., None]) -> Callable[..., None]:
    """The same function with --local, which means the agent that runs on this machine."""

    @wraps(run)
    def with_local(*, local: bool, agent: tuple[str, ...], **rest: Any) -> None:
        if local and not getattr(click.get_current_context(), "invoked_subcommand", None):
            from kubectl_gadget.agents.local import need_agent

            agent = (*agent, need_agent("no traffic is recorded"))
        run(agent=agent, **rest)

    return with_local


def _with_codes_of_diff(run: Callable[..., None]) -> Callable[..., None]:
    """The same function with the exit codes of diff and kubectl diff: 1 is a difference, an error is more."""

    @wraps(run)
    def with_codes(**options: Any) -> None:
        try:
            run(**options)
        except GadgetError as error:
            error.exit_code = max(error.exit_code, UsageError.exit_code)
            raise

    return with_codes


def _input(*, required: bool = False) -> Option:
    what = "Flows that `monitor` has kept, - for standard input" + (
        "." if required else ", instead of asking the agents."
    )
    return _option("--input", "input_", type=FILE, metavar="FILE", required=required, help=what)


def _watch_options() -> list[click.Parameter]:
    return [
        _option("--since", type=DurationType(), default=0.0, metavar="1h", help="Only what was seen since then."),
        _option("--duration", type=DurationType(), default=0.0, metavar="60s", help="Only what is seen from now on."),
    ]


def _advice_options() -> list[click.Parameter]:
    return [
        _option("--default-deny", is_flag=True, help="Close directions too in which nothing was seen."),
        _option("--failed", is_flag=True, help="Allow attempts too that failed."),
        _option("--cidr-group", type=click.IntRange(8, 32), metavar="24",
                help="Allow whole networks of so many bits around addresses outside the cluster."),
        _option("--name-prefix", default="", metavar="seen-", callback=_prefix, help="How the policies' names begin."),
    ]  # fmt: skip


def _prefix(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value and not NAME_PREFIX.fullmatch(value):
        raise UsageError(f"--name-prefix {value!r}: want up to 40 of a-z, 0-9 and -, a letter or number first")
    return value


def _output_options() -> list[click.Parameter]:
    return [
        Option(["--explain"], heading="Output", is_flag=True, help="Tell for each rule what was seen."),
        Option(["form", "-o", "--output"], heading="Output", type=click.Choice(["yaml", "json"]), default="yaml",
               help="Format."),
        Option(["dialect", "--format"], heading="Output", type=click.Choice(DIALECTS),
               default="kubernetes", help="Whose policies."),
        Option(["--output-dir"], heading="Output", type=FILE, metavar="DIR",
               help="Write each policy to a file there, and a kustomization of all."),
    ]  # fmt: skip


class AdviseCommand(click.Group):
    """`advise`: policies from what was seen."""

    title = "policies, seccomp profiles, capabilities from what was seen"

    def __init__(self) -> None:
        """Make the group."""
        super().__init__("advise", help=f"Makes {self.title}.", short_help=self.title)
        self.context_settings = {"help_option_names": ["-h", "--help"]}
        self.add_command(NetworkPolicyCommand())
        self.add_command(SeccompProfileCommand())
        self.add_command(CapabilitiesCommand())


class NetworkPolicyCommand(HeadedGroup):
    """`advise network-policy`, and the commands below it."""

    def __init__(self) -> None:
        """Make the command."""
        super().__init__(
            "network-policy",
            "NetworkPolicies that allow what pods were seen to do, and nothing else",
            "kubectl gadget advise network-policy -n shop",
            [*_watch_options(), *_advice_options(), *_where(), *_output_options()],
            _with_local(_advise),
            verb="Prints",
            commands=(_monitor_command(), _report_command(), _check_command(), _diff_command(), _graph_command()),
        )


def _advise(agent: tuple[str, ...], since: float, duration: float, **options: Any) -> None:
    if click.get_current_context().invoked_subcommand:
        return
    form = {name: options.pop(name) for name in ("explain", "form", "output_dir")}
    settings = _settings(agent, **options)
    with _observed(agent, None, duration, namespaces=settings.namespaces) as observation:
        settings = _since(settings, observation, since)
        _print_advice(_advice(observation, settings), dialect=settings.dialect, **form)


def _monitor_command() -> click.Command:
    options = [
        _option("--output", "output", type=FILE, required=True, metavar="FILE", help="Where to."),
        _option(
            "--duration", type=DurationType(), default=0.0, metavar="60s", help="How long. [default: until Ctrl-C]"
        ),
        _option("--from-start", is_flag=True, help="Also what agents have seen before."),
    ]
    where = [option for option in _where() if option.name not in ("namespace", "all_namespaces", "selector")]
    title = "the traffic of the whole cluster in a file, for report, check, diff and graph"
    example = "kubectl gadget advise network-policy monitor --output flows.jsonl"
    return HeadedCommand("monitor", title, example, [*options, *where], _with_local(_monitor), verb="Keeps")


def _monitor(agent: tuple[str, ...], output: Path, duration: float, from_start: bool) -> None:
    from kubectl_gadget.advise.flows import write_flows

    with _heard(agent, duration or float("inf"), from_start=from_start) as heard:
        write_flows(output, heard.context, heard.flows)
    pods = {(flow.namespace, flow.pod) for flow in heard.flows}
    tell(f"{len(heard.flows):,} flows of {len(pods):,} pods in {output}")
    _tell(heard.context.notes)


def _report_command() -> click.Command:
    since = [option for option in _watch_options() if option.name == "since"]
    where = [option for option in where_options() if option.name in ("namespace", "all_namespaces", "selector")]
    return HeadedCommand(
        "report",
        "the same from what monitor has kept; needs no cluster",
        "kubectl gadget advise network-policy report --input flows.jsonl -n shop",
        [_input(required=True), *since, *_advice_options(), *where, *_output_options()],
        _report,
        verb="Prints",
    )


def _report(input_: Path, since: float, **options: Any) -> None:
    form = {name: options.pop(name) for name in ("explain", "form", "output_dir")}
    settings = _settings(("-",), **options)
    with _observed((), input_, 0.0) as observation:
        settings = _since(settings, observation, since)
        _print_advice(_advice(observation, settings), dialect=settings.dialect, **form)


def _check_command() -> click.Command:
    options = [
        _option("--policy", type=FILE, metavar="FILE|DIR", help="Policies to check."),
        _option("in_cluster", "--cluster", is_flag=True, help="Check those in the cluster."),
        _input(),
        *_watch_options(),
    ]
    form = [
        Option(["everything", "--all"], heading="Output", is_flag=True, help="Show what is allowed too, and why."),
        Option(["form", "-o", "--output"], heading="Output", type=click.Choice(["text", "json"]), default="text",
               help="Format; JSON has everything."),
    ]  # fmt: skip
    return HeadedCommand(
        "check",
        "what policies would have denied of the traffic that was seen, and which rules nothing used",
        "kubectl gadget advise network-policy check -n shop --policy policies/",
        [*options, *_where_but_cluster_name(), *form],
        _with_local(_check),
    )


def _where_but_cluster_name() -> list[click.Parameter]:
    """Where, without kubectl's --cluster, whose name check needs."""
    return [option for option in _where() if option.name != "cluster"]


def _check(
    agent: tuple[str, ...],
    policy: Path | None,
    in_cluster: bool,
    input_: Path | None,
    since: float,
    duration: float,
    everything: bool,
    form: str,
    **options: Any,
) -> None:
    from kubectl_gadget.advise import check
    from kubectl_gadget.advise.evaluate import Evaluator
    from kubectl_gadget.advise.judge import flows_of, namespaces_of, policies_about, spans

    if bool(policy) == in_cluster:
        raise UsageError("say which policies to check: --policy FILE|DIR, or --cluster")
    settings = _settings(("-",) if input_ else agent, **options)
    policies = _policies(policy, settings)
    by_address = Evaluator(policies, {}).looks_at_addresses
    names = settings.namespaces
    with _observed(agent, input_, duration, namespaces=names, by_address=by_address) as observation:
        settings = _since(settings, observation, since)
        evaluator = Evaluator(policies, namespaces_of(observation))
        about = {*policies_about(evaluator.policies, observation, settings)}
        result = check.check(evaluator, flows_of(observation, settings), about)
        span = (observation.span_ns(settings.since), spans(evaluator.policies, observation, settings))
        if form == "json":
            for piece in check.to_json(result, *span):
                write_lines(piece)
        else:
            columns = terminal.columns() if sys.stdout.isatty() else 0
            for line in check.show(result, *span, everything=everything, columns=columns):
                write_line(line, terminal.RED if line.startswith("DENIED") else "")
        _tell(observation.context.notes)
    sys.exit(result.exit_code)


def _diff_command() -> click.Command:
    policy = _option("--policy", type=FILE, metavar="FILE|DIR", help="Compare with these, not with the cluster's.")
    return HeadedCommand(
        "diff",
        "what the advice would change",
        "kubectl gadget advise network-policy diff -n shop",
        [policy, _input(), *_watch_options(), *_advice_options(), *_where()],
        _with_codes_of_diff(_with_local(_diff)),
    )


def _diff(
    agent: tuple[str, ...], policy: Path | None, input_: Path | None, since: float, duration: float, **options: Any
) -> None:
    from kubectl_gadget.advise import diff
    from kubectl_gadget.advise.compile import compile_policy
    from kubectl_gadget.advise.judge import policies_about

    settings = _settings(("-",) if input_ else agent, **options)
    current = _policies(policy, settings)
    with _observed(agent, input_, duration, namespaces=settings.namespaces) as observation:
        settings = _since(settings, observation, since)
        advised = [each.to_dict() for each in _advice(observation, settings).policies]
        # what was not looked at is neither advised nor superfluous
        asked = {*policies_about(map(compile_policy, current), observation, settings), *map(diff.key, advised)}
        changes = diff.diff([each for each in current if diff.key(each) in asked], advised)
        write_lines(diff.show(changes))
    sys.exit(1 if any(change.text for change in changes) else 0)


def _graph_command() -> click.Command:
    form = Option(["form", "-o", "--output"], heading="Output", type=click.Choice(["mermaid", "dot", "html"]),
                  default="mermaid", help="Format; html is one file that needs nothing else.")  # fmt: skip
    return HeadedCommand(
        "graph",
        "who talks to whom, as a picture",
        "kubectl gadget advise network-policy graph -n shop -o html > shop.html",
        [_input(), *_watch_options(), *_where(), form],
        _with_local(_graph),
        verb="Draws",
    )


def _graph(
    agent: tuple[str, ...], input_: Path | None, since: float, duration: float, form: str, **options: Any
) -> None:
    from kubectl_gadget.advise.draw import render_graph
    from kubectl_gadget.advise.graph import make_graph

    settings = _settings(("-",) if input_ else agent, **options)
    with _observed(agent, input_, duration, namespaces=settings.namespaces) as observation:
        settings = _since(settings, observation, since)
        write_lines(render_graph(make_graph(observation, settings), form))


def _settings(
    agent: tuple[str, ...],
    namespace: tuple[str, ...],
    all_namespaces: bool,
    selector: str,
    **rest: Any,
) -> Settings:
    """What to advise on. agent: whoever is not asked through the cluster has no namespace of its own."""
    from kubectl_gadget.advise.talks import Settings

    if namespace and all_namespaces:
        raise UsageError("-n and -A: choose one")
    if not (namespace or all_namespaces):
        namespace = default_namespace(agent, local=False)
    rest = {name: value for name, value in rest.items() if value is not None}
    return Settings(namespaces=namespace, selector=selector, **rest)


def _since(settings: Settings, observation: Observation, seconds: float) -> Settings:
    """The settings with --since, which counts from the end of the recording. UsageError if they choose nothing."""
    from kubectl_gadget.advise.talks import check_choice

    given = click.get_current_context().params.get("namespace")  # another one was not asked for, and may be empty
    check_choice(settings if given else replace(settings, namespaces=()), observation)
    if not seconds:
        return settings
    return replace(settings, since=observation.context.header.until_ns - int(seconds * 1e9))


@contextmanager
def _observed(
    agent: tuple[str, ...],
    file: Path | None,
    seconds: float,
    *,
    namespaces: Sequence[str] = (),
    by_address: bool = False,
) -> Iterator[Observation]:
    """What was seen: in a file, or else by the agents, either all or from now on for so many seconds."""
    from kubectl_gadget.advise.observation import Observation, read_flows

    if file and seconds:
        raise UsageError("--duration watches from now on, and --input is of another time: choose one")
    if file:
        yield read_flows(file, by_address=by_address)
        return
    with _heard(agent, seconds, from_start=not seconds, namespaces=namespaces) as heard:
        yield Observation(heard.context, heard.flows, by_address=by_address)


@contextmanager
def _heard(
    agent: tuple[str, ...], seconds: float, *, from_start: bool, namespaces: Sequence[str] = ()
) -> Iterator[HeardFlows]:
    from kubectl_gadget.advise.collect import between, hear, look_up

    with find_targets(agent, local=False) as find:
        targets = find()
        before = None if from_start else hear(targets)
        if seconds:
            _wait(seconds)
        after = hear(targets)
        heard = between(before, after) if before else after
        if not agent:
            from gadget.kube.api import api_server
            from gadget.kube.kubeconfig import read_context

            look_up(api_server(read_context(chosen_cluster().flags)), heard.context, namespaces)
        yield heard


def _wait(seconds: float) -> None:
    """Wait, showing for how much longer; Ctrl-C ends it, and what has been seen by then counts."""
    began, progress = time.monotonic(), Progress()
    interrupts.set_in_order(True)
    try:
        while (left := began + seconds - time.monotonic()) > 0:
            rest = "until Ctrl-C" if left == float("inf") else f"{left:.0f} s more"
            progress.show([f"watching for {time.monotonic() - began:.0f} s, {rest}"])
            time.sleep(min(TICK_SECONDS, left))
    except KeyboardInterrupt:
        pass
    interrupts.set_in_order(False)
    progress.clear()


def _policies(path: Path | None, settings: Settings) -> list[dict[str, Any]]:
    """All policies of files, or else of the cluster: those of one namespace can deny what another's pods do."""
    if path:
        from kubectl_gadget.advise.policy_files import read_policies

        # one that names no namespace would be applied to the one that is asked for
        namespace = next((name for name in settings.namespaces if not name.startswith("!")), "default")
        found = read_policies(path, namespace)
        for kind, number in sorted(found.skipped.items()):
            tell(f"{path}: {number} of kind {kind} left out")
        return found.policies
    from gadget.kube.api import ApiError, api_server, not_allowed
    from gadget.kube.kubeconfig import read_context
    from kubectl_gadget.advise.collect import PATHS

    try:
        return list(api_server(read_context(chosen_cluster().flags)).list(PATHS["NetworkPolicy"]))
    except ApiError as error:
        raise not_allowed(error, "list networkpolicies", "") from None


def _advice(observation: Observation, settings: Settings) -> Advice:
    from kubectl_gadget.advise.advisor import advise

    return advise(observation, settings)


def _print_advice(advice: Advice, dialect: str, explain: bool, form: str, output_dir: Path | None) -> None:
    from kubectl_gadget.advise import render
    from kubectl_gadget.advise.overview import overview

    _tell(overview(advice, terminal.columns() if sys.stderr.isatty() else 0))
    if output_dir:
        for path in render.write_policies(advice, output_dir, explain=explain, dialect=dialect, form=form):
            write_line(str(path))
    elif form == "json":
        write_lines(render.render_json(advice, dialect=dialect))
    else:
        write_lines(render.render_yaml(advice, explain=explain, dialect=dialect))
    _tell([f"warning: {each.text}" for each in advice.warnings] + [each.text for each in advice.notes])


def _tell(lines: list[str]) -> None:
    for line in dict.fromkeys(lines):  # each once
        tell(line)
