"""Standing runs as a service: they go on without a client."""

from __future__ import annotations

from agent.service import Service, ServiceContext
from agent.standing.service import StandingRuns, StandingService
from agent.standing.settings import Settings
from gadget.errors import Unsupported


def _begin(context: ServiceContext, settings: Settings) -> StandingRuns:
    made = StandingService(
        context.node,
        context.runs,
        context.tracker,
        context.budget,
        context.state / "runs",
        settings,
    )
    return StandingRuns(context.node, made)


SERVICE = Service(
    "standing",
    Settings,
    _begin,
    lambda context, why_not: StandingRuns(context.node, None, why_not),
    lacking=(Unsupported, OSError),
)
