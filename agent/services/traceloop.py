"""The flight recorder as a service: the last system calls of every container."""

from __future__ import annotations

from dataclasses import dataclass

from agent.service import Context, Service
from agent.settings import setting
from agent.traceloop import recorder
from agent.traceloop.recorder import KEPT_SECONDS, TOTAL_BYTES, Recorder
from agent.traceloop.redact import Redactor
from agent.traceloop.service import TraceloopService
from gadget.selector import parse_recorded


@dataclass(frozen=True)
class Settings:
    """Of the flight recorder."""

    record: frozenset[str] | None = setting(
        frozenset(),
        "Whose last system calls to keep. The annotation kubectl-gadget/traceloop: off leaves a pod out.",
        option="--traceloop",
        read=parse_recorded,
        metavar="all|off|NAMESPACE,…",
        shown="all",
    )
    memory: int = setting(
        TOTAL_BYTES >> 20,
        "Memory for all recordings, at most; each takes about 0.5 MiB.",
        unit="MiB",
        least=1,
        metavar="MIB",
    )
    bad_end_seconds: float = setting(
        KEPT_SECONDS,
        "How long the recording of a bad end stays, even if room is needed: a person may be about to look.",
        unit="s",
        least=0,
        option="",
    )


def _begin(context: Context, settings: Settings) -> TraceloopService:
    wanted = settings.record or frozenset()
    made = Recorder(
        context.tracker,
        recorder.Settings(
            context.pins / "traceloop",
            context.state / "traceloop",
            lambda container: not wanted or container.namespace in wanted,
            settings.memory << 20,
            kept_seconds=settings.bad_end_seconds,
        ),
    )
    redactor = Redactor(context.redact) if context.redact else None
    return TraceloopService(context.node, made, redactor, labels=context.labels)


SERVICE = Service(
    "traceloop",
    Settings,
    _begin,
    lambda context, why_not: TraceloopService(context.node, None, None, why_not),
    is_on=lambda settings: settings.record is not None,
    memory=lambda settings: settings.memory << 20,
    kept=True,
)
