"""Numbers for Prometheus as a service, where somebody asks for them."""

from __future__ import annotations

from agent.metrics.settings import Settings
from agent.service import Running, Service, ServiceContext


def _begin(context: ServiceContext, settings: Settings) -> Running:
    from agent.metrics.service import MetricsService  # prometheus_client, where it is wanted

    return MetricsService(context, settings)


class _Off(Running):
    """Nobody is served."""

    def __init__(self, why_not: str) -> None:
        self._why_not = why_not

    def describe(self) -> str:
        """Why, if somebody is to be."""
        return f"off: {self._why_not}" if self._why_not else ""


SERVICE = Service(
    "metrics",
    Settings,
    _begin,
    lambda context, why_not: _Off(why_not),
    is_on=lambda settings: bool(settings.listen),
)
