"""Runs the command line: python -m kubectl_gadget."""

from kubectl_gadget.cli import main

main()
