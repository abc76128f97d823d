"""make screens: the pictures of docs/screens.md, of commands in a real terminal (tmux) beside real containers."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.conftest import CLI, Agent, wait_until, why_no_kernel
from tests.leftovers import alone
from tests.pods import Pod, link

#: Which docs/screens.md shows.
PICTURES = Path(__file__).parents[1] / "docs/screens"
CART = """
while /bin/sleep 0.7; do
  /bin/cat /etc/cart/prices.yaml /var/lib/cart/releases/2026-11-28/config/overrides/prices.yaml || /bin/migrate --all
  for port in 8080 6379; do echo GET / | /bin/busybox timeout 1 /bin/busybox nc 10.77.0.2 $port; done
done"""
WEB = """
mkdir /www; echo ok > /www/index.html; /bin/busybox httpd -p 8080 -h /www
while /bin/sleep 0.9; do /bin/cat /proc/uptime; /bin/sh -c 'true reload'; done"""
FAILS = "/bin/cat /etc/thumb.conf; /bin/sleep 0.2; exit 3"


@dataclass(frozen=True)
class Screen:
    """One picture: a command, on a terminal of columns times lines; until what it shows is there, live: then Ctrl-C."""

    name: str
    columns: int
    command: str
    until: str = "nothing lost"
    lines: int = 12
    live: bool = False


SCREENS = (
    Screen("execsnoop-100", 100, "execsnoop -A --max-events 6"),
    Screen("execsnoop-200", 200, "execsnoop -A --max-events 6"),
    Screen("opensnoop-80", 80, "opensnoop -n shop --failed --max-events 6"),
    Screen("tcpconnect-80", 80, "tcpconnect -A --max-events 6"),
    Screen("tcpconnect-200", 200, "tcpconnect -A --max-events 6"),
    Screen("count-80", 80, "opensnoop -A --count-by comm,path", " in 6 s;", live=True),
    Screen("list-80", 80, "traceloop list", "running"),
    Screen("containers-80", 80, "containers", "running"),
    Screen("status-80", 80, "status", "ready"),
)


class Terminal:
    """A shell in tmux. A context manager."""

    def __init__(self, folder: Path, name: str, columns: int, lines: int) -> None:
        """Start it, in which `kubectl gadget` is found below folder."""
        self._socket = folder / name  # of its own: the server of the last one may not have ended yet
        path = f"{folder / 'bin'}:{os.environ['PATH']}"
        shell = f"env -u NO_COLOR -u COLUMNS -u LINES TERM=screen-256color PATH={shlex.quote(path)} PS1='$ ' sh"
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(lines), shell)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._tmux("kill-server")

    def _tmux(self, *args: str) -> str:
        command = ["tmux", "-S", str(self._socket), *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def type(self, text: str) -> None:
        """Press these keys, and Enter."""
        self._tmux("send-keys", "-l", text)
        self._tmux("send-keys", "Enter")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._tmux("send-keys", "C-c")

    def shown(self, *, colours: bool = False) -> str:
        """What it shows."""
        return self._tmux("capture-pane", "-p", *(["-e"] if colours else []))


@contextmanager
def machine(folder: Path) -> Iterator[str]:
    """Containers and an agent; gives its address."""
    with ExitStack() as stack:
        bpffs = folder / "bpf"
        bpffs.mkdir()
        stack.callback(_unmount, bpffs)
        (folder / "agent").mkdir()
        agent = Agent(folder / "agent", "--bpffs", str(bpffs), "--state", str(folder / "state"), "--no-flows")
        stack.callback(agent.stop)
        cart = stack.enter_context(Pod(folder, "shop", "cart-6c9f7d5b8-x2x7l"))
        web = stack.enter_context(Pod(folder, "web", "web-0"))
        thumb = stack.enter_context(Pod(folder, "shop", "thumb-0"))
        wait = "/bin/busybox sh -c 'until /bin/busybox ip addr | /bin/busybox grep -q 10.77; do /bin/sleep 0.2; done'"
        first = cart.container("cart", "sh", "-c", wait + CART)
        second = web.container("nginx", "sh", "-c", wait + WEB)
        thumb.container("thumb", "sh", "-c", FAILS).wait()
        link(first, second)
        yield agent.address


def _unmount(bpffs: Path) -> None:
    shutil.rmtree(bpffs / "gadget", ignore_errors=True)
    subprocess.run(["umount", bpffs], check=False)


def take(screen: Screen, folder: Path) -> str:
    """What a screen shows, with its colours."""
    with Terminal(folder, screen.name, screen.columns, screen.lines) as terminal:
        wait_until(lambda: "$" in terminal.shown(), "the shell")
        terminal.type(f"kubectl gadget {screen.command}")
        try:
            wait_until(lambda: screen.until in terminal.shown(), f"{screen.until!r} of {screen.command}", 60)
        except AssertionError:
            sys.stderr.write(terminal.shown())
            raise
        if not screen.live:
            wait_until(lambda: terminal.shown().rstrip().endswith("$"), f"the end of {screen.command}")
        shown = terminal.shown(colours=True)
        if screen.live:
            terminal.interrupt()
            wait_until(lambda: terminal.shown().rstrip().endswith("$"), f"the end of {screen.command}")
        return shown


def draw(screen: Screen, shown: str) -> None:
    """Write a screen as a picture."""
    console = Console(record=True, width=screen.columns, height=screen.lines, file=io.StringIO())
    console.print(Text.from_ansi(shown.rstrip().removesuffix("$").rstrip()), no_wrap=True, crop=False)
    PICTURES.mkdir(exist_ok=True)
    title = f"kubectl gadget {screen.command}"
    (PICTURES / f"{screen.name}.svg").write_text(console.export_svg(title=title, unique_id=screen.name))


def main() -> None:
    """Take all of them."""
    if reason := why_no_kernel():
        sys.exit(f"screens: tracing {reason}")
    with tempfile.TemporaryDirectory() as name, alone(), machine(Path(name)) as address:
        folder = Path(name)
        (folder / "bin").mkdir()
        kubectl = folder / "bin" / "kubectl"
        kubectl.write_text(f'#!/bin/sh\nshift\nexec {shlex.quote(str(CLI))} "$@" --agent {address}\n')
        kubectl.chmod(0o755)
        for screen in SCREENS:
            shown = take(screen, folder)
            sys.stdout.write(f"{screen.name}\n{shown.rstrip()}\n")
            draw(screen, shown)


if __name__ == "__main__":
    main()
