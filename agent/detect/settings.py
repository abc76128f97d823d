"""What may be set of rules that always judge."""

from __future__ import annotations

from dataclasses import dataclass

from agent.settings import setting

#: The gadget whose events are judged, and the folder of what is kept.
GADGET = "detect"


@dataclass(frozen=True)
class Settings:
    """Settings of rules that always judge."""

    rules: tuple[str, ...] = setting(
        (),
        "Judge always, by the .yaml files of a folder, or by `default`, the rules that come with it. Repeatable.",
        option="--detect",
        metavar="DIR",
    )
    first: bool = setting(False, "Of the rules that fire on an event only the first one counts.")
    host: bool = setting(False, "Also what processes outside containers do.")
    keep: int = setting(16, "What alerts may take, in files below --state.", unit="MiB", least=1, metavar="MIB")
    look_seconds: float = setting(2.0, "How often the folder is looked at.", unit="s", least=0.01, option="")
    again_seconds: float = setting(
        5.0, "How long after a failure rules are asked again.", unit="s", least=0.01, option=""
    )
