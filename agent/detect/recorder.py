"""Events of a recording, with what rules may ask of them beside. Who records judges by what the recording says."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from agent.containers.tracker import Tracker
from agent.detect.surroundings import Surroundings
from agent.run.batch import Packed, pack
from agent.selection import Selection
from gadget._generated import gadget_pb2 as pb
from gadget.endpoints import unmapped
from gadget.rules import told
from gadget.rules.alerts import valid
from gadget.rules.live import STATES, names_of_calls
from gadget.rules.processes import KnownProcess
from gadget.rules.sections import Section
from gadget.rules.told import ToldSurroundings
from gadget.schema import Schema

#: Of what waits for the reader, and of the processes that are told of at the beginning.
MOST_BYTES, RUNNING_BYTES = 32 << 20, 4 << 20
#: How often it is asked again what is known of a container: its image and labels come later.
AGAIN_SECONDS = 1.0
_SETUID = "setuid"


class EventRecorder(ToldSurroundings):
    """Records batches, and whatever rules ask about them."""

    def __init__(
        self,
        surroundings: Surroundings,
        tracker: Tracker,
        selection: Selection,
        schema: Schema,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Of events in a schema. Only those of chosen containers, and of processes of all, are recorded."""
        super().__init__()
        self._real, self._tracker, self._selection, self._schema = surroundings, tracker, selection, schema
        names = names_of_calls(schema)
        self._states = np.array([name in STATES for name in names])
        self._setuid = names.index(_SETUID)
        self._told = pb.Told()
        self._due: dict[int, float] = {}
        self._has_begun = False
        self._replies: list[pb.RunReply] = []
        self._bytes, self._most_bytes = 0, most_bytes

    def begin(self) -> None:
        """Record which processes run, as soon as their events come."""
        if not self._has_begun:
            self._has_begun = True
            self._tell_running()
            self.take(self._told)

    def note(self, packed: Sequence[Packed]) -> list[Packed]:
        """What is recorded of a batch; what rules may ask of that is known from here on."""
        found = [Section.of(self._schema, each) for each in packed if each.count]
        for section in found:
            self._tell_containers(np.unique(section.rows["cgroup_id"]).tolist())
        self.take(self._told)  # which are chosen is known now
        kept = [section.only(self._schema, self._chosen(section)) for section in found]
        kept = [section for section in kept if len(section)]
        for section in kept:
            self._tell_names(section)
            self._tell_addresses(section)
        self.begin()
        self.take(self._told)
        return [pack(np.ascontiguousarray(section.bytes)) for section in kept]

    def process(self, pid: int) -> KnownProcess | None:
        """A process as it is now. The recording gets it, too."""
        found = self._real.process(pid)
        if found is None:
            return None
        line = self._told.found.add()
        told.tell_line(line, found)
        return told.of_line(line)

    def put(self, node: str, sections: Iterable[Packed], offset_ns: int, read_ns: int) -> int:
        """Let a batch be sent; gives how many events had no room."""
        reply = pb.RunReply(node=node, sent_ns=read_ns)
        for section in sections:
            reply.batch.sections.add(record_size=section.record_size, count=section.count, rows=section.rows)
        reply.batch.clock_offset_ns = offset_ns
        reply.batch.told.CopyFrom(self._told)
        size = reply.ByteSize()
        if self._bytes + size > self._most_bytes:  # what was told is told with the next one that has room
            return sum(section.count for section in reply.batch.sections)
        self._told = pb.Told()
        self._bytes += size
        self._replies.append(reply)
        return 0

    def taken(self) -> list[pb.RunReply]:
        """Take the batches that wait to be sent."""
        replies, self._replies = self._replies, []
        self._bytes -= sum(reply.ByteSize() for reply in replies)
        return replies

    def _chosen(self, section: Section) -> npt.NDArray[np.bool_]:
        """Which rows are recorded: rules ask for the ancestors of a process wherever they are."""
        distinct, which = np.unique(section.rows["cgroup_id"], return_inverse=True)
        chosen = [
            not isinstance(one := self.container(cgroup), told.KnownContainer) or one.chosen
            for cgroup in distinct.tolist()
        ]
        kept: npt.NDArray[np.bool_] = np.array(chosen, bool)[which] | self._states[section.rows["call"]]
        return kept

    def _tell_containers(self, cgroups: Iterable[int]) -> None:
        now = time.monotonic()
        for cgroup_id in cgroups:
            if now < self._due.get(cgroup_id, 0.0):
                continue
            if len(self._due) >= told.MOST:
                self._due.clear()
            self._due[cgroup_id] = now + AGAIN_SECONDS
            cgroup = self._tracker.resolve(cgroup_id)
            message = pb.ToldContainer(cgroup_id=cgroup_id, unknown=cgroup is None)
            if cgroup and (container := cgroup.container) and not container.sandbox:
                chosen = self._selection.decide(container, self._tracker.labels(container))
                message.chosen = chosen is not False
                if facts := self._tracker.facts(cgroup):
                    told.tell_container(message, facts)
            if self.is_new(message):
                self._told.containers.append(message)

    def _tell_names(self, section: Section) -> None:
        rows = section.rows
        users = [rows["euid"], rows["loginuid"], np.where(rows["call"] == self._setuid, rows["args"][:, 0], 0)]
        for group, numbers in ((False, users), (True, [rows["egid"]])):
            find = self._real.group if group else self._real.user
            pairs = [np.stack([rows["cgroup_id"], each.astype(np.uint64)], axis=1) for each in numbers]
            for cgroup_id, number in np.unique(np.concatenate(pairs), axis=0).tolist():
                number &= 0xFFFF_FFFF
                name = valid(find(cgroup_id, 0, number) or "")
                if name != self._names.get((cgroup_id, group, number), ""):
                    self._told.names.add(cgroup_id=cgroup_id, group=group, number=number, name=name)

    def _tell_addresses(self, section: Section) -> None:
        rows = section.rows
        rows = rows[np.isin(rows["fd_type"], [ord("4"), ord("6")])]
        pairs = {(int(row["cgroup_id"]), bytes(row["dst"]["address"]).ljust(16, b"\0")) for row in _distinct(rows)}
        for cgroup_id, address in pairs:
            if not any(unmapped(address)):
                continue
            names = tuple(map(valid, self._real.domains(cgroup_id, unmapped(address))))
            if names != self.domains(cgroup_id, address):
                self._told.addresses.add(cgroup_id=cgroup_id, address=unmapped(address), names=names)

    def _tell_running(self) -> None:
        size = 0
        for process in self._real.running():
            told.tell_process(self._told.running.add(), process)
            size += self._told.running[-1].ByteSize()
            if size > RUNNING_BYTES:
                return


def _distinct(rows: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """One row for each cgroup and other end."""
    ends = np.ascontiguousarray(rows["dst"]["address"]).view(np.uint64).reshape(len(rows), 2)
    keys = np.column_stack([rows["cgroup_id"], ends])
    _, first = np.unique(keys, axis=0, return_index=True)
    return rows[first]
