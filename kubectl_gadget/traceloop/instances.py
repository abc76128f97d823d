"""The recordings that agents keep, and which one a user means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gadget import syscalls
from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, UsageError
from gadget.pod_choice import ChosenPods
from gadget.text import escape
from kubectl_gadget.agents.at_once import answers
from kubectl_gadget.agents.client import ask_once
from kubectl_gadget.agents.targets import Agent, Targets
from kubectl_gadget.pods import name_choices, read_pods
from kubectl_gadget.stream.nothing import ExistingContainer, where_of, why_nothing
from kubectl_gadget.stream.request import Selection

#: A text of this many hexadecimal digits or more may be an id, as with docker.
ID_DIGITS = 4
LISTED = 10


@dataclass(frozen=True)
class Instance:
    """One container's recording, and the agent that has it."""

    agent: Agent
    node: str
    item: pb.TraceloopItem

    @property
    def container(self) -> pb.Container:
        """The container that was recorded."""
        return self.item.container

    @property
    def name(self) -> str:
        """namespace/pod/container, as far as they are known; fit for a terminal."""
        parts = (self.container.namespace, self.container.pod, self.container.container)
        return escape("/".join(part for part in parts if part) or self.container.id[:12])

    @property
    def title(self) -> str:
        """Its name, id and node."""
        return f"{self.name} {escape(f'{self.container.id[:12]} on {self.node}')}"

    @property
    def owner(self) -> tuple[str, ...]:
        """The unit that a deletion by name removes: a pod, or a container without a pod on one machine."""
        container = self.container
        return (container.namespace, container.pod) if container.pod else (self.node, container.container)

    @property
    def crashed(self) -> bool:
        """Whether its first program ended badly."""
        return bool(self.item.status) or (self.item.oom and not self.item.running)

    @property
    def exit_status(self) -> int | None:
        """Its exit status as a shell has it; None if it runs or nobody saw its end."""
        if self.item.running or not (self.item.known or self.item.status):
            return None
        signal = self.item.status & 0x7F
        return 128 + signal if signal else self.item.status >> 8

    @property
    def state(self) -> str:
        """Its state in words: running, or how it ended."""
        item = self.item
        if item.refused:
            return "running, no memory to record it"
        if item.running:
            return "running"
        return ended_how(item) or "ended"

    @property
    def labels(self) -> Mapping[str, str] | None:
        """The labels of its pod: empty outside pods, None if they are not known."""
        if not self.container.pod:
            return {}
        return self.item.labels.labels if self.item.HasField("labels") else None

    @property
    def newest(self) -> int:
        """The sort key: when its container or this recording began, whichever is later."""
        return max(self.item.started_ns, self.item.recorded_ns)


def full_name(instance: Instance) -> str:
    """NAMESPACE/POD."""
    return f"{instance.container.namespace}/{instance.container.pod}"


def ended_how(item: pb.TraceloopItem) -> str:
    """How a container's first program ended; empty if nobody saw it."""
    signal, code = item.status & 0x7F, item.status >> 8
    if signal:
        return "OOM killed" if item.oom and signal == 9 else f"{syscalls.signal_name(signal)} ({128 + signal})"
    if item.oom:
        return f"exited {code}, OOM killed in it"
    return f"exited {code}" if item.known else ""


def ask(targets: Targets) -> tuple[list[Instance], list[GadgetError]]:
    """The recordings of all targets, and the errors of targets that did not answer or have lost recordings."""
    losses: list[GadgetError] = []
    reached: set[str] = set()  # a target without a recorder says so when it is asked

    def one(target: str) -> list[Instance] | GadgetError:
        try:
            agent = targets.reach(target)
            reached.add(target)
            reply = ask_once(agent, "TraceloopList", pb.TraceloopListRequest())
        except GadgetError as error:
            return error
        if reply.lost:
            losses.append(GadgetError(f"{target}: recordings {reply.lost}"))
        return [Instance(agent, reply.node, item) for item in reply.items]

    given = answers({target: partial(one, target) for target in targets}, reached)
    found = [instance for answer in given if isinstance(answer, list) for instance in answer]
    return found, [*(answer for answer in given if isinstance(answer, GadgetError)), *losses]


def among(instances: Sequence[Instance], selection: Selection) -> list[Instance]:
    """The recordings that -n, -p, -c and -l choose: the newest end first, running containers last.

    -l leaves out no recording whose labels are not known.
    """
    asked = selection.chosen()

    def chosen(instance: Instance) -> bool:
        container, labels = instance.container, instance.labels
        names = (container.namespace, container.pod, container.container)
        return asked.matches(*names, labels, in_pod=bool(container.pod)) is not False

    def order(instance: Instance) -> tuple[Any, ...]:
        return (instance.item.running, -instance.item.ended_ns, -instance.newest, instance.name)

    return sorted(filter(chosen, instances), key=order)


