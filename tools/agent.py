"""The table of settings in docs/agent.md."""

from __future__ import annotations

from typing import Any

from agent.main import AgentCommand
from agent.settings import NamedSetting, settings_of
from tools import DOCS, replaced

PAGE = DOCS / "agent.md"


def page() -> str:
    """The page, with its generated part as it should be."""
    return replaced(PAGE.read_text(), "settings", _tables())


def _tables() -> str:
    parts = []
    for section, kind in AgentCommand().sections.items():
        if rows := [_row(each, kind) for each in settings_of(section, kind) if not each.about.hidden]:
            head = ["| key | option | default | meaning |", "|---|---|---|---|"]
            parts.append("\n".join([f"### `[{section}]`", "", *head, *rows]))
    return "\n\n".join(parts)


def _row(named: NamedSetting, kind: type) -> str:
    value = getattr(kind(), named.field)
    default = named.about.shown or _written(named, value)
    unit = f" {named.about.unit}" if named.about.unit else ""
    metavar = named.about.metavar or ("" if named.kind is bool else "…")
    option = f"`{f'{named.option} {metavar}'.strip()}`" if named.option else ""
    return f"| `{named.key}` | {option.replace('|', ' or ')} | {default}{unit} | {named.about.doc} |"


def _written(named: NamedSetting, value: Any) -> str:
    if value in ("", ()):
        return "none"
    if named.kind is bool:
        return str(value).lower()
    return f"{value:g}" if named.kind is float else str(value)
