"""`--detach`: from a command's options to runs that stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from gadget.errors import UsageError
from kubectl_gadget.cluster.options import chosen_cluster
from kubectl_gadget.tell import write_lines
from kubectl_gadget.where import find_targets

if TYPE_CHECKING:
    from gadget._generated import gadget_pb2 as pb

#: Options of `attach` that the command which makes a standing run does not take.
_OF_ATTACH = ("form", "fields", "filter_", "count_by", "max_events", "timeout", "strict", "record")
#: What is about tables that are shown: a standing run shows none.
_OF_SCREENS = ("sort", "top", "count", "totals")


def check_detached(detach: bool, only_with: Mapping[str, Any]) -> None:
    """UsageError for options that do not go together."""
    context = click.get_current_context()
    if not detach:
        if given := [name for name, value in only_with.items() if value]:
            raise UsageError(f"{given[0]}: of a standing run: with --detach")
        return
    given = [name for name in _OF_ATTACH if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if shown := [name for name in _OF_SCREENS if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]:
        raise UsageError(f"--{shown[0]}: a standing run shows no tables, but counts what --metric says")
    if given:
        option = next(param for param in context.command.params if param.name == given[0])
        raise UsageError(
            f"{max(option.opts, key=len)}: give it to `kubectl gadget attach`: the run itself keeps everything"
        )


def let_stand(
    name: str, runs: Sequence[pb.Standing], *, story: bool, print_only: bool, agent: Collection[str], local: bool
) -> None:
    """Have all agents run what is called name, or print what defines it. story: it is one, of these runs and no other.

    GadgetError if it runs nowhere.
    """
    if print_only:
        from kubectl_gadget.cluster.definitions import config_map
        from kubectl_gadget.cluster.manifests import to_yaml

        write_lines(to_yaml([config_map(runs, chosen_cluster().namespace)]))
        return
    from gadget.standing import story_run  # msgspec: who streams has no use for it
    from kubectl_gadget.standing.stories import LACKING, check_free, members, possible

    with find_targets(tuple(agent), local, lacking=LACKING) as targets:
        from kubectl_gadget.standing.make import ask_list, end_runs, put

        reached = targets()
        replies = ask_list(reached)
        check_free(name, replies, story=story)
        kept = {run.name for run in runs}
        if not (agent or local):
            from kubectl_gadget.cluster.definitions import keep

            keep(runs, without={*possible(name)} - kept if story else ())
        if story:
            end_runs({story_run(name, kind) for kind in members(name, replies)} - kept, reached)
        put(name, runs, reached)
