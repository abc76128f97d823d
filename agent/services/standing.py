"""Standing runs as a service: they go on without a client."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.service import Context, Service
from agent.settings import setting
from agent.standing.service import KEEP_BYTES, StandingRuns, StandingService
from gadget.errors import Unsupported


@dataclass(frozen=True)
class Settings:
    """Of standing runs."""

    runs: Path = setting(
        Path("/etc/gadget/runs.d"), "Folder of files NAME.toml, each a standing run.", option="--runs", metavar="PATH"
    )
    keep: int = setting(
        KEEP_BYTES >> 20,
        "What all standing runs may keep, in files below --state.",
        unit="MiB",
        least=1,
        option="--runs-keep",
        metavar="MIB",
    )


def _begin(context: Context, settings: Settings) -> StandingRuns:
    made = StandingService(
        context.node,
        context.runs,
        context.tracker,
        context.budget,
        context.state / "runs",
        settings.runs,
        settings.keep << 20,
    )
    return StandingRuns(context.node, made)


SERVICE = Service(
    "standing",
    Settings,
    _begin,
    lambda context, why_not: StandingRuns(context.node, None, why_not),
    lacking=(Unsupported, OSError),
)
