"""The command `detect`: rules in agents, on audit events, and what can be done with rule files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gadget.errors import UsageError
from kubectl_gadget.cluster.options import chosen_cluster, cluster_options
from kubectl_gadget.detect.baseline import baseline_option, learn_command, tell_unjudged
from kubectl_gadget.detect.check import check_command, list_command
from kubectl_gadget.detect.elsewhere import channels, to_options
from kubectl_gadget.detect.explain import explain_command, test_command
from kubectl_gadget.detect.facts import verify_command
from kubectl_gadget.detect.given import (
    DEFAULT,
    FILE,
    FORMS,
    PriorityType,
    complete_rule,
    complete_tag,
    falco_rules_option,
    given_rules,
    narrowed,
    option,
    rule_texts,
    rules_option,
)
from kubectl_gadget.detect.tune import tune_command
from kubectl_gadget.headed import HeadedGroup
from kubectl_gadget.options import DurationType, output_options, stream_options, where_options
from kubectl_gadget.pods import read_pods
from kubectl_gadget.stream.request import Selection, make_selection
from kubectl_gadget.tell import tell
from kubectl_gadget.where import default_namespace, find_selection, find_targets

if TYPE_CHECKING:
    from gadget.rules.channels import Channels
    from gadget.rules.ruleset import Ruleset
    from kubectl_gadget.agents.targets import Targets
    from kubectl_gadget.detect.live import RulesQuery
    from kubectl_gadget.detect.written import Text


class DetectCommand(HeadedGroup):
    """`detect`: what rules say of events."""

    def __init__(self) -> None:
        """Make the group."""
        options: list[click.Parameter] = [
            rules_option(),
            falco_rules_option(),
            baseline_option(),
            option("--priority", type=PriorityType(), help="Only rules of that priority or a higher one."),
            option("--tag", "tags", multiple=True, metavar="TAG", shell_complete=complete_tag,
                   help="Only rules with one of these tags."),
            option("--rule", "names", multiple=True, metavar="NAME", shell_complete=complete_rule,
                   help="Only these rules, also those that are off; a * stands for anything."),
            option("--rule-matching", "matching", type=click.Choice(["all", "first"]), default=None,
                   help="Whether all rules count that fire on an event, or the first alone, as in Falco. "
                   "[default: all]"),
            option("--host", is_flag=True, help="Also what processes outside containers do."),
            *where_options(),
            *cluster_options(),
            option("--k8s-audit", "where", heading="Audit events", multiple=True, metavar="FILE|DIR|-|URL",
                   help="Judge audit events of Kubernetes instead: of files, folders, standard input, or a URL to "
                   "serve as the API server's webhook, such as http://127.0.0.1:9765/k8s-audit."),
            option("-f", "--follow", heading="Audit events", is_flag=True,
                   help="Go on with what is written to the file, after what is in it."),
            option("--since", heading="Audit events", type=DurationType(), default=0.0, metavar="1h",
                   help="Only audit events of so long ago at most. -n and -p choose those about a namespace or a pod."),
            option("--dry-run", "recording", heading="Recordings", type=FILE, metavar="FILE",
                   help="Judge what --record kept instead, by any rules, without an agent. - is standard input."),
            option("--record", heading="Recordings", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
                   help="Also keep the events in a file, for --dry-run."),
            option("-o", "--output", "form", heading="Output", type=click.Choice(FORMS), default="columns",
                   help="columns; text: Falco's line; json: Falco's JSON. [default: columns]"),
            *to_options(),
            *(each for each in (*stream_options(), *output_options()) if each.name in ("timeout", "strict")),
        ]  # fmt: skip
        title = "what rules in Falco's language say of what happens; see alerts"
        commands = (
            list_command(),
            check_command(),
            explain_command(),
            test_command(),
            learn_command(),
            tune_command(),
            verify_command(),
        )
        example = "kubectl gadget detect -n shop --priority warning"
        super().__init__("detect", title, example, options, _detect, commands=commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is named; where that is a file, what it was meant for."""
        if args and args[0] not in self.commands and Path(args[0]).exists():
            raise click.UsageError(f"no such command {args[0]!r}: an audit log is given as --k8s-audit {args[0]}, and "
                                   f"rules as --rules {args[0]}", ctx)  # fmt: skip
        return super().resolve_command(ctx, args)


#: Options that mean nothing where audit events are judged: these are of no node.
_LIVE = ("host", "timeout", "strict", "node", "record", "recording", "local", "agent", "selector", "container")
#: And where what happens is.
_PAST = ("follow", "since")
#: And where a recording is: it has no labels, and was made.
_ASKED = ("local", "agent", "selector", "timeout", "record", "where", "follow", "since")


