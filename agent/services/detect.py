"""Rules that judge what happens on this node, as a service."""

from __future__ import annotations

from dataclasses import dataclass

from agent.detect.service import Detect
from agent.service import Context, Running, Service


@dataclass(frozen=True)
class Settings:
    """None."""


def _begin(context: Context, settings: Settings) -> Running:
    return Detect(context)


SERVICE = Service("detect", Settings, _begin, lambda context, why_not: Detect(context), for_one_command=True)
