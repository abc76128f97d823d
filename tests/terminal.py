"""A terminal of our own, on which a command line runs."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A command on a pseudo-terminal, standard output and error alike. A context manager that ends it."""

    def __init__(self, *command: str, columns: int = 100, lines: int = 40, **options: Any) -> None:
        """Start command; options are Popen's."""
        self._fd, other = pty.openpty()
        self._lines = lines
        self.resize(columns)
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        environment |= {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        streams = {"stdin": other, "stdout": other, "stderr": other} | options
        self.process = subprocess.Popen(command, env=environment, start_new_session=True, **streams)
        os.close(other)
        self._data = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def resize(self, columns: int) -> None:
        """Give it another width."""
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", self._lines, columns, 0, 0))

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        os.close(self._fd)

    def _read(self) -> None:
        with suppress(OSError):  # the other end is closed
            while chunk := os.read(self._fd, 65536):
                self._data += chunk

    @property
    def raw(self) -> str:
        """All that was written so far."""
        return bytes(self._data).decode(errors="replace")

    @property
    def lines(self) -> Sequence[str]:
        """The lines written so far, also those that later ones have replaced; without colours and the like."""
        return [line.rstrip() for line in re.split(r"[\r\n]+", _CONTROL.sub("", self.raw)) if line.strip()]

    @property
    def has_cursor(self) -> bool:
        """Whether the cursor can be seen."""
        return self.raw.rfind("\x1b[?25h") >= self.raw.rfind("\x1b[?25l")

    def wait(self, seconds: float = 30.0) -> int:
        """Wait for the command's end, and give its exit code."""
        code = self.process.wait(seconds)
        self._reader.join(seconds)
        return code
