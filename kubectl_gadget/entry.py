"""Where the command begins: Ctrl-C while its modules are imported ends it without a word."""

from __future__ import annotations

import signal


def main() -> None:
    """Import the command line, and run it."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.default_int_handler:  # else it is ignored, as in the background of a script
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kubectl_gadget.cli import main as run

    signal.signal(signal.SIGINT, before)
    run()
