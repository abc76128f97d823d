"""The command `advise capabilities`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gadget import catalog
from gadget.errors import UsageError
from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import DurationType, Option, output_options, where_options
from kubectl_gadget.pods import read_pods
from kubectl_gadget.stream.request import make_request, make_selection
from kubectl_gadget.tell import tell, write_line, write_lines
from kubectl_gadget.where import default_namespace, find_selection, find_targets

if TYPE_CHECKING:
    from kubectl_gadget.advise.capabilities.need import Need

GADGET = "capable"
FILE = click.Path(path_type=Path)
USUAL_SECONDS = 60.0


class CapabilitiesCommand(HeadedCommand):
    """`advise capabilities`: what goes into securityContext.capabilities."""

    def __init__(self) -> None:
        """Make the command."""
        options: list[click.Parameter] = [
            Option(["--duration"], heading="Options", type=DurationType(), default=USUAL_SECONDS, metavar="DURATION",
                   help="How long to watch, such as 30s or 24h; 0: until Ctrl-C. [default: 1m]"),
            Option(["--input", "input_"], heading="Options", type=FILE, metavar="FILE",
                   help="Read what `capable --record FILE` kept, - for standard input, instead of watching."),
            *where_options(),
            *cluster_options(),
            Option(["form", "-o", "--output"], heading="Output", type=click.Choice(["yaml", "json"]), default="yaml",
                   help="Patches for kubectl, or all that was seen.", show_default=True),
            Option(["--output-dir"], heading="Output", type=FILE, metavar="DIR",
                   help="Write each workload's patch to a file there."),
            *(option for option in output_options() if option.name == "strict"),
        ]  # fmt: skip
        super().__init__(
            "capabilities",
            "the capabilities that containers need: drop ALL, and add what they were seen to use",
            "kubectl gadget advise capabilities -n shop --duration 10m",
            options,
            _advise,
            verb="Prints",
        )


def _advise(
    duration: float,
    input_: Path | None,
    form: str,
    output_dir: Path | None,
    strict: bool,
    local: bool,
    agent: tuple[str, ...],
    namespace: tuple[str, ...],
    all_namespaces: bool,
    pod: tuple[str, ...],
    container: tuple[str, ...],
    selector: str,
) -> None:
    if form == "json" and output_dir:
        raise UsageError("--output-dir: patches are YAML: leave out -o json")
    selection = make_selection(namespace, all_namespaces, pod, container, selector)
    request = make_request(
        catalog.find(GADGET), {}, "json", "", (), "", strict=strict, selection=selection, timeout=duration
    )

    def write(needs: list[Need], seconds: float) -> None:
        _write(needs, seconds, form, output_dir)

    if input_:
        _read(input_, request, write)
        return
    if not (namespace or all_namespaces):
        selection = replace(selection, namespaces=default_namespace(agent, local))
    with find_targets(agent, local) as targets:
        request = request.about(find_selection(selection, agent, local))
        from kubectl_gadget.advise.capabilities.watch import watch  # grpc and numpy, while a local agent starts

        watch(request, targets(), write)


def _read(file: Path, request: Any, write: Any) -> None:
    selection = request.selection
    if selection.labels or any(name.is_workload for name in read_pods(selection.pods)):
        raise UsageError("recordings have no labels: choose with -n, -p POD and -c, or when you record")
    from kubectl_gadget.advise.capabilities.watch import read
    from kubectl_gadget.stream.recording import Recording

    recording = Recording(file)
    if recording.header.gadget != GADGET:
        raise UsageError(f"{file}: a recording of {recording.header.gadget}; wanted is one of {GADGET}")
    read(recording, request, write)


def _write(needs: list[Need], seconds: float, form: str, output_dir: Path | None) -> None:
    from gadget.text import duration
    from kubectl_gadget.advise.capabilities import render
    from kubectl_gadget.advise.files import write_file

    workloads = render.together(needs)
    if form == "json":
        from kubectl_gadget.output.encode import encode

        write_lines(encode([render.to_json(each, seconds) for each in workloads], indent=True).decode() + "\n")
    elif output_dir is None:
        for each in workloads:
            write_lines(render.patch(each, duration(seconds)))
    else:
        for each, name in zip(workloads, render.file_names(workloads), strict=True):
            path = output_dir / name
            write_file(path, render.patch(each, duration(seconds)))
            write_line(str(path))
    older, every = (sum(len(getattr(each, of)) for each in needs) for of in ("older", "containers"))
    if older:
        tell(f"{older} of {every} containers began before the watch: what only their start needs may be missing")
