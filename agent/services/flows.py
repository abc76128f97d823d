"""The flow recorder as a service: who talks to whom."""

from __future__ import annotations

from dataclasses import dataclass

from agent.flows.recorder import FlowRecorder
from agent.flows.service import FlowsService
from agent.flows.table import ENTRIES
from agent.service import Context, Service
from agent.settings import setting


@dataclass(frozen=True)
class Settings:
    """Of the flow recorder."""

    on: bool = setting(True, "Record who talks to whom, for `advise network-policy`.", option="--flows")
    limit: int = setting(ENTRIES, "Flows kept at most, of 200 bytes each.", unit="flows", least=64, metavar="N")


def _begin(context: Context, settings: Settings) -> FlowsService:
    recorder = FlowRecorder(context.tracker, context.pins / "flows", context.state / "flows", settings.limit)
    return FlowsService(context.node, context.tracker, recorder)


SERVICE = Service(
    "flows",
    Settings,
    _begin,
    lambda context, why_not: FlowsService(context.node, context.tracker, None, why_not),
    is_on=lambda settings: settings.on,
    kept=True,
)
