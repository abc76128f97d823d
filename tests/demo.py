"""make demo: execsnoop on two real containers for about ten seconds."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.conftest import CLI, why_no_kernel
from tests.pods import Pod

SECONDS = 10
CART = "while /bin/sleep 1.3; do /bin/ls /etc/cart.conf || /bin/migrate --all; done 2>/dev/null"
WEB = "while /bin/sleep 0.9; do /bin/cat /proc/uptime; /bin/sh -c 'true reload'; done"
PODS = (("shop", "cart-6c9f7d5b8-x2x7l", "cart", CART), ("web", "web-0", "nginx", WEB))


def main() -> None:
    """Start two pods, show what they start, and clean up, also on Ctrl-C."""
    if reason := why_no_kernel():
        sys.exit(f"demo: tracing {reason}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for namespace, pod, name, script in PODS:
            stack.enter_context(Pod(folder, namespace, pod)).container(name, "sh", "-c", script)
        command = ["execsnoop", "--local"]
        print(f"$ kubectl gadget {' '.join(command)}", flush=True)
        shown = subprocess.Popen([CLI, *command, "--timeout", f"{SECONDS}s"])
        try:
            shown.wait()
        except KeyboardInterrupt:
            shown.wait()


if __name__ == "__main__":
    main()
