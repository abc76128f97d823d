"""kubectl_complete-gadget, which kubectl runs to complete the words after `kubectl gadget`."""

from __future__ import annotations

import sys

from click.shell_completion import ShellComplete

from kubectl_gadget.cli import PROGRAM, cli

NO_FILES = ":4"  # ShellCompDirectiveNoFileComp, spf13/cobra completions.go


def main() -> None:
    """Print a candidate a line, with its help behind a tab, then the directive."""
    arguments = sys.argv[1:] or [""]
    complete = ShellComplete(cli, {}, PROGRAM, "")
    for item in complete.get_completions(arguments[:-1], arguments[-1]):
        print(f"{item.value}\t{item.help}" if item.help else item.value)
    print(NO_FILES)
