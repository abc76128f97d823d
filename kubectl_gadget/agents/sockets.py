"""Where the sockets of a command can be."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gadget.errors import GadgetError

#: A socket's name has room for 107 bytes, 103 on macOS (unix(7)); ours are shorter than this below their folder.
ROOM = 103
LONGEST_BELOW = 32


def socket_root() -> Path:
    """The folder for temporary files, or another if its name is too long for a socket. GadgetError if there is none."""
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if len(os.fsencode(folder)) + LONGEST_BELOW <= ROOM and os.access(folder, os.W_OK | os.X_OK):
            return Path(folder)
    raise GadgetError(f"TMPDIR is too long for sockets ({tempfile.gettempdir()}): set it to a shorter one")
