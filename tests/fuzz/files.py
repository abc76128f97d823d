"""Places for files that are made and removed thousands of times."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: In memory where there is such a place.
FOLDER = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())
CONTAINER_ID = "a" * 64


@contextmanager
def file_of(data: bytes) -> Iterator[Path]:
    """A file with data."""
    with tempfile.NamedTemporaryFile(dir=FOLDER) as file:
        file.write(data)
        file.flush()
        yield Path(file.name)
