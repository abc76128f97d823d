"""Standing runs: how agents and the cluster are told of them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, Unreachable, UsageError
from gadget.standing import check, check_name
from gadget.text import counted
from kubectl_gadget.begin import start_of
from kubectl_gadget.client import ask_all
from kubectl_gadget.request import Request
from kubectl_gadget.targets import Targets
from kubectl_gadget.tell import tell, write_line

#: An agent has to load an object before it answers.
PUT_SECONDS = 30.0
#: An agent tells at the latest after that whether a run could begin.
BEGIN_SECONDS = 5.0
POLL_SECONDS = 0.2


def standing_of(name: str, keep: int, metrics: Sequence[str], request: Request) -> pb.Standing:
    """The standing run that a request is about. UsageError if it cannot be one."""
    made = pb.Standing(name=check_name(name), start=start_of(request), keep_bytes=keep, metrics=metrics)
    return check(made) if metrics else made


def put(run: pb.Standing, targets: Targets) -> None:
    """Tell all agents of a run, and the user what became of it. GadgetError if it runs nowhere."""
    replies = ask_all(targets, "StandingPut", pb.StandingPutRequest(run=run), PUT_SECONDS)
    problems = {target: str(reply) for target, reply in replies.items() if isinstance(reply, GadgetError)}
    taken = len(replies) - len(problems)
    refused = next((reply for reply in replies.values() if isinstance(reply, UsageError)), None)
    if refused:
        raise refused
    problems |= _problems(run.name, targets, {target for target in replies if target not in problems})
    running = len(replies) - len(problems)
    for target, problem in problems.items():
        tell(f"warning: {problem if target in problem else f'{target}: {problem}'}")
    if not running:
        again = f"; agents try it again until you end it: kubectl gadget delete {run.name}" if taken else ""
        raise Unreachable(f"{run.name} runs nowhere{again}")
    where = f"{running} of {len(replies)} nodes" if problems else counted(running, "node")
    write_line(f"{run.name} runs on {where}.")
    write_line(f"To see it: kubectl gadget attach {run.name} -f; to end it: kubectl gadget delete {run.name}")


def _problems(name: str, targets: Targets, asked: set[str]) -> dict[str, str]:
    """Why a run has not begun, by target, once all of those that were asked know."""
    deadline = time.monotonic() + BEGIN_SECONDS
    while True:
        found = {target: one(reply, name) for target, reply in ask_list(targets).items() if target in asked}
        waiting = any(status and not (status.problem or status.kept_bytes) for status in found.values())
        if not waiting or time.monotonic() > deadline:
            return {target: status.problem for target, status in found.items() if status and status.problem}
        time.sleep(POLL_SECONDS)


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
    known = sorted({run.run.name for reply in answers for run in reply.runs if run.run.start.gadget})
    there = f"there is {', '.join(known)}" if known else "there is none: GADGET --detach --name NAME makes one"
    raise UsageError(f"no standing run {name!r}: {there}")


def delete(names: tuple[str, ...], targets: Targets, *, forgotten: bool) -> None:
    """End runs everywhere. GadgetError if one is nowhere, or stays somewhere.

    forgotten: the cluster defines them no more, and what still does on its nodes goes in a while.
    """
    failed, unknown = [], None
    for name in names:
        replies = ask_all(targets, "StandingDelete", pb.StandingDeleteRequest(name=name))
        ended = {target: reply for target, reply in replies.items() if not isinstance(reply, GadgetError)}
        if not ended:
            try:
                find(name, ask_list(targets))
            except UsageError as error:  # the others of names are to end all the same
                unknown = unknown or error
        failed += [
            f"{target}: {why}"
            for target, why in replies.items()
            if not isinstance(why, UsageError | pb.StandingDeleteReply)
        ]
        if ended:
            write_line(f"{name} ended on {counted(len(ended), 'node')}; what it kept is gone")
        for target, reply in ended.items():
            if reply.file and not forgotten:
                tell(f"warning: {target}: {reply.file} still defines {name}: it begins again with its agent")
    if failed:
        raise Unreachable("; ".join(failed))
    if unknown:
        raise unknown
