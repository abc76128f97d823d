"""How a daemon of ours is run, and when it ends."""

from __future__ import annotations

import signal
import sys
from queue import SimpleQueue

import click

from gadget.errors import GadgetError

#: Has an item when the daemon is to end. It is no Event, as a signal's handler could not set that safely: if the signal
#: comes while the wait begins, the thread already has the lock that set() needs. SimpleQueue.put needs no lock.
Stopped = SimpleQueue[None]


def stopped_by_signals() -> Stopped:
    """What has an item once SIGTERM or SIGINT has come."""
    stopped: Stopped = SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.put(None))
    return stopped


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
