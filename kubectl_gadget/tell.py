"""Messages to the user, beside the rows that outputs write: lines without anything that a terminal obeys."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from gadget.text import escape
from kubectl_gadget.output import in_place, terminal
from kubectl_gadget.progress import make_room
from kubectl_gadget.stderr import has_room, write_error
from kubectl_gadget.text import width, wrap


def tell(text: str) -> None:
    """Say something in a line on standard error; on a terminal, where it may be too long, lines end between words."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns if sys.stderr.isatty() else 0
    except (OSError, ValueError):
        columns = 0
    safe = escape(text)
    make_room()
    write_error("\n".join(wrap(safe, columns)) if 0 < columns < width(safe) else safe)


def write_line(text: str, colour: str = "") -> None:
    """Write a line to standard output, in a colour if that takes any."""
    click.echo(line_of(text, colour), nl=False, color=True)


def line_of(text: str, colour: str = "") -> str:
    """A line for standard output, in a colour if that takes any."""
    line = escape(text)
    return f"{colour}{line}{terminal.PLAIN}\n" if colour and terminal.has_colours() else f"{line}\n"


def write_json(line: str) -> None:
    """Write a line of JSON to standard output."""
    click.echo(json_of(line), nl=False)


def json_of(line: str) -> str:
    """A line of JSON for standard output; what would move a cursor as JSON's own escapes, which say the same."""
    safe = line if line.isprintable() else "".join(each if each.isprintable() else _escaped(each) for each in line)
    return f"{safe}\n"


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def write_lines(text: str) -> None:
    """Write lines to standard output, each with its end."""
    click.echo("\n".join(map(escape, text.split("\n"))), nl=False)


def end_line() -> None:
    """Let what is told next begin in a line of its own: a terminal has just shown ^C. For a signal handler, too.

    What is drawn in its place removes the line with ^C, too.
    """
    with suppress(OSError):
        if os.isatty(2) and not in_place.stands() and has_room():
            os.write(2, b"\n")
