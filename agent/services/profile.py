"""Where time goes, of CPUs and of threads that wait, as a service: `profile` and `offcpu` ask."""

from __future__ import annotations

from dataclasses import dataclass

from agent.profile.service import Profiles
from agent.service import Service


@dataclass(frozen=True)
class Settings:
    """None."""


SERVICE = Service(
    "profile",
    Settings,
    lambda context, settings: Profiles(context),
    lambda context, why_not: Profiles(context),
    for_one_command=True,
)
