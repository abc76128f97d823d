"""The command line: kubectl-gadget."""

import gadget as _gadget  # noqa: F401  # first: it has others leave what nobody uses
