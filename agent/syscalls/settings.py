"""What may be set of the recorder of system calls."""

from __future__ import annotations

from dataclasses import dataclass

from agent.settings import setting


@dataclass(frozen=True)
class Settings:
    """Of the recorder of system calls."""

    on: bool = setting(
        True, "Record which system calls workloads make, for `advise seccomp-profile`.", option="--syscalls"
    )
    limit: int = setting(1024, "Containers at once, at most, of 1 KiB each.", unit="containers", least=16, metavar="N")
    keep: int = setting(
        2048, "Containers of workloads that are remembered, also when they are gone.", unit="containers", least=16,
        option="",
    )  # fmt: skip
    care_seconds: float = setting(
        5.0, "How often what the kernel has seen is taken over, and cgroups of the host are removed.", unit="s",
        least=0.1, option="",
    )  # fmt: skip
