"""Makes, lists and ends standing runs in agents and in the cluster."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, Unreachable, UsageError
from gadget.standing import check, check_name, shown_name
from gadget.text import counted
from kubectl_gadget.agents.client import ask_all
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.stream.begin import start_of
from kubectl_gadget.stream.request import Request
from kubectl_gadget.tell import tell, write_line

#: An agent has to load an object before it answers.
PUT_SECONDS = 30.0
#: An agent tells at the latest after that whether a run could begin.
BEGIN_SECONDS = 5.0
POLL_SECONDS = 0.2


def standing_of(name: str, keep: int, metrics: Sequence[str], request: Request) -> pb.Standing:
    """The standing run that a request is about. UsageError if it cannot be one."""
    return check(pb.Standing(name=check_name(name), start=start_of(request), keep_bytes=keep, metrics=metrics))


def put(name: str, runs: Sequence[pb.Standing], targets: Targets) -> None:
    """Tell all agents of a run, or of the runs of a story, and the user what became of it. GadgetError if none runs."""
    problems: dict[tuple[str, str], list[pb.Standing]] = {}
    taken: dict[str, set[str]] = {}  # by run, who has it now
    away = dict[str, GadgetError]()
    refused: UsageError | None = None
    for run in runs:
        left = Targets({target: reach for target, reach in targets.items() if target not in away})
        left.are_nodes = targets.are_nodes
        replies = ask_all(left, "StandingPut", pb.StandingPutRequest(run=run), PUT_SECONDS) | away
        for target, reply in replies.items():
            if isinstance(reply, Unreachable):
                away[target] = reply
            if isinstance(reply, UsageError):
                refused = refused or reply
            if isinstance(reply, GadgetError):
                problems.setdefault((target, str(reply)), []).append(run)
            else:
                taken.setdefault(run.name, set()).add(target)
    if refused and (len(runs) == 1 or not taken):
        raise refused
    for run in runs:
        for target, problem in _problems(run.name, targets, taken.get(run.name, set())).items():
            problems.setdefault((target, problem), []).append(run)
    for (target, problem), without in problems.items():
        told = problem if target in problem else f"{target}: {problem}"
        if len(without) < len(runs):
            told = f"nothing of {', '.join(run.name.rpartition('.')[2] for run in without)}: {told}"
        tell(f"warning: {told}")
    failed = Counter(target for (target, _), without in problems.items() for _ in without)
    running = [target for target in targets if failed[target] < len(runs)]
    if not running:
        again = f"; agents try it again until you end it: kubectl gadget delete {name}" if taken else ""
        raise Unreachable(f"{name} runs nowhere{again}")
    where = f"{len(running)} of {len(targets)} nodes" if len(running) < len(targets) else counted(len(targets), "node")
    write_line(f"{name} runs on {where}{f', {len(runs)} kinds' * (len(runs) > 1)}.")
    write_line(f"To see it:  kubectl gadget attach {name} -f")
    write_line(f"To end it:  kubectl gadget delete {name}")


def _problems(name: str, targets: Targets, asked: set[str]) -> dict[str, str]:
    """Why a run has not begun, by target. Waits until each target knows whether it could begin."""
    deadline = time.monotonic() + BEGIN_SECONDS
    while asked:
        found = {target: one(reply, name) for target, reply in ask_list(targets).items() if target in asked}
        waiting = any(status and not (status.problem or status.kept_bytes) for status in found.values())
        if not waiting or time.monotonic() > deadline:
            return {target: status.problem for target, status in found.items() if status and status.problem}
        time.sleep(POLL_SECONDS)
    return {}


def ask_list(targets: Targets) -> dict[str, Any]:
    """Each agent's StandingListReply, or why there is none."""
    return ask_all(targets, "StandingList", pb.StandingListRequest())


def one(reply: Any, name: str) -> pb.StandingStatus | None:
    """A run in an agent's list, by name."""
    return None if isinstance(reply, GadgetError) else next((run for run in reply.runs if run.run.name == name), None)


def find(name: str, replies: Mapping[str, Any]) -> pb.StandingStatus:
    """The run of a name that some agent has. GadgetError if none has, with those that there are."""
    found = next(
        (status for reply in replies.values() if (status := one(reply, name)) and status.run.start.gadget), None
    )
    if found:
        return found
    answers = [reply for reply in replies.values() if not isinstance(reply, GadgetError)]
    if not answers and replies:
        raise next(iter(replies.values()))
    for status in filter(None, (one(reply, name) for reply in answers)):
        raise UsageError(f"{name} is no run, as {status.file} makes no sense: {status.problem}")
    known = sorted({shown_name(run.run) for reply in answers for run in reply.runs if run.run.start.gadget})
    there = f"there is {', '.join(known)}" if known else "there is none: GADGET --detach --name NAME makes one"
    raise UsageError(f"no standing run {name!r}: {there}")


def end_runs(names: Collection[str], targets: Targets) -> None:
    """End runs that another command of the same name has not. What stays is told by `runs`."""
    for name in names:
        ask_all(targets, "StandingDelete", pb.StandingDeleteRequest(name=name))


def delete(names: Mapping[str, Sequence[str]], targets: Targets, *, forgotten: bool) -> None:
    """End the runs that each name means, everywhere. GadgetError if one is nowhere, or stays somewhere.

    forgotten: the cluster defines them no more, and what still does on its nodes goes in a while.
    """
    failed, unknown = dict[str, None](), None
    for name, runs in names.items():
        ended: dict[str, list[pb.StandingDeleteReply]] = {}
        for run in runs:
            replies = ask_all(targets, "StandingDelete", pb.StandingDeleteRequest(name=run))
            for target, reply in replies.items():
                if isinstance(reply, pb.StandingDeleteReply):
                    ended.setdefault(target, []).append(reply)
                elif not isinstance(reply, UsageError):
                    failed[f"{target}: {reply}"] = None
        if not ended:
            try:
                find(name, ask_list(targets))
                failed.setdefault(f"{name} runs, and no agent ended it: try it again")
            except UsageError as error:  # the others of names are to end all the same
                unknown = unknown or error
        if ended:
            write_line(f"{name} ended on {counted(len(ended), 'node')}; what it kept is gone")
        for target, replies_of in ended.items():
            if not forgotten and (file := next((reply.file for reply in replies_of if reply.file), "")):
                tell(f"warning: {target}: {file} still defines {name}: it begins again with its agent")
    if failed:
        raise Unreachable("; ".join(failed))
    if unknown:
        raise unknown
