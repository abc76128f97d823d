"""What may be set of the numbers for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass

from agent.settings import setting


@dataclass(frozen=True)
class Settings:
    """Settings of the numbers for Prometheus."""

    listen: str = setting(
        "",
        "Serve numbers for Prometheus at HOST:PORT/metrics, to whoever can reach it.",
        option="--metrics",
        metavar="HOST:PORT",
    )
    most_connections: int = setting(4, "Connections that are served at once.", unit="connections", least=1, option="")
    seconds: float = setting(5.0, "How long a client may take for its request.", unit="s", least=0.1, option="")