def named(instances: Sequence[Instance], name: str, *, begins: bool = False) -> list[Instance]:
    """The recordings of a pod, of a container without a pod, or of the one container whose id begins so.

    With begins: if there is no such pod, of all pods whose name begins so. UsageError if there are none, or several
    ids.
    """
    if not name.strip():
        raise UsageError(f"{name!r}: an empty name")
    tests: list[Callable[[Instance], bool]] = [
        lambda instance: bool(instance.container.pod) and name in (instance.container.pod, full_name(instance)),
        lambda instance: not instance.container.pod and instance.container.container == name,
    ]
    for test in tests:
        if found := [instance for instance in instances if test(instance)]:
            return found
    if len(name) >= ID_DIGITS:
        found = [instance for instance in instances if instance.container.id.startswith(name)]
        if len({instance.container.id for instance in found}) > 1:
            raise UsageError(f"{name!r} begins several ids: {_listed(each.title for each in found)}")
        if found:
            return found
    if begins and (found := _begun_by(instances, name)):
        return found
    import difflib

    names = {(not instance.container.pod, escape(instance.container.pod) or instance.name) for instance in instances}
    pods = [name for _, name in sorted(names)]  # ids of containers that no pod has say least
    begun = {pod[: len(name)]: pod for pod in reversed(pods)}  # a misspelt name may also be only the beginning of one
    near = difflib.get_close_matches(name, pods, 3)
    near = near or [begun[each] for each in difflib.get_close_matches(name, begun, 3, 0.75)] or pods
    hint = f"there is {_listed(near)}" if near else "nothing is recorded there"
    raise UsageError(f"no recording of {name!r}: {hint}")


def _begun_by(instances: Sequence[Instance], name: str) -> list[Instance]:
    """The recordings of the pods that -p NAME would choose."""
    try:
        pods = ChosenPods(name_choices(read_pods([name])))
    except UsageError:  # no pod can have this name
        return []
    own = [instance for instance in instances if instance.container.pod]
    return [each for each in own if pods.matches(each.container.namespace, each.container.pod, None)]


def newest_bad_end(instances: Sequence[Instance]) -> Instance | None:
    """The recording of the latest bad end."""
    crashed = [instance for instance in instances if instance.crashed]
    return max(crashed, key=lambda each: each.item.ended_ns or each.newest) if crashed else None


def why_none(instances: Sequence[Instance], selection: Selection) -> str:
    """Why a selection has no recording, and what there is instead."""
    where, known = where_of(selection), {ExistingContainer(*_names(instance)) for instance in instances}
    if not known:
        return "no recordings yet"
    within = Selection(selection.namespaces)
    if here := among(instances, within):
        why = why_nothing(selection, {ExistingContainer(*_names(instance)) for instance in here}, watching=False)
        return f"no recordings: {why}" if why else "no recordings of those"
    return f"no recordings in {where}; {len(instances)} elsewhere (-A)"


def _names(instance: Instance) -> tuple[str, str, str]:
    return instance.container.namespace, instance.container.pod, instance.container.container


def _listed(texts: Iterable[str]) -> str:
    every = list(dict.fromkeys(texts))
    return ", ".join([*every[:LISTED], *["…"] * (len(every) > LISTED)])


def choose(found: Sequence[Instance], name: str, number: int, previous: bool) -> Instance:
    """One of the recordings that name stands for: the number-th newest; else the newest bad end; else the newest.

    UsageError if they belong to several pods or containers, and it is not clear which is meant. It is clear if only one
    of these ended badly.
    """
    kinds = sorted({instance.name for instance in found})
    crashed = [instance for instance in found if instance.crashed]
    if len(kinds) > 1:
        bad = {instance.name for instance in crashed}
        if number or len(bad) != 1:
            what = f"{name!r} is {len(kinds)} containers" if name else f"{len(kinds)} containers are recorded"
            raise UsageError(
                f"{what}: {_listed(kinds)}: choose {'' if name else 'one by its name, '}with -n, -c or by id"
            )
        found = [instance for instance in found if instance.name in bad]
    if number or previous:
        ordered = sorted(found, key=lambda instance: -instance.newest)
        number = number or 2
        if number > len(ordered):
            runs = f"{len(ordered)} recorded runs: the oldest is --instance {len(ordered)}"
            raise UsageError(f"{ordered[0].name} has {runs if len(ordered) > 1 else 'one recorded run'}")
        return ordered[number - 1]
    return max(crashed or found, key=lambda instance: instance.newest)


def one_owner(found: Sequence[Instance], name: str) -> Sequence[Instance]:
    """The recordings that name stands for, if they are of one pod or one container. Else UsageError."""
    if len({instance.owner for instance in found}) > 1:
        raise UsageError(
            f"{name!r} is {_listed(instance.title for instance in found)}: choose with -n, as namespace/pod, or by id"
        )
    return found
