"""What passes through a run, as messages."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import orjson

from agent.clock import clock_offset
from agent.containers.identity import Container
from agent.containers.tracker import Cgroup, Tracker
from agent.run.batch import Batch, Loss
from agent.run.run import BEAT_SECONDS
from agent.run.subscriber import Subscriber
from agent.selection import SELECTS, Selection
from gadget import CONTRACT
from gadget._generated import gadget_pb2 as pb
from gadget.catalog import Gadget


def is_wanted(tracker: Tracker, selection: Selection, item: Cgroup) -> bool:
    """Whether a container is chosen, or may be."""
    container = item.container
    return container is not None and selection.decide(container, tracker.labels(container)) is not False


def started_reply(node: str, gadget: Gadget | None, tracker: Tracker | None, selection: Selection) -> pb.RunReply:
    """The first message: what events look like, if they are sent, and the containers that are chosen, or may be."""
    chosen = {
        item.id: item.container
        for item in (tracker.containers() if tracker else ())
        if tracker and not item.ended and item.container and is_wanted(tracker, selection, item)
    }
    started = pb.Started(
        schema=orjson.dumps(gadget.schema.to_json()).decode() if gadget else "",
        containers=container_messages(chosen),
        contract=CONTRACT,
        beat_ms=int(BEAT_SECONDS * 1000),
        selects=SELECTS,
    )
    return pb.RunReply(node=node, started=started, sent_ns=time.time_ns())


def batch_reply(node: str, batch: Batch) -> pb.RunReply:
    """A batch, made in place: a message that is put into another one is copied, with all its rows."""
    reply = pb.RunReply(node=node, sent_ns=batch.read_ns)
    while batch.sections:  # and freed when it has been: gRPC will make two more
        reply.batch.sections.add(**vars(batch.sections.pop(0)))
    reply.batch.containers.extend(container_messages(batch.containers))
    reply.batch.losses.extend(loss_messages(batch.losses or []))
    reply.batch.clock_offset_ns = clock_offset()
    if batch.whole:
        reply.batch.table, reply.batch.table_ns, reply.batch.table_cut = batch.whole
    return reply


def summary_reply(node: str, subscriber: Subscriber) -> pb.RunReply:
    """The last message."""
    events, losses, containers, undecided = subscriber.summary()
    summary = pb.Summary(
        events=events, losses=loss_messages(losses), containers=container_messages(containers), undecided=undecided
    )
    return pb.RunReply(node=node, summary=summary, sent_ns=time.time_ns())


def container_messages(known: Mapping[int, Container]) -> list[pb.Container]:
    """Containers by cgroup, as messages."""
    return [
        pb.Container(
            cgroup_id=cgroup_id,
            namespace=container.namespace,
            pod=container.pod,
            container=container.name,
            id=container.id,
            runtime=container.runtime,
        )
        for cgroup_id, container in known.items()
    ]


def loss_messages(losses: Sequence[Loss]) -> list[pb.Loss]:
    """Losses, as messages."""
    return [pb.Loss(reason=loss.reason, cgroup_id=loss.cgroup_id, count=loss.count) for loss in losses]
