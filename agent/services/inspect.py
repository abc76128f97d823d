"""What a container that runs is like now, as a service: `why` asks."""

from __future__ import annotations

from dataclasses import dataclass

from agent.inspect.service import Inspector
from agent.service import Service, ServiceContext
from agent.traceloop.redact import Redactor


@dataclass(frozen=True)
class Settings:
    """None."""


def _begin(context: ServiceContext, settings: Settings) -> Inspector:
    mask = Redactor(context.redact).mask if context.redact else None
    return Inspector(context.node, context.tracker, mask)


SERVICE = Service(
    "inspect",
    Settings,
    _begin,
    lambda context, why_not: Inspector(context.node, context.tracker),
    for_one_command=True,
)
