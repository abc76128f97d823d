"""The recordings that agents keep, and which one a user means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc

from gadget import syscalls
from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from gadget.errors import GadgetError, UsageError
from gadget.selector import parse_labels, parse_names
from kubectl_gadget.request import Selection
from kubectl_gadget.streams import connect, error_of
from kubectl_gadget.targets import Targets
from kubectl_gadget.text import escape

#: An id is told from a name from this many digits on, as with docker.
ID_DIGITS = 4
LISTED = 10


@dataclass(frozen=True)
class Instance:
    """One container's recording, and the agent that has it."""

    target: str
    address: str
    node: str
    item: pb.TraceloopItem

    @property
    def container(self) -> pb.Container:
        """Whose it is."""
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
        """What one deletion by name is about: a pod, or one machine's container without one."""
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
        """What became of it, in words."""
        item = self.item
        if item.refused:
            return "running, no memory to record it"
        if item.running:
            return "running"
        return ended_how(item) or "ended"

    @property
    def labels(self) -> Mapping[str, str] | None:
        """Those of its pod, none outside pods; None if nobody knows them."""
        if not self.container.pod:
            return {}
        return self.item.labels.labels if self.item.HasField("labels") else None

    @property
    def newest(self) -> int:
        """What to sort by: when it began."""
        return self.item.started_ns


def ended_how(item: pb.TraceloopItem) -> str:
    """How a container's first program ended; empty if nobody saw it."""
    signal, code = item.status & 0x7F, item.status >> 8
    if signal:
        name = "OOM killed" if item.oom and signal == 9 else syscalls.signal_name(signal)
        return f"{name} (exit {128 + signal})"
    if item.oom:
        return f"exited {code}, OOM killed in it"
    return f"exited {code}" if item.known else ""


def ask(targets: Targets) -> tuple[list[Instance], list[GadgetError]]:
    """The recordings of all targets, and the errors of those that did not answer or have lost some."""
    losses: list[GadgetError] = []

    def one(target: str) -> list[Instance] | GadgetError:
        try:
            address = targets[target]()
            with connect(address) as channel:
                reply = rpc.AgentStub(channel).TraceloopList(pb.TraceloopListRequest())
        except grpc.RpcError as error:
            return error_of(target, error)
        except GadgetError as error:
            return error
        if reply.lost:
            losses.append(GadgetError(f"{target}: recordings {reply.lost}"))
        return [Instance(target, address, reply.node, item) for item in reply.items]

    with ThreadPoolExecutor(max_workers=16) as pool:
        answers = list(pool.map(one, targets))
    found = [instance for answer in answers if isinstance(answer, list) for instance in answer]
    return found, [*(answer for answer in answers if isinstance(answer, GadgetError)), *losses]


def among(instances: Sequence[Instance], selection: Selection) -> list[Instance]:
    """Those that -n, -p, -c and -l choose, the newest end first and what runs last.

    Whose labels nobody knows is not left out by -l.
    """
    labels = parse_labels(selection.labels)
    wanted = [parse_names(names) for names in (selection.namespaces, selection.pods, selection.containers)]

    def chosen(instance: Instance) -> bool:
        container = instance.container
        names = (container.namespace, container.pod, container.container)
        if not all(names_wanted.matches(name) for names_wanted, name in zip(wanted, names, strict=True)):
            return False
        return not labels or instance.labels is None or all(item.matches(instance.labels) for item in labels)

    def order(instance: Instance) -> tuple[Any, ...]:
        return (instance.item.running, -instance.item.ended_ns, -instance.newest, instance.name)

    return sorted(filter(chosen, instances), key=order)


def named(instances: Sequence[Instance], name: str) -> list[Instance]:
    """The instances of a pod, a container without one, or of the one container whose id begins so.

    UsageError if there are none, or if several ids begin so.
    """
    tests: list[Callable[[Instance], bool]] = [
        lambda instance: name in (instance.container.pod, f"{instance.container.namespace}/{instance.container.pod}"),
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
    import difflib

    pods = sorted({escape(instance.container.pod) or instance.name for instance in instances})
    near = difflib.get_close_matches(name, pods, 3) or pods
    hint = f"there is {_listed(near)}" if near else "nothing is recorded there"
    raise UsageError(f"no recording of {name!r}: {hint}")


def _listed(texts: Iterable[str]) -> str:
    every = list(dict.fromkeys(texts))
    return ", ".join([*every[:LISTED], *["…"] * (len(every) > LISTED)])


def choose(found: Sequence[Instance], name: str, number: int, previous: bool) -> Instance:
    """One of the instances that name stands for: the number-th newest, or the newest that ended badly, or the newest.

    UsageError if they belong to different pods or containers and nothing says which is meant; that only one of them
    ended badly does.
    """
    kinds = sorted({instance.name for instance in found})
    crashed = [instance for instance in found if instance.crashed]
    if len(kinds) > 1:
        bad = {instance.name for instance in crashed}
        if number or len(bad) != 1:
            raise UsageError(f"{name!r} is {len(kinds)} containers: {_listed(kinds)}: choose with -n, -c or by id")
        found = [instance for instance in found if instance.name in bad]
    if number or previous:
        ordered = sorted(found, key=lambda instance: -instance.newest)
        number = number or 2
        if number > len(ordered):
            raise UsageError(f"{ordered[0].name} has {len(ordered)} recordings: --instance 1 is the newest")
        return ordered[number - 1]
    return max(crashed or found, key=lambda instance: instance.newest)


def one_owner(found: Sequence[Instance], name: str) -> Sequence[Instance]:
    """What name stands for, if it is one pod or one container without a pod; else UsageError."""
    if len({instance.owner for instance in found}) > 1:
        raise UsageError(
            f"{name!r} is {_listed(instance.title for instance in found)}: choose with -n, as namespace/pod, or by id"
        )
    return found