def _detect(
    where: tuple[str, ...],
    follow: bool,
    since: float,
    recording: Path | None,
    rules: tuple[Path, ...],
    falco_rules: tuple[Path, ...],
    baselines: tuple[Path, ...],
    priority: str | None,
    tags: tuple[str, ...],
    names: tuple[str, ...],
    matching: str | None,
    form: str,
    to: tuple[str, ...],
    to_ca: Path | None,
    to_cert: Path | None,
    to_key: Path | None,
    **live: Any,
) -> None:
    if click.get_current_context().invoked_subcommand:
        return
    if where:
        _refuse(_LIVE, "of what happens on nodes, and audit events are of none")
    if (where or recording) and "events" in to:
        raise UsageError("--to events: on pods of what happens now, and this is of audit events or a recording")
    if recording:
        _refuse(_ASKED, "a recording is judged as it is, without agents and labels")
    from gadget.rules.fields import AUDIT, SYSCALL
    from kubectl_gadget.detect.judge import WantedEvents, judge
    from kubectl_gadget.detect.written import texts

    tell_unjudged(baselines)
    paths = (*falco_rules, *rules, *baselines) or (DEFAULT,)
    first = (matching or ("first" if falco_rules else "all")) == "first"
    known = given_rules(paths)
    for warning in known.warnings:
        tell(f"warning: {warning}")
    chosen = narrowed(known, priority, tags, names, AUDIT if where else SYSCALL)
    if where:
        wanted = WantedEvents(_of_pods("audit events have", **live), int((time.time() - since) * 1e9) if since else 0)
        judge(where, chosen, wanted, form, channels(to, to_ca, to_cert, to_key), follow=follow, first=first)
        return
    if recording:
        _dry_run(recording, chosen, texts(form), channels(to, to_ca, to_cert, to_key), first=first, **live)
        return
    _refuse(_PAST, "of audit events, which --k8s-audit names; what agents keep is `kubectl gadget alerts --since`")
    with _asked(paths, chosen, first=first, **live) as (asked, targets):
        from kubectl_gadget.detect.live import live as show

        show(asked, targets, texts(form), channels(to, to_ca, to_cert, to_key))


def _of_pods(
    what: str,
    namespace: tuple[str, ...],
    all_namespaces: bool,
    pod: tuple[str, ...],
    container: tuple[str, ...],
    **_: Any,
) -> Selection:
    """The selection, of names alone."""
    if any(name.is_workload for name in read_pods(pod)):
        raise UsageError(f"-p KIND/NAME: {what} no owners of pods: choose by names, as -p 'cart-*'")
    return make_selection(namespace, all_namespaces, pod, container, "")


def _refuse(names: Sequence[str | None], why: str) -> None:
    """UsageError for an option that was given and means nothing."""
    context = click.get_current_context()
    for param in context.command.params:
        if param.name in names and context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE:
            raise UsageError(f"{max(param.opts, key=len)}: {why}")


def _dry_run(
    path: Path,
    rules: Ruleset,
    text: Text,
    sent: Channels,
    *,
    first: bool,
    host: bool,
    strict: bool,
    **selected: Any,
) -> None:
    from kubectl_gadget.detect.dry import dry_run
    from kubectl_gadget.stream.recording import Recording

    selection = _of_pods("a recording has", **selected)
    recording = Recording(path)
    if recording.header.gadget != "detect":
        raise UsageError(f"{path}: a recording of {recording.header.gadget}: rules judge what `detect --record` kept")
    nodes = chosen_cluster().nodes
    dry_run(recording, rules, selection, text, sent, nodes=nodes, first=first, host=host, strict=strict)


@contextmanager
def _asked(
    paths: Sequence[Path],
    rules: Ruleset,
    *,
    first: bool,
    host: bool,
    local: bool,
    agent: tuple[str, ...],
    timeout: float,
    strict: bool,
    record: Path | None,
    **selected: Any,
) -> Iterator[tuple[RulesQuery, Targets]]:
    """What is asked of whom."""
    selection = make_selection(**selected)
    if not (selection.namespaces or selected["all_namespaces"]):
        selection = replace(selection, namespaces=default_namespace(agent, local))
    with find_targets(agent, local) as targets:
        selection = find_selection(selection, agent, local)
        from kubectl_gadget.detect.live import ask  # grpc and numpy, while a local agent starts

        rest = {"host": host, "timeout": timeout, "strict": strict, "record": record}
        yield ask(rule_texts(paths), rules, selection, first=first, **rest), targets()
