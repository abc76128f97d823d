"""The flow log as a service: what became of each connection of containers, kept always."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.service import Active, Number, Running, Service, ServiceContext
from agent.settings import setting
from agent.standing.service import only_ours, remove_left
from agent.standing.standing import StandingRun
from agent.threads import Worker
from gadget._generated import gadget_pb2 as pb
from gadget.errors import Unsupported

NAME = "observe"
MIB = 1 << 20
#: A flow has two rows of 500 bytes: room for 8,000 that come at once.
RING_BYTES = 8 * MIB
#: What of the rows is counted for Prometheus, as --metric has it.
COUNTED = ("namespace,protocol,type,verdict", "rtt:namespace")


@dataclass(frozen=True)
class Settings:
    """Of the flow log."""

    on: bool = setting(True, "Keep what became of each connection of containers, for `observe`.", option="--observe")
    keep: int = setting(16, "What flows may take, in files below --state.", unit="MiB", least=1, metavar="MIB")
    again_seconds: float = setting(
        30.0, "How long after it could not begin it tries again.", unit="s", least=0.01, option=""
    )


class FlowLog(Running):
    """A standing run that nobody has to make. Without settings there is none, and why_not says why."""

    def __init__(self, context: ServiceContext, settings: Settings | None, why_not: str = "") -> None:
        """Go on with what an earlier agent kept.

        Raises:
            Unsupported: Another agent of this machine does.
            OSError: Nothing can be kept.

        """
        self._node, self._why_not = context.node, why_not
        self._run: StandingRun | None = None
        self._folder, self._lock_fd = context.state / NAME, -1
        if settings is None:
            return
        self._most = settings.keep * MIB
        self._lock_fd = only_ours(self._folder)
        try:
            self._run = StandingRun(
                pb.Standing(
                    name=NAME,
                    start=pb.Start(gadget=NAME, ring_bytes=RING_BYTES),
                    metrics=COUNTED if "metrics" in context.on else (),  # for each batch half a millisecond
                ),
                "",
                self._folder,
                self._most,
                settings.again_seconds,
                context.runs,
                context.node,
                context.tracker,
                context.budget,
                lambda: None,
            )
        except BaseException:
            os.close(self._lock_fd)
            raise

    def describe(self) -> str:
        """How many it keeps, in how much."""
        if self._run is None:
            return f"off: {self._why_not}" if self._why_not else ""
        rows, size, _ = self._run.history.kept
        return f"{rows} rows of flows kept in {size / MIB:.1f} of {self._most // MIB} MiB"

    def problem(self) -> str:
        """Why it does not run, or not all is kept."""
        return self._run.problem if self._run else ""

    def losses(self) -> Mapping[str, int]:
        """What it should have kept."""
        return {"flows lost": self._run.lost} if self._run else {}

    def numbers(self) -> Iterator[Number]:
        """Its rows."""
        for each in self._run.counting.numbers() if self._run else ():
            if each.buckets:
                doc = "Round-trip times of connections as TCP had them last."
                yield Number("flow_rtt_seconds", doc, each.value, each.labels, each.buckets)
            else:
                yield Number("flow_rows_total", "Rows of the flow log.", each.value, each.labels)

    @property
    def workers(self) -> Sequence[Worker]:
        """Its thread."""
        return [self._run.worker] if self._run else []

    def beginnings(self) -> Mapping[str, Callable[[Any, Active], Iterator[pb.RunReply]]]:
        """A client may read it."""
        return {NAME: self._read}

    def _read(self, request: pb.Attach, active: Active) -> Iterator[pb.RunReply]:
        if self._run is None:
            why = self._why_not or "off by --no-observe, or the agent is one of --local, which ends with its command"
            raise Unsupported(f"no flow log on {self._node}: {why}")
        if not self._run.history.kept[1]:
            raise Unsupported(f"{self._node} has kept no flows: {self._run.problem or 'it has just begun'}")
        for reply in self._run.history.read(request.since_ns, request.follow, active):
            reply.node = self._node
            yield reply

    def end(self) -> None:
        """End, and leave nothing on disk but what another agent of this machine keeps there."""
        self.close()
        self._why_not = "it has been removed there"
        remove_left(self._folder)

    def close(self) -> None:
        """End; what it kept stays."""
        run, self._run = self._run, None
        if run:
            run.close()
            os.close(self._lock_fd)


SERVICE = Service(
    NAME,
    Settings,
    FlowLog,
    lambda context, why_not: FlowLog(context, None, why_not),
    is_on=lambda settings: settings.on,
    lacking=(Unsupported, OSError),
)
