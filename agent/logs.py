"""What the agent says on standard error: JSON for programs, text for people."""

from __future__ import annotations

import logging
import sys

import orjson

from agent.files import printable

LEVELS = ("debug", "info", "warning", "error")


class TextFormatter(logging.Formatter):
    """Writes lines for people. Text that others chose, such as a name, cannot control the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as text."""
        text = f"{record.levelname.lower()} {record.name}: {printable(record.getMessage())}"
        if record.exc_info:
            text += "\n" + printable(self.formatException(record.exc_info))
        shown = "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in text)
        return f"{self.formatTime(record, '%H:%M:%S')} {shown}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """A record as JSON."""
        entry = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": printable(record.getMessage()),
        }
        if record.exc_info:
            entry["exception"] = printable(self.formatException(record.exc_info))
        return orjson.dumps(entry).decode()


def log_to_stderr(level: str) -> None:
    """Log messages from a level on: text on a terminal, JSON otherwise."""
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter() if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
