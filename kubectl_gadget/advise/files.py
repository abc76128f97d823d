"""Files of --output-dir."""

from __future__ import annotations

from pathlib import Path

from gadget.errors import GadgetError


def write_file(path: Path, text: str) -> None:
    """Write a file, in a folder that is made if need be. GadgetError if the disk refuses."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise GadgetError(f"--output-dir {path}: {error.strerror}") from None
