"""The rules that come with it."""

from __future__ import annotations

from importlib.resources import files as resources


def files() -> list[tuple[str, str]]:
    """The files in the order in which they are loaded: how messages call each, and its text."""
    found = sorted(
        (each for each in resources(__name__).iterdir() if each.name.endswith(".yaml")), key=lambda each: each.name
    )
    return [(f"default/{each.name}", each.read_text()) for each in found]
