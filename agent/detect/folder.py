"""Rule files of folders, as they are now."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.detect.rules import load
from agent.files import read_regular
from gadget.errors import GadgetError, UsageError

if TYPE_CHECKING:
    from gadget.rules.ruleset import Ruleset

log = logging.getLogger(__name__)

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


class Followed:
    """The rules of folders, looked at again and again. refused: why those that are there now are not taken."""

    def __init__(self, places: Sequence[str], source: str) -> None:
        """Follow rules about events of a source."""
        self._places, self._source = places, source
        self._files: Files | None = None  # what was last looked at
        self.refused = ""

    def look(self) -> Ruleset | None:
        """The rules of the folders if they have changed and can be loaded, else None."""
        try:
            files = read(self._places)
            if files == self._files:
                return None
            self._files = files
            rules = load(files, source=self._source)
        except (GadgetError, OSError) as error:
            why = str(error)
            if isinstance(error, OSError):
                self._files = None  # it may be there the next time
                why = f"{error.filename}: {error.strerror}" if error.filename else why
            if self.refused != why:
                log.warning("detect: %s", why)
            self.refused = why
            return None
        self.refused = ""
        log.info("detect: %d rules of %s", len(rules.rules), ", ".join(self._places))
        return rules

    def problem(self, rules: Ruleset | None) -> str:
        """Why older rules than the folders' are at work; empty if the folders' rules are."""
        refused = "the rules before go on, as new ones are refused" if rules else "refused"
        return f"{refused}: {self.refused}" if self.refused else ""
