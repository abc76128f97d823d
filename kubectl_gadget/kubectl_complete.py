"""kubectl_complete-gadget, which kubectl runs to complete the words after `kubectl gadget`."""

from __future__ import annotations

import sys

from click.shell_completion import ShellComplete

from gadget.text import escape
from kubectl_gadget.cli import PROGRAM, cli
from kubectl_gadget.tell import write_line

NO_FILES = ":4"  # ShellCompDirectiveNoFileComp, spf13/cobra completions.go


def main() -> None:
    """Print a candidate a line, with its help behind a tab, then the directive."""
    arguments = sys.argv[1:] or [""]
    complete = ShellComplete(cli, {}, PROGRAM, "")
    for item in complete.get_completions(arguments[:-1], arguments[-1]):
        sys.stdout.write(f"{escape(item.value)}\t{escape(item.help)}\n" if item.help else f"{escape(item.value)}\n")
    write_line(NO_FILES)
