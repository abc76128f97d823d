"""The commands of `advise seccomp-profile`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from gadget.errors import GadgetError, UsageError
from gadget.text import counted
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.completion import SECONDS, addresses_of, among
from kubectl_gadget.headed import HeadedCommand, HeadedGroup
from kubectl_gadget.options import Option, where_options
from kubectl_gadget.output import terminal
from kubectl_gadget.tell import tell, write_line, write_lines
from kubectl_gadget.where import default_namespace, find_targets

if TYPE_CHECKING:
    from kubectl_gadget.advise.seccomp.collect import CallingWorkload

FILE = click.Path(path_type=Path)


def _option(*names: str, heading: str = "Options", **settings: Any) -> Option:
    return Option([*names], heading=heading, **settings)


def _complete_workloads(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Workloads that agents saw in the namespaces given so far, if they answer at once; after a / as KIND/NAME."""
    addresses = addresses_of(ctx)
    if not addresses:
        return []
    from kubectl_gadget.advise.seccomp.collect import choose, hear
    from kubectl_gadget.agents.targets import Targets

    try:
        heard = hear(Targets({address: partial(str, address) for address in addresses}), SECONDS)
        seen = choose(heard.workloads, list(ctx.params.get("namespace") or ()), (), ())
    except GadgetError:
        return []
    with_kind = "/" in incomplete.rpartition(",")[2]
    names = {f"{each.kind.lower()}/{each.name}" if with_kind else each.name or each.container for each in seen}
    return among(names, incomplete)


def _where() -> list[click.Parameter]:
    wanted = ("namespace", "all_namespaces", "container", "selector", "local", "agent")
    found: list[click.Parameter] = [option for option in where_options() if option.name in wanted]
    own = _option("-w", "--workload", heading="Where", multiple=True, metavar="A,KIND/B",
                  help="Workloads, such as cart or deploy/cart.", shell_complete=_complete_workloads)  # fmt: skip
    return [own, *found, *cluster_options()]


def _action() -> Option:
    return _option("--default-action", type=click.Choice(["errno", "kill", "log"]), default="errno",
                   help="What becomes of all other calls: EPERM, the end of the program, or a line in the node's log.",
                   show_default=True)  # fmt: skip


def _profile(*, required: bool) -> Option:
    return _option("-f", "--file", type=FILE, metavar="FILE", required=required, help="The profile that there is.")


class SeccompProfileCommand(HeadedGroup):
    """`advise seccomp-profile`, and the commands below it."""

    def __init__(self) -> None:
        """Make the command."""
        form = [
            _option("form", "--format", heading="Output", type=click.Choice(["oci", "spo", "pod"]), default="oci",
                    help="JSON for runtimes; an object of the Security Profiles Operator; or what goes into pods.",
                    show_default=True),
            _option("--output-dir", heading="Output", type=FILE, metavar="DIR",
                    help="Write each profile to a file there."),
        ]  # fmt: skip
        super().__init__(
            "seccomp-profile",
            "seccomp profiles that allow the system calls that containers were seen to make, and no others",
            "kubectl gadget advise seccomp-profile -n shop -w cart",
            [_action(), *_where(), *form],
            _advise,
            verb="Prints",
            commands=(_check_command(), _diff_command()),
        )


def _advise(workload: tuple[str, ...], default_action: str, form: str, output_dir: Path | None, **where: Any) -> None:
    if click.get_current_context().invoked_subcommand:
        return
    from kubectl_gadget.advise.files import write_file
    from kubectl_gadget.advise.seccomp import profile, render

    chosen = _seen(workload, **where)
    action = profile.ACTIONS[default_action]
    for each in chosen:
        text = render.render(each, form, action)
        if output_dir is None:
            write_lines(text)
            continue
        path = output_dir / f"{profile.file_name(each)}{render.suffix(form)}"
        write_file(path, text)
        write_line(str(path))
    _remark(chosen)


