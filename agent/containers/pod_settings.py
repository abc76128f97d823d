"""What may be set of the watch of pods. An agent without a cluster does not import agent/containers/pods.py."""

from __future__ import annotations

from dataclasses import dataclass

from agent.settings import setting


@dataclass(frozen=True)
class Settings:
    """Of the watch of this node's pods."""

    watch_seconds: int = setting(
        300,
        "After this time, or up to twice as long, the API server ends a watch, so not all nodes begin anew at once.",
        unit="s",
        least=1,
        option="",
    )
    silent_seconds: float = setting(
        90.0,
        "A watch that says nothing for so long is begun again: it may be dead. A bookmark comes each minute.",
        unit="s",
        least=0.1,
        option="",
    )
    first_wait_seconds: float = setting(
        0.5,
        "How long the API server is left alone after it failed. It doubles each time.",
        unit="s",
        least=0.01,
        option="",
    )
    most_wait_seconds: float = setting(30.0, "Up to this long.", unit="s", least=0.01, option="")
    line_bytes: int = setting(
        8 << 20,
        "The most bytes of a pod as JSON. As a rule it has 8 KB, and never more than a few MB: etcd takes 1.5 MiB.",
        unit="bytes",
        least=1024,
        option="",
    )
    page_bytes: int = setting(
        64 << 20,
        "The most bytes of a list of pods. Most API servers answer from memory, with all of them at once.",
        unit="bytes",
        least=1024,
        option="",
    )
