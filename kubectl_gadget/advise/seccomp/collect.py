"""What workloads called, from all agents."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from gadget import syscalls
from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, Unreachable, Unsupported, UsageError
from gadget.selector import parse_labels
from gadget.text import asked
from kubectl_gadget.agents.client import ask, malformed
from kubectl_gadget.agents.targets import Targets

ANSWER_SECONDS = 60.0
#: Of one agent.
MOST_WORKLOADS, MOST_LOSSES = 100_000, 100
_BYTES = 64
_MOST_NS = 1 << 62
#: What kinds are called for short, as kubectl has them.
_SHORT = {
    "deploy": "deployment", "ds": "daemonset", "sts": "statefulset", "rs": "replicaset", "po": "pod", "cj": "cronjob",
}  # fmt: skip


@dataclass
class CallingWorkload:
    """What the containers of one name of a workload called, on all nodes; names by machine, and those of 32-bit calls.

    odd: they called numbers that no table has. containers is how many there were, older how many of these began before
    they were watched. Times are nanoseconds since 1970.
    """

    namespace: str
    kind: str
    name: str
    container: str
    calls: dict[str, set[str]] = field(default_factory=dict)
    compat: dict[str, set[str]] = field(default_factory=dict)
    odd: bool = False
    containers: int = 0
    older: int = 0
    first: int = 0
    last: int = 0

    def __str__(self) -> str:
        if not self.name:
            return self.container
        return f"{self.namespace}/{self.name}" + (f" ({self.container})" if self.container != self.name else "")

    @property
    def names(self) -> set[str]:
        """All calls, of whatever machine and programs."""
        return set().union(*self.calls.values(), *self.compat.values())


@dataclass
class HeardCalls:
    """What the agents told: workloads in a fixed order, nodes, and remarks."""

    workloads: list[CallingWorkload]
    nodes: list[str]
    notes: list[str]


def hear(targets: Targets, seconds: float = ANSWER_SECONDS, labels: str = "") -> HeardCalls:
    """Every agent's workloads, of pods with such labels, those of several nodes as one.

    An agent that fails becomes a note; GadgetError if all do.
    """
    parse_labels(labels)
    found: dict[tuple[str, ...], CallingWorkload] = {}
    heard, failures = HeardCalls([], [], []), list[GadgetError]()

    def one(target: str) -> list[pb.SyscallsReply] | GadgetError:
        try:
            replies = list(ask(targets.reach(target), "Syscalls", pb.SyscallsRequest(labels=labels), seconds))
            _check(replies)
            if labels and not replies[0].head.by_labels:
                raise Unsupported(f"{target}: its agent is too old for -l: see `kubectl gadget version`")
        except GadgetError as error:
            return error
        except ValueError as error:
            return malformed(target, error)
        return replies

    with ThreadPoolExecutor(16) as pool:
        for target, answer in zip(targets, pool.map(one, targets), strict=True):
            if isinstance(answer, GadgetError):
                failures.append(answer)
                heard.notes.append(f"without the calls of {target}: {answer}")
                continue
            node, head = answer[0].node, answer[0].head
            heard.nodes.append(node)
            heard.notes += [f"{node}: {each.count:,} {each.reason}" for each in head.losses[:MOST_LOSSES] if each.count]
            for told in (each for reply in answer for each in reply.workloads):
                _add(found, head.machine, told)
    if not heard.nodes:
        raise failures[0] if failures else Unreachable("no agent answered")
    heard.workloads = [found[key] for key in sorted(found)]
    return heard


def _check(replies: Sequence[pb.SyscallsReply]) -> None:
    """ValueError unless one agent's replies make sense."""
    if not replies or replies[0].head.machine not in syscalls.MACHINES:
        raise ValueError("of a machine that nobody knows")
    if sum(len(reply.workloads) for reply in replies) > MOST_WORKLOADS:
        raise ValueError(f"more than {MOST_WORKLOADS:,} workloads")
    for each in (each for reply in replies for each in reply.workloads):
        if (
            max(len(each.calls), len(each.compat_calls)) > _BYTES
            or not 0 <= each.older <= each.containers
            or not 0 < each.first_ns < _MOST_NS
            or not 0 < each.last_ns < _MOST_NS
            or not each.container
        ):
            raise ValueError("of a workload that makes no sense")


def _add(found: dict[tuple[str, ...], CallingWorkload], machine: str, told: pb.WorkloadCalls) -> None:
    kind, _, name = told.workload.partition("/")
    who = (told.namespace, kind, name, told.container)
    own = found.setdefault(who, CallingWorkload(*who))
    for bits, table, into in (
        (told.calls, syscalls.table(machine), own.calls),
        (told.compat_calls, syscalls.compat_table(machine), own.compat),
    ):
        numbers = set(_numbers(bits))
        own.odd = own.odd or bool(numbers - table.keys())
        if names := {table[number].name for number in numbers & table.keys()}:
            into.setdefault(machine, set()).update(names)
    own.containers += told.containers
    own.older += told.older
    own.first = min(own.first or told.first_ns, told.first_ns)
    own.last = max(own.last, told.last_ns)


def _numbers(bits: bytes) -> Iterator[int]:
    return (at * 8 + bit for at, byte in enumerate(bits) for bit in range(8) if byte >> bit & 1)


def choose(
    workloads: Iterable[CallingWorkload], namespaces: Sequence[str], names: Sequence[str], containers: Sequence[str]
) -> list[CallingWorkload]:
    """The workloads in namespaces, of names such as cart or deploy/cart; all where nothing is named.

    UsageError for a name that none of them has.
    """
    among = [each for each in workloads if _is_listed(each.namespace, namespaces)]
    among = [each for each in among if _is_listed(each.container, containers)]
    names = _words(names)
    for name in names:
        if not any(_is_called(each, name) for each in among):
            others = {each.name or each.container for each in among}
            raise UsageError(asked(f"no workload {name!r} was seen there", name.rpartition("/")[2], others))
    return [each for each in among if not names or any(_is_called(each, name) for name in names)]


def _words(listed: Sequence[str]) -> list[str]:
    return [word for each in listed for word in each.split(",") if word]


def _is_listed(name: str, listed: Sequence[str]) -> bool:
    words = _words(listed)
    wanted = [word for word in words if word[0] != "!"]
    return f"!{name}" not in words and (not wanted or name in wanted)


def _is_called(workload: CallingWorkload, name: str) -> bool:
    kind, slash, own = name.rpartition("/")
    if not slash:
        return name in (workload.name or workload.container,)
    singular = re.sub(r"s$", "", kind.lower()) if kind.lower() not in _SHORT else kind.lower()
    return own == workload.name and workload.kind.lower() in (_SHORT.get(singular, singular), kind.lower())
