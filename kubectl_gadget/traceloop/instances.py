"""The recordings that agents keep, and which one a user means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc

from gadget import syscalls
from gadget._generated import gadget_pb2 as pb
from gadget._generated import gadget_pb2_grpc as rpc
from gadget.errors import GadgetError, UsageError
from gadget.selector import parse_names
from kubectl_gadget.request import Selection
from kubectl_gadget.streams import connect, error_of
from kubectl_gadget.targets import Targets

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
        """namespace/pod/container, as far as they are known."""
        parts = (self.container.namespace, self.container.pod, self.container.container)
        return "/".join(part for part in parts if part) or self.container.id[:12]

    @property
    def crashed(self) -> bool:
        """Whether its first program ended badly."""
        return bool(self.item.status) or (self.item.oom and not self.item.running)

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
    """Those that -n, -p and -c choose, by name and then by age."""
    wanted = [parse_names(names) for names in (selection.namespaces, selection.pods, selection.containers)]

    def chosen(instance: Instance) -> bool:
        container = instance.container
        names = (container.namespace, container.pod, container.container)
        return all(names_wanted.matches(name) for names_wanted, name in zip(wanted, names, strict=True))

    def order(instance: Instance) -> tuple[Any, ...]:
        return (instance.name, -instance.newest)

    return sorted(filter(chosen, instances), key=order)


def named(instances: Sequence[Instance], name: str) -> list[Instance]:
    """The instances of a pod, a container without one, or with an id that begins so. UsageError if there are none."""
    tests: list[Callable[[Instance], bool]] = [
        lambda instance: name in (instance.container.pod, f"{instance.container.namespace}/{instance.container.pod}"),
        lambda instance: not instance.container.pod and instance.container.container == name,
        lambda instance: len(name) >= ID_DIGITS and instance.container.id.startswith(name),
    ]
    for test in tests:
        if found := [instance for instance in instances if test(instance)]:
            return found
    import difflib

    pods = sorted({instance.container.pod or instance.name for instance in instances})
    near = difflib.get_close_matches(name, pods, 3) or pods
    hint = f"there is {', '.join(near[:LISTED])}{', …' * (len(near) > LISTED)}" if near else "nothing is recorded there"
    raise UsageError(f"no recording of {name!r}: {hint}")


def choose(found: Sequence[Instance], name: str, number: int, previous: bool) -> Instance:
    """One of the instances that name stands for: the number-th newest, or the newest that ended badly, or the newest.

    UsageError if they belong to different pods or containers and nothing says which is meant.
    """
    kinds = sorted({instance.name for instance in found})
    crashed = [instance for instance in found if instance.crashed]
    if len(kinds) > 1 and not (crashed and len({instance.name for instance in crashed}) == 1 and not number):
        raise UsageError(f"{name!r} is {len(kinds)} containers: {', '.join(kinds)}: choose with -n, -c or by id")
    if number or previous:
        ordered = sorted(found, key=lambda instance: -instance.newest)
        number = number or 2
        if number > len(ordered):
            raise UsageError(f"{kinds[0]} has {len(ordered)} recordings: --instance 1 is the newest")
        return ordered[number - 1]
    return max(crashed or found, key=lambda instance: instance.newest)
