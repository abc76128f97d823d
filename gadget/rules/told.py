"""What rules may ask of events beside what these say, as messages tell it.

Who records is told it in the same messages as who judges the recording, so that both get the same alerts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from gadget._generated import gadget_pb2 as pb
from gadget.container_facts import ContainerFacts, Mount
from gadget.endpoints import unmapped
from gadget.rules.alerts import dumps
from gadget.rules.containers import Unknown, container_field
from gadget.rules.processes import ANCESTORS, Ancestor, Key, KnownProcess
from gadget.rules.sections import decoded

#: What is remembered of each kind; the oldest go first.
MOST = 65_536


@dataclass(frozen=True)
class ToldNames:
    """The names of a container; empty where they are not known."""

    id: str = ""
    runtime: str = ""
    namespace: str = ""
    pod: str = ""
    name: str = ""
    pod_uid: str = ""


@dataclass(frozen=True)
class KnownContainer:
    """A container as it was told. chosen: its alerts are asked for."""

    facts: ContainerFacts = field(default_factory=lambda: ContainerFacts(ToldNames()))
    chosen: bool = True

    def get(self, key: str, /) -> Any:
        """The value of a field; None if it is missing."""
        return container_field(self.facts, key)


class ToldSurroundings:
    """The surroundings of processes: see gadget/rules/processes.py."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._containers: OrderedDict[int, KnownContainer | Unknown | None] = OrderedDict()
        self._names: OrderedDict[tuple[int, bool, int], str] = OrderedDict()
        self._addresses: OrderedDict[tuple[int, bytes], tuple[str, ...]] = OrderedDict()
        self._running: list[KnownProcess] = []
        self._found: dict[int, KnownProcess] = {}

    def is_new(self, message: pb.ToldContainer) -> bool:
        """Whether a container is new, or has changed since it was last sent."""
        known = self._containers.get(message.cgroup_id, self)
        return known is self or known != _container(message)

    def take(self, told: pb.Told) -> None:
        """Take in what comes with a batch. ValueError or TypeError if it makes no sense."""
        for one in told.containers:
            _keep(self._containers, one.cgroup_id, _container(one))
        for name in told.names:
            _keep(self._names, (name.cgroup_id, name.group, name.number), name.name)
        for each in told.addresses:
            _keep(self._addresses, (each.cgroup_id, unmapped(each.address)), tuple(each.names))
        self._running = _processes(told.running)
        self._found = {line.processes[0].pid: of_line(line) for line in told.found if line.processes}

    def container(self, cgroup_id: int) -> KnownContainer | Unknown | None:
        """The container of a cgroup; None outside containers."""
        return self._containers.get(cgroup_id, Unknown())

    def user(self, cgroup_id: int, pid: int, uid: int) -> str | None:
        """The name of a user, as the container of the process has it."""
        return self._names.get((cgroup_id, False, uid))

    def group(self, cgroup_id: int, pid: int, gid: int) -> str | None:
        """The name of a group, likewise."""
        return self._names.get((cgroup_id, True, gid))

    def domains(self, cgroup_id: int, address: bytes) -> tuple[str, ...]:
        """The names for which the container got an address."""
        return self._addresses.get((cgroup_id, unmapped(address)), ())

    def process(self, pid: int) -> KnownProcess | None:
        """A process as it was then."""
        return self._found.get(pid)

    def running(self) -> Iterable[KnownProcess]:
        """All that ran at the beginning."""
        return self._running


def _keep(known: OrderedDict[Any, Any], key: object, value: object) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > MOST:
        known.popitem(last=False)


# containers


def tell_container(message: pb.ToldContainer, facts: ContainerFacts) -> None:
    """Put what is known of a container into a message."""
    names = {name: getattr(facts.container, name) for name in ToldNames.__dataclass_fields__}
    others = {name: getattr(facts, name) for name in ContainerFacts.__dataclass_fields__ if name != "container"}
    mounts = None if facts.mounts is None else [[*each] for each in facts.mounts]
    labels = None if facts.labels is None else dict(facts.labels)
    message.facts_json = dumps({**others, "container": names, "mounts": mounts, "labels": labels})


def _container(message: pb.ToldContainer) -> KnownContainer | Unknown | None:
    if message.unknown:
        return Unknown()
    if not message.facts_json:
        return None
    found = orjson.loads(message.facts_json)
    facts = ContainerFacts(
        **{
            **found,
            "container": ToldNames(**found["container"]),
            "mounts": None if found["mounts"] is None else tuple(Mount(*each) for each in found["mounts"]),
        }
    )
    return KnownContainer(facts, message.chosen)


# processes


def tell_process(message: pb.ToldProcess, process: KnownProcess) -> None:
    """Put a process into a message; its ancestors but the first one's number are told of in others."""
    message.pid, message.start, message.number = process.key
    message.parent = process.ancestors[0].key.pid if process.ancestors else 0
    message.name = _bytes(process.name)
    message.has_arguments = process.arguments is not None
    message.arguments.extend(map(_bytes, process.arguments or ()))
    message.path, message.cwd = _bytes(process.path or ""), _bytes(process.cwd or "")
    message.vpid, message.pgid, message.sid, message.vpgid = process.vpid, process.pgid, process.sid, process.vpgid


def tell_line(message: pb.ToldLine, process: KnownProcess) -> None:
    """Put a process and its ancestors into a message."""
    above = [
        KnownProcess(each.key, each.name, (), each.arguments, each.path, vpid=each.vpid) for each in process.ancestors
    ]
    line = [process, *above]
    for one, parent in zip(line, [*above, None], strict=True):
        tell_process(message.processes.add(), replace(one, ancestors=(parent.as_ancestor(),) if parent else ()))


def of_line(message: pb.ToldLine) -> KnownProcess:
    """The first process of a line, with the others as its ancestors."""
    return _processes(message.processes)[0]


def _processes(messages: Sequence[pb.ToldProcess]) -> list[KnownProcess]:
    by_pid = {each.pid: (_process(each), each.parent) for each in messages}
    made = list(by_pid.values())
    for one, parent in made:
        one.ancestors = tuple(_above(by_pid, parent))
    return [one for one, _ in made]


def _above(by_pid: Mapping[int, tuple[KnownProcess, int]], pid: int) -> Iterator[Ancestor]:
    for _ in range(ANCESTORS):
        if pid not in by_pid:
            return
        one, pid = by_pid[pid]
        yield one.as_ancestor()


def _process(message: pb.ToldProcess) -> KnownProcess:
    made = KnownProcess(Key(message.pid, message.start, message.number), decoded(message.name))
    made.arguments = tuple(map(decoded, message.arguments)) if message.has_arguments else None
    made.path, made.cwd = decoded(message.path) or None, decoded(message.cwd) or None
    made.vpid, made.pgid, made.sid, made.vpgid = message.vpid, message.pgid, message.sid, message.vpgid
    made.memfd = made.path.startswith("/memfd:") if made.path else None
    return made


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