def _check_command() -> click.Command:
    form = [
        _option("everything", "--all", heading="Output", is_flag=True, help="Name what is allowed and was never seen."),
        _option("form", "-o", "--output", heading="Output", type=click.Choice(["text", "json"]), default="text",
                help="Format."),
    ]  # fmt: skip
    return HeadedCommand(
        "check",
        "what a profile would have refused of the system calls that were seen",
        "kubectl gadget advise seccomp-profile check -f cart.json -n shop -w cart",
        [_profile(required=True), *_where(), *form],
        _check,
    )


def _check(workload: tuple[str, ...], file: Path, everything: bool, form: str, **where: Any) -> None:
    from kubectl_gadget.advise.seccomp import judge
    from kubectl_gadget.advise.seccomp.profile import read
    from kubectl_gadget.output.encode import encode

    existing = read(file)
    judged = [judge.judge(each, existing) for each in _seen(workload, **where)]
    if form == "json":
        made = {"workloads": [each.to_json() for each in judged], "unused": judge.unused(judged, existing)}
        write_lines(encode(made, indent=True).decode() + "\n")
    else:
        for line in judge.show(judged, existing, everything=everything):
            write_line(line, terminal.RED if line.startswith("DENIED") else "")
    _remark([each.workload for each in judged])
    sys.exit(0 if all(each.is_fine for each in judged) else 1)


def _diff_command() -> click.Command:
    return HeadedCommand(
        "diff",
        "what the advice would change in a profile",
        "kubectl gadget advise seccomp-profile diff -f cart.json -n shop -w cart",
        [_profile(required=True), _action(), *_where()],
        _diff,
    )


def _diff(workload: tuple[str, ...], file: Path, default_action: str, **where: Any) -> None:
    """With the exit codes of diff and kubectl diff: 1 is a difference, an error is more."""
    from kubectl_gadget.advise.seccomp import judge
    from kubectl_gadget.advise.seccomp.profile import ACTIONS, read

    try:
        existing = read(file)
        chosen = _seen(workload, **where)
        if len(chosen) > 1:
            raise UsageError(f"a profile is of one container: name one by -w, or -c: {', '.join(map(str, chosen[:5]))}")
    except GadgetError as error:
        error.exit_code = max(error.exit_code, UsageError.exit_code)
        raise
    text = judge.diff(chosen[0], existing, ACTIONS[default_action])
    write_lines(text)
    _remark(chosen)
    sys.exit(1 if text else 0)


def _seen(
    workload: tuple[str, ...],
    namespace: tuple[str, ...],
    all_namespaces: bool,
    container: tuple[str, ...],
    selector: str,
    local: bool,
    agent: tuple[str, ...],
) -> list[CallingWorkload]:
    """The workloads that were chosen. UsageError if none was seen."""
    if namespace and all_namespaces:
        raise UsageError("-n and -A: choose one")
    if local:
        from kubectl_gadget.agents.local import need_agent

        agent = (*agent, need_agent("no system calls are recorded"))
    if not (namespace or all_namespaces):
        namespace = default_namespace(agent, local=False)
    with find_targets(agent, local=False) as find:
        from kubectl_gadget.advise.seccomp.collect import choose, hear

        heard = hear(find(), labels=selector)
    for note in heard.notes:
        tell(note)
    chosen = choose(heard.workloads, namespace, workload, container)
    if not chosen:
        hint = ": -l finds workloads that have a pod by now" if selector else "" if all_namespaces else ": try -A"
        raise UsageError(f"no container was seen to call anything there{hint}")
    return chosen


def _remark(workloads: list[CallingWorkload]) -> None:
    """Tell the source of profiles, and what may be missing in them."""
    from kubectl_gadget.advise.seccomp.profile import evidence

    for each in workloads:
        if each.older:
            began = "it began" if each.containers == 1 else f"{each.older} of {each.containers} began"
            tell(f"warning: {each}: {began} before calls were recorded: what only its start calls may be missing")
        if each.compat:
            tell(f"{each}: 32-bit programs called, too: the profile names their architecture")
        if each.odd:
            tell(f"warning: {each}: called numbers that no table here has: they stay refused")
    if len(workloads) == 1:
        tell(f"from {evidence(workloads[0])}")
    else:
        number = counted(sum(each.containers for each in workloads), "container")
        tell(f"{counted(len(workloads), 'profile')}, from {number}")
