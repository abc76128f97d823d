"""`kubectl gadget containers`: what the agents know."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Empty, Queue
from threading import Thread
from typing import Any

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, Unreachable
from gadget.schema import Column, Row
from kubectl_gadget.agents.client import ANSWER_SECONDS, ask
from kubectl_gadget.agents.targets import Agent, Targets
from kubectl_gadget.output import Look, Output
from kubectl_gadget.stream.nothing import ExistingContainer, why_nothing
from kubectl_gadget.stream.request import Selection
from kubectl_gadget.tell import tell

#: How often this thread wakes: it learns only then of a Ctrl-C that the kernel gave to another thread.
WAKE_SECONDS = 1.0
#: How long an agent may take to tell what else there is.
SOON_SECONDS = 3.0

FIELDS = [
    Column("node", "identity"),
    Column("namespace", "identity"),
    Column("pod", "identity"),
    Column("container", "identity"),
    Column("containerId", "short_id"),
    Column("runtime", "identity"),
    Column("cgroup_id", "cgroup_id"),
    Column("state", "identity"),
    Column("started", "moment"),
    Column("ended", "moment"),
    Column("owner", "identity"),
    Column("restarts", "int"),
    Column("addresses", "args"),
]
LOOK = Look(narrow=("cgroup_id", "runtime", "started"))
COLUMNS = ("node", "namespace", "pod", "container", "containerId", "runtime", "cgroup_id", "state", "started")


def list_containers(
    agent: Agent, request: pb.ContainersRequest, timeout: float = ANSWER_SECONDS
) -> Iterator[pb.ContainersReply]:
    """What an agent knows; endless with follow. GadgetError if it does not answer."""
    return ask(agent, "Containers", request, None if request.follow else timeout, endless=request.follow)


def known_containers(targets: Targets) -> list[ExistingContainer] | None:
    """The running containers of agents that answer soon; None if no agent does."""
    known, answered = [], False
    for target in targets:
        try:
            for reply in list_containers(targets.reach(target), pb.ContainersRequest(), SOON_SECONDS):
                answered = True
                living = [item.container for item in reply.containers if not item.ended_ns]
                known += [ExistingContainer(item.namespace, item.pod, item.container) for item in living]
        except GadgetError:
            continue  # the stream itself says that the agent is gone
    return known if answered else None


def rows(reply: pb.ContainersReply) -> list[Row]:
    """A reply's containers in the order of FIELDS."""
    return [
        (
            reply.node,
            item.container.namespace,
            item.container.pod,
            item.container.container,
            item.container.id,
            item.container.runtime,
            item.container.cgroup_id,
            "ended" if item.ended_ns else "running",
            item.started_ns,
            item.ended_ns or None,
            item.owner,
            item.restarts,
            list(item.addresses),
        )
        for item in reply.containers
    ]


def show(targets: Targets, request: pb.ContainersRequest, output: Output, selection: Selection) -> None:
    """Write the containers that the targets know; if none is of the selection, say so.

    Raises the GadgetError of the last target that fails, once the others have been shown. The user is told of the
    others that fail: at once, if the rest goes on.
    """
    queue: Queue[pb.ContainersReply | GadgetError | None] = Queue()

    def read(target: str) -> None:
        try:
            for reply in list_containers(targets.reach(target), request):
                queue.put(reply)
            queue.put(None)
        except GadgetError as error:
            queue.put(error)
        except Exception as error:  # whatever it is: without a word the command would never end
            queue.put(Unreachable(f"{target}: {type(error).__name__}: {error}"))

    for target in targets:
        Thread(target=read, args=(target,), name=f"containers-{target}", daemon=True).start()
    if request.follow:
        Thread(target=_tell_nothing, args=(targets, selection), name="nothing", daemon=True).start()
    running, found, some = len(targets), [], False
    failures: dict[str, GadgetError] = {}  # each reason once: what one node refuses, all do
    while running:
        try:
            reply: Any = queue.get(timeout=WAKE_SECONDS)
        except Empty:
            continue
        if isinstance(reply, pb.ContainersReply):
            some |= bool(reply.containers)
            found += sorted(rows(reply), key=lambda row: row[:4])
            if request.follow or running == 1:
                found = _write(output, found)
            continue
        running -= 1
        if reply:
            if running and request.follow and str(reply) not in failures:
                tell(f"warning: {reply}")
            failures[str(reply)] = reply
    _write(output, found)
    if failures:
        *others, last = failures.values()
        for other in others if not request.follow else ():
            tell(f"warning: {other}")
        raise last
    if not (some or request.follow):
        _tell_nothing(targets, selection, watching=False)


def _tell_nothing(targets: Targets, selection: Selection, *, watching: bool = True) -> None:
    known = known_containers(targets)
    if known is not None and (why := why_nothing(selection, known, watching=watching)):
        tell(why)


def _write(output: Output, found: list[Row]) -> list[Row]:
    names = [field.name for field in FIELDS]
    at = [names.index(field.name) for field in output.fields]
    rows = [tuple(row[index] for index in at) for row in found]
    output.start([], rows)
    if rows:
        output.write(rows)
    return []
