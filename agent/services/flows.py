"""The flow recorder as a service: who talks to whom."""

from __future__ import annotations

from agent.domains import Follower
from agent.flows.recorder import FlowRecorder
from agent.flows.service import FlowsService
from agent.flows.settings import Settings
from agent.service import Service, ServiceContext


def _begin(context: ServiceContext, settings: Settings) -> FlowsService:
    recorder = FlowRecorder(context.tracker, context.pins / "flows", context.state / "flows", settings)
    follower = Follower(recorder.names, context.runs, context.tracker, context.budget) if settings.names else None
    return FlowsService(context.node, context.tracker, recorder, follower=follower)


SERVICE = Service(
    "flows",
    Settings,
    _begin,
    lambda context, why_not: FlowsService(context.node, context.tracker, None, why_not),
    is_on=lambda settings: settings.on,
    kept=True,
)
