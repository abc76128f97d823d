"""Runs the project's daemons, and ends them by a signal."""

from __future__ import annotations

import os
import signal
import sys

import click

from gadget.errors import GadgetError


class Stopped:
    """Whether a daemon is to end.

    It is a pipe into which a signal's number is written in whichever thread the signal comes
    (`signal.set_wakeup_fd`). A handler alone runs only when the main thread runs Python again, which a wait keeps it
    from: one that came just before the wait, or to another thread, would never be heard.
    """

    def __init__(self) -> None:
        """SIGTERM and SIGINT say so from now on. For the main thread."""
        self._read, self._write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._write, False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def say(self) -> None:
        """Let the daemon end."""
        os.write(self._write, b"\n")

    def wait(self) -> None:
        """Wait until the daemon is to end."""
        os.read(self._read, 1)


def run(command: click.Command) -> None:
    """Run the command; errors are one line and their exit code."""
    try:
        command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except (GadgetError, OSError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code if isinstance(error, GadgetError) else 1)
