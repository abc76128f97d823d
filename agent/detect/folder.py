"""Rule files of folders, as they are now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agent.files import read_regular
from gadget.errors import UsageError

DEFAULT = "default"
MOST_FILES = 64
_SUFFIXES = (".yaml", ".yml")

#: Names and texts.
Files = tuple[tuple[str, str], ...]


def read(places: Sequence[str]) -> Files:
    """The rule files of folders by name, and of `default` those that come with it.

    Raises:
        UsageError: A folder has none or too many, or a file is no text or too long.
        OSError: One cannot be read.

    """
    from gadget.rules import default
    from gadget.rules.messages import MOST_RULE_BYTES

    found: list[tuple[str, str]] = []
    for place in places:
        if place == DEFAULT:
            found += default.files()
            continue
        paths = sorted(path for path in Path(place).iterdir() if path.suffix in _SUFFIXES and path.name[0] != ".")
        if not 0 < len(paths) <= MOST_FILES:
            raise UsageError(f"{place}: {len(paths)} .yaml files: want 1 to {MOST_FILES}")
        for path in paths:
            try:
                found.append((path.name, str(read_regular(path, MOST_RULE_BYTES, follow=True), "utf-8")))
            except UnicodeDecodeError as error:
                raise UsageError(f"{path} is no text: byte {error.start} is not UTF-8") from None
    return tuple(found)
