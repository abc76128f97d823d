"""What the flow recorder answers over gRPC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from agent.bpf.bpf_object import Program
from agent.clock import clock_offset
from agent.containers.identity import Container
from agent.containers.tracker import Tracker
from agent.domains import Follower
from agent.flows.pods import NodePod
from agent.flows.recorder import FlowRecorder
from agent.service import Number, Running, ServedCall
from agent.threads import Worker
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unsupported

#: Flows in one message, at about 100 bytes each.
CHUNK = 4096


class FlowsService(Running):
    """Tells the flows."""

    def __init__(
        self,
        node: str,
        tracker: Tracker,
        recorder: FlowRecorder | None,
        why_not: str = "",
        follower: Follower | None = None,
    ) -> None:
        """Answer as node; without a recorder say why there is none. follower: what learns names for the recorder."""
        self._follower = follower
        self._node = node
        self._tracker = tracker
        self._recorder = self._begun = recorder
        self._why_not = why_not or "start its agent with --flows"

    def _on(self) -> FlowRecorder:
        if self._recorder is None:
            raise Unsupported(f"flows are not recorded on {self._node}: {self._why_not}")
        return self._recorder

    def describe(self) -> str:
        """How many flows there are, or why none."""
        if self._recorder is None:
            return f"off: {self._why_not}"
        problem = self._recorder.save_problem
        unsaved = f", names of pods are not saved: {problem}" if problem else ""
        return f"{self._recorder.count()} flows{', no UDP' * bool(self._recorder.udp_problem)}{unsaved}"

    def problem(self) -> str:
        """What keeps names of addresses from being learned."""
        return f"names of addresses: {self._follower.problem}" if self._follower and self._follower.problem else ""

    def read(self) -> Iterator[pb.FlowsReply]:
        """Everything."""
        recorder = self._on()
        notes = [f"UDP is not recorded on {self._node}: {recorder.udp_problem}"] if recorder.udp_problem else []
        pods = recorder.pods()
        objects = {pod.uid: pod.object_uid for pod in pods if pod.object_uid}
        yield pb.FlowsReply(
            node=self._node,
            head=pb.FlowsHead(
                began_ns=recorder.began_ns,
                losses=[pb.Loss(reason=reason, count=count) for reason, count in recorder.losses().items() if count],
                notes=notes,
                addresses=self._tracker.find_addresses(),
            ),
            pods=map(flow_pod, pods),
        )
        ingress = catalog.constants("flows", "direction")["DIRECTION_INGRESS"]
        offset = clock_offset()
        keys, flows, uids = recorder.read()
        names = ("direction", "protocol", "port")
        columns = [keys[name].tolist() for name in names]
        columns += [flows[name].tolist() for name in ("count", "failed", "older", "first", "last")]
        columns += [field.astype("S16").view("V16").tolist() for field in (keys["peer"], flows["local"])]
        made = [
            pb.Flow(
                uid=objects.get(uid, uid),
                ingress=direction == ingress,
                protocol=protocol,
                port=port,
                count=count,
                failed=failed,
                older=older,
                first_ns=first + offset,
                last_ns=last + offset,
                peer=peer,
                local=local,
                names=() if direction == ingress else recorder.names.names(uid, peer),
            )
            for uid, direction, protocol, port, count, failed, older, first, last, peer, local in zip(
                uids, *columns, strict=True
            )
        ]
        for at in range(0, len(made), CHUNK):
            yield pb.FlowsReply(node=self._node, flows=made[at : at + CHUNK])

    def numbers(self) -> Iterator[Number]:
        """How many flows are kept."""
        if self._recorder:
            yield Number("flows", "Flows that are kept.", self._recorder.count())

    def programs(self) -> Sequence[Program]:
        """What the kernel says of the programs that record."""
        return self._recorder.programs() if self._recorder else ()

    def losses(self) -> Mapping[str, int]:
        """How many flows are not in the table, by reason."""
        return self._recorder.losses() if self._recorder else {}

    @property
    def workers(self) -> Sequence[Worker]:
        """The threads that care for the table and learn names."""
        own = (self._begun.worker,) if self._begun else ()
        return (*own, self._follower.worker) if self._follower else own

    def calls(self) -> Sequence[ServedCall]:
        """What clients ask of flows."""
        return (ServedCall("Flows", lambda request, active: self.read(), stream=True, reads=True),)

    def labels(self, container: Container) -> Mapping[str, str] | None:
        """The labels of a container's pod, which may be gone; None if they are not known."""
        return self._recorder.labels(container.pod_uid) if self._recorder else None

    def close(self) -> None:
        """Let go. Recording goes on."""
        if self._follower:
            self._follower.close()
        if self._begun:
            self._begun.close()

    def end(self) -> None:
        """Stop recording, and remove what would outlive this agent."""
        if self._follower:
            self._follower.close()
            self._follower = None
        if self._recorder:
            self._recorder.end()
            self._recorder, self._why_not = None, "it has been removed there"


def flow_pod(pod: NodePod) -> pb.FlowPod:
    """A pod as a message."""
    return pb.FlowPod(
        uid=pod.object_uid or pod.uid,
        namespace=pod.namespace,
        name=pod.name,
        first_ns=pod.first,
        last_ns=pod.last,
        labels=pod.labels,
        owner=pod.owner,
        addresses=pod.addresses,
        host_network=pod.host_network,
        ports=[pb.NamedPort(name=name, protocol=protocol, port=port) for name, protocol, port in pod.ports],
        since_ns=pod.since,
        former=[pb.FormerAddress(address=address, first_ns=first, last_ns=last) for address, first, last in pod.former],
    )
