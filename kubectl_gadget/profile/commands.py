"""The commands `profile`, where the time of CPUs goes, and `offcpu`, where threads wait."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from gadget import catalog
from gadget.errors import UsageError
from gadget.schema import Schema
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import DurationType, FormType, Option, gadget_options, output_options, where_options
from kubectl_gadget.profile.found import all_forms
from kubectl_gadget.stream.request import Request, make_selection
from kubectl_gadget.where import default_namespace, find_selection, find_targets

if TYPE_CHECKING:
    from kubectl_gadget.profile.stacks import Samples

PROFILE, OFFCPU = "profile", "offcpu"
USUAL_HZ, USUAL_SECONDS, USUAL_TOP = 99, 10.0, 20
#: Parameters of the gadgets that the commands have options of their own for.
_OWN = ("param_hz", "param_user_stacks", "param_kernel_stacks", "param_waits")
USUAL_STATES = "S,D"


class ProfileCommand(HeadedCommand):
    """`profile`: samples of stacks."""

    def __init__(self) -> None:
        """Make the command."""
        own: list[click.Parameter] = [
            Option(["-F", "--frequency"], heading="Options", type=click.IntRange(1, 1000), default=USUAL_HZ,
                   metavar="HZ", help="Samples a second, on each CPU that is not idle: 1 to 1000. [default: 99]"),
            Option(["-U", "--user-stacks"], heading="Options", is_flag=True,
                   help="Only programs: time in the kernel counts for the function that called it."),
            Option(["-K", "--kernel-stacks"], heading="Options", is_flag=True,
                   help="Only the kernel: time in programs is left out."),
        ]  # fmt: skip
        super().__init__(
            PROFILE,
            "where CPU time goes, by function; where threads wait: see offcpu",
            "kubectl gadget profile -n shop -o flamegraph > shop.html",
            _options(PROFILE, own, "functions as rows, or stacks"),
            _profile,
        )


class OffcpuCommand(HeadedCommand):
    """`offcpu`: stacks of waits."""

    in_overview = False  # `profile` names it

    def __init__(self) -> None:
        """Make the command."""
        own: list[click.Parameter] = [
            Option(["--state"], heading="Options", default=USUAL_STATES, metavar="A,B",
                   help="Which waits: S, which signals end, as of locks, sockets, sleep; D, which they do not, as of "
                   "disks; R: for a CPU that another thread took. [default: S,D]"),
            Option(["-U", "--user-stacks"], heading="Options", is_flag=True, help="Only programs' part of stacks."),
            Option(["-K", "--kernel-stacks"], heading="Options", is_flag=True, help="Only the kernel's part."),
        ]  # fmt: skip
        super().__init__(
            OFFCPU,
            "where threads wait, and for how long, by function",
            "kubectl gadget offcpu -n shop --min 1ms",
            _options(OFFCPU, own, "waits as rows, or stacks"),
            _offcpu,
        )


def _options(name: str, own: Sequence[click.Parameter], rows: str) -> list[click.Parameter]:
    """All options of a command, in order, with some of its own."""
    forms = FormType({form: each.help for form, each in all_forms().items()}, without="histogram")
    return [
        Option(["--duration"], heading="Options", type=DurationType(), default=USUAL_SECONDS, metavar="DURATION",
               help="How long, such as 30s or 5m; 0: until Ctrl-C. [default: 10s]"),
        *own,
        Option(["--top"], heading="Options", type=click.IntRange(0), default=USUAL_TOP, metavar="N",
               help="Only the first N rows of the table; 0: all. [default: 20]"),
        *(option for option in gadget_options(catalog.find(name)) if option.name not in _OWN),
        Option(["--no-demangle"], heading="Options", is_flag=True,
               help="Names of C++ and Rust as compilers make them."),
        *where_options(),
        *cluster_options(),
        Option(["form", "-o", "--output"], heading="Output", type=forms, default="columns",
               help=f"{rows}. flamegraph: a page for a browser; speedscope: for "
               "speedscope.app; pprof: for `go tool pprof`; folded: for flamegraph.pl."),
        *(option for option in output_options() if option.name == "strict"),
    ]  # fmt: skip


def _profile(frequency: int, **options: Any) -> None:
    _collect(PROFILE, frequency, {}, **options)


def _offcpu(state: str, **options: Any) -> None:
    (waits,) = (each for each in catalog.find(OFFCPU).parameters if each.name == "waits")
    states = {name.removeprefix("WAIT_"): number for name, number in waits.means.numbers(waits).items()}
    words = {word.strip().upper() for word in state.split(",")}
    if not words <= states.keys():
        raise UsageError(f"--state {state}: want one or more of {', '.join(states)}, such as --state D")
    _collect(OFFCPU, 0, {"waits": str(sum(states[word] for word in words))}, **options)


def _collect(
    name: str,
    frequency: int,
    values: dict[str, str],
    duration: float,
    user_stacks: bool,
    kernel_stacks: bool,
    top: int,
    no_demangle: bool,
    form: str,
    strict: bool,
    local: bool,
    agent: tuple[str, ...],
    namespace: tuple[str, ...],
    all_namespaces: bool,
    pod: tuple[str, ...],
    container: tuple[str, ...],
    selector: str,
    **settings: Any,
) -> None:
    if user_stacks and kernel_stacks:
        raise UsageError("-U and -K: choose one; without them both are shown")
    if form in all_forms() and all_forms()[form].is_file and sys.stdout.isatty():
        raise UsageError(f"-o {form}: {all_forms()[form].help}: add > FILE")
    values |= {name.removeprefix("param_"): str(value) for name, value in settings.items() if value is not None}
    if user_stacks or kernel_stacks:
        values["kernel_stacks" if user_stacks else "user_stacks"] = "false"
    selection = make_selection(namespace, all_namespaces, pod, container, selector)
    if not (namespace or all_namespaces):
        selection = replace(selection, namespaces=default_namespace(agent, local))
    with find_targets(agent, local) as targets:
        selection = find_selection(selection, agent, local)
        from kubectl_gadget.profile.collect import collect  # grpc and numpy, while a local agent starts

        gadget = catalog.Gadget(name, "", "", "", "", [], [], [], {}, {}, Schema((), 0), [])
        request = Request(gadget, values, strict=strict, selection=selection, timeout=duration)
        collect(request, targets(), frequency, _writes(form, top, demangle=not no_demangle))


def _writes(form: str, top: int, *, demangle: bool) -> Callable[[Samples], None]:
    """What writes samples in a form."""

    def write(samples: Samples) -> None:
        from kubectl_gadget.output.stdout import write_all
        from kubectl_gadget.profile import table
        from kubectl_gadget.profile.demangle import demangled

        if demangle:
            samples.rename(demangled)
        if form in all_forms():
            write_all(all_forms()[form].make(samples))
        else:
            table.write(samples, form, top)

    return write
