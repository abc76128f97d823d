"""Alerts as batches of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.detect.judging import Judging
from gadget._generated import gadget_pb2 as pb


def alerts_reply(
    node: str, now_ns: int, alerts: Sequence[pb.Alert], judging: Judging, losses: Iterable[pb.Loss]
) -> pb.RunReply:
    """A batch of alerts; losses are all so far, none if they are as before."""
    reply = pb.RunReply(node=node, sent_ns=now_ns)
    reply.batch.judged = judging.judged
    reply.batch.alerts.extend(alerts)
    reply.batch.containers.extend(judging.named())
    reply.batch.losses.extend(losses)
    return reply
