"""`detect learn` and `detect --baseline`: what workloads were seen to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from kubectl_gadget.cluster.options import cluster_options
from kubectl_gadget.detect.given import FILE, option, read_baselines
from kubectl_gadget.headed import HeadedCommand
from kubectl_gadget.options import DurationType, Option, output_options, where_options
from kubectl_gadget.stream.request import make_selection
from kubectl_gadget.tell import tell
from kubectl_gadget.where import default_namespace, find_selection, find_targets


def baseline_option() -> Option:
    """--baseline."""
    text = (
        "What workloads were seen to do, as `detect learn` writes it: all else is an alert. The default rules are not "
        "asked then; --rules default asks them too."
    )
    return option("--baseline", "baselines", type=FILE, multiple=True, metavar="FILE", help=text)


def learn_command() -> click.Command:
    """`detect learn`."""
    options: list[click.Parameter] = [
        option("--duration", type=DurationType(), default=0.0, metavar="1h",
               help="For so long. [default: until Ctrl-C]"),
        option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", heading="Output",
               help="Write it there, in JSON if its name ends with .json. [default: to standard output, in YAML]"),
        *(each for each in output_options() if each.name == "strict"),
        *where_options(),
        *cluster_options(),
    ]  # fmt: skip
    title = "what workloads do: their programs, files, ports and peers, for --baseline"
    example = "kubectl gadget detect learn -n shop --duration 1h -o shop.yaml"
    return HeadedCommand("learn", title, example, options, _learn, verb="Learns")


def tell_unjudged(paths: Sequence[Path]) -> None:
    """Say what of baselines is not judged.

    Raises:
        UsageError: One is none.

    """
    if not paths:
        return
    from gadget.rules.baseline import unjudged

    for each in unjudged(read_baselines(paths)):
        tell(f"warning: {each} are not judged: there were more than the baseline keeps")


def _learn(
    duration: float, output: Path | None, strict: bool, local: bool, agent: tuple[str, ...], **selected: Any
) -> None:
    selection = make_selection(**selected)
    if not (selection.namespaces or selected["all_namespaces"]):
        selection = replace(selection, namespaces=default_namespace(agent, local))
    with find_targets(agent, local) as targets:
        selection = find_selection(selection, agent, local)
        from kubectl_gadget.detect.learn import learn  # grpc and numpy, while a local agent starts

        learn(selection, targets(), duration, output, strict=strict)
