"""What the recorder of system calls answers over gRPC."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from agent.bpf.bpf_object import Program
from agent.service import Running, ServedCall
from agent.syscalls.recorder import SyscallRecorder
from agent.threads import Worker
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unsupported
from gadget.selector import parse_labels
from gadget.text import counted

#: Workloads in one message, of 300 bytes each.
CHUNK = 1024
#: Bytes of the bits of calls.
_BYTES = 64


class SyscallsService(Running):
    """Tells what workloads call."""

    def __init__(self, node: str, recorder: SyscallRecorder | None, why_not: str = "") -> None:
        """Answer as node; without a recorder say why there is none."""
        self._node = node
        self._recorder = self._begun = recorder
        self._why_not = why_not or "start its agent with --syscalls"

    def describe(self) -> str:
        """How many workloads there are, or why none."""
        if self._recorder is None:
            return f"off: {self._why_not}"
        problem = self._recorder.save_problem
        unsaved = f", not saved: {problem}" if problem else ""
        return f"{counted(self._recorder.count(), 'workload')}{unsaved}"

    def read(self, labels: str = "") -> Iterator[pb.SyscallsReply]:
        """Everything, or what workloads with such labels called."""
        if self._recorder is None:
            raise Unsupported(f"system calls are not recorded on {self._node}: {self._why_not}")
        if labels and not self._recorder.knows_labels:
            raise Unsupported(f"-l needs labels, from the API server, which the agent of {self._node} does not watch")
        wanted = parse_labels(labels)
        found = self._recorder.read()
        if wanted:
            having = self._recorder.having(wanted)
            found = {who: calls for who, calls in found.items() if who in having}
        losses = [pb.Loss(reason=reason, count=count) for reason, count in self._recorder.losses().items() if count]
        yield pb.SyscallsReply(
            node=self._node,
            head=pb.SyscallsHead(
                machine=os.uname().machine, began_ns=self._recorder.began_ns, losses=losses, by_labels=bool(wanted)
            ),
        )
        made = [
            pb.WorkloadCalls(
                namespace=who.namespace,
                workload=who.workload,
                container=who.container,
                calls=each.calls.to_bytes(_BYTES, "little"),
                compat_calls=each.compat.to_bytes(_BYTES, "little"),
                containers=each.containers,
                older=each.older,
                first_ns=each.first,
                last_ns=each.last,
            )
            for who, each in found.items()
        ]
        for at in range(0, len(made), CHUNK):
            yield pb.SyscallsReply(node=self._node, workloads=made[at : at + CHUNK])

    def programs(self) -> Sequence[Program]:
        """What the kernel says of the programs that record."""
        return self._recorder.programs() if self._recorder else ()

    def losses(self) -> Mapping[str, int]:
        """How much is not known, by reason."""
        return self._recorder.losses() if self._recorder else {}

    @property
    def workers(self) -> Sequence[Worker]:
        """The thread that takes over what the kernel notes."""
        return (self._begun.worker,) if self._begun else ()

    def calls(self) -> Sequence[ServedCall]:
        """What clients ask of it."""
        return (ServedCall("Syscalls", lambda request, active: self.read(request.labels), stream=True, reads=True),)

    def close(self) -> None:
        """Let go. Recording goes on."""
        if self._begun:
            self._begun.close()

    def end(self) -> None:
        """Stop recording, and remove what would outlive this agent."""
        if self._recorder:
            self._recorder.end()
            self._recorder, self._why_not = None, "it has been removed there"
