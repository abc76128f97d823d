"""What may be set of standing runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.limits import STANDING_RUNS
from agent.settings import setting


@dataclass(frozen=True)
class Settings:
    """Of standing runs."""

    runs: Path = setting(
        Path("/etc/gadget/runs.d"), "Folder of files NAME.toml, each a standing run.", option="--runs", metavar="PATH"
    )
    keep: int = setting(
        64,
        "What all standing runs may keep, in files below --state; one alone a quarter of it.",
        unit="MiB",
        least=1,
        option="--runs-keep",
        metavar="MIB",
    )
    most_runs: int = setting(
        STANDING_RUNS,
        "Standing runs at once; a story has one for each kind. Each holds a thread, and a run with its rings unless "
        "another client asks for the same.",
        unit="runs",
        least=1,
        option="",
    )
    most_files: int = setting(64, "Files of definitions that are looked at.", unit="files", least=1, option="")
    look_seconds: float = setting(
        2.0, "How often the folder of definitions is looked at.", unit="s", least=0.01, option=""
    )
    again_seconds: float = setting(
        5.0, "How long after a run could not begin, or ended, it is tried again.", unit="s", least=0.01, option=""
    )
