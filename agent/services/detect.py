"""Rules that judge what happens on this node, as a service."""

from __future__ import annotations

from agent.detect.service import Detect
from agent.detect.settings import Settings
from agent.service import Service, ServiceContext
from gadget.errors import Unsupported


def _begin(context: ServiceContext, settings: Settings) -> Detect:
    from agent.detect.always import Always  # and all that rules need, which an agent without does without

    return Detect(context, Always(context, settings))


SERVICE = Service(
    "detect",
    Settings,
    _begin,
    lambda context, why_not: Detect(context, None, why_not),
    is_on=lambda settings: bool(settings.rules),
    lacking=(Unsupported, OSError),
)
