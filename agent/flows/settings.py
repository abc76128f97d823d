"""What may be set of the flow recorder."""

from __future__ import annotations

from dataclasses import dataclass

from agent.settings import setting


@dataclass(frozen=True)
class Settings:
    """Of the flow recorder."""

    on: bool = setting(True, "Record who talks to whom, for `advise network-policy`.", option="--flows")
    names: bool = setting(
        False,
        "Also record for which names pods got the addresses that they connect to: follows all answers of DNS.",
        option="--flows-names",
    )
    limit: int = setting(32_768, "Flows kept at most, of 200 bytes each.", unit="flows", least=64, metavar="N")
    care_seconds: float = setting(
        10.0,
        "How often flows of the host are looked for and removed, even if the table does not fill.",
        unit="s",
        least=0,
        option="",
    )
    full: float = setting(
        0.75, "How full the table gets before the oldest flows are removed: 1 is all of it.", least=0, option=""
    )
    roomy: float = setting(0.5, "How full it is then.", least=0, option="")
