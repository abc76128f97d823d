"""The flight recorder as a service: the last system calls of every container."""

from __future__ import annotations

from agent.service import Service, ServiceContext
from agent.traceloop import recorder
from agent.traceloop.recorder import Recorder
from agent.traceloop.redact import Redactor
from agent.traceloop.service import TraceloopService
from agent.traceloop.settings import Settings


def _begin(context: ServiceContext, settings: Settings) -> TraceloopService:
    wanted = settings.record or frozenset()
    made = Recorder(
        context.tracker,
        recorder.RecorderSettings(
            context.pins / "traceloop",
            context.state / "traceloop",
            lambda container: not wanted or container.namespace in wanted,
            settings.memory << 20,
            kept_seconds=settings.bad_end_seconds,
        ),
    )
    redactor = Redactor(context.redact) if context.redact else None
    return TraceloopService(context.node, made, redactor, labels=context.labels, settings=settings)


SERVICE = Service(
    "traceloop",
    Settings,
    _begin,
    lambda context, why_not: TraceloopService(context.node, None, None, why_not),
    is_on=lambda settings: settings.record is not None,
    memory=lambda settings: settings.memory << 20,
    kept=True,
)
