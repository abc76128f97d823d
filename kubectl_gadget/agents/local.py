"""Local mode: the agent of this machine, running already or started for the life of a command."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from gadget.errors import GadgetError, Unsupported
from kubectl_gadget.agents.sockets import socket_root
from kubectl_gadget.tell import tell

AGENT_SOCKET = Path("/run/gadget/agent.sock")
START_SECONDS, SILENT_SECONDS = 20.0, 3.0
#: How long its end is waited for. Whoever interrupts does not wait for one that still starts: it ends by itself then.
END_SECONDS, INTERRUPTED_SECONDS = 10.0, 0.3
#: capabilities(7), linux/capability.h
_CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}


def _may_trace() -> bool:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        raise Unsupported("--local traces this machine, which must run Linux") from None
    held = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    has = {name: bool(held >> bit & 1) for name, bit in _CAPABILITIES.items()}
    return has["CAP_SYS_ADMIN"] or (has["CAP_BPF"] and has["CAP_PERFMON"])


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def running_agent() -> str:
    """The address of the agent that serves this machine; empty if none does."""
    return f"unix://{AGENT_SOCKET}" if _answers(AGENT_SOCKET) else ""


def need_agent(lacking: str, more: str = "") -> str:
    """The address of the agent that serves this machine. Unsupported if none does: then something is lacking."""
    if address := running_agent():
        return address
    how = f"as root: gadget-agent --listen unix://{AGENT_SOCKET}"
    raise Unsupported(f"no agent runs on this machine, so {lacking}: start one, {how}{more}")


@contextmanager
def local_agent() -> Iterator[Callable[[], str]]:
    """Gives a function that waits for the address of this machine's agent.

    Starts one, and ends it, if none serves at AGENT_SOCKET.
    """
    if address := running_agent():
        yield lambda: address
        return
    if not _may_trace():
        raise Unsupported("--local needs root (CAP_BPF, CAP_PERFMON): run it with sudo")
    # the agent removes the folder too, once its socket is gone: it outlives a command line that is killed
    with (
        tempfile.TemporaryDirectory(prefix="gadget-", dir=socket_root(), ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as log,
    ):
        address = f"unix://{folder}/agent.sock"
        # its end of stdin closes when this process ends, in whatever way, and with it the agent
        agent = subprocess.Popen(
            # -P: nothing is imported from the working directory, which may be anybody's
            [
                sys.executable,
                "-P",
                "-m",
                "agent",
                "--listen",
                address,
                "--end-with-stdin",
                "--log-level",
                "error",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the command line, which ends the agent in order
        )
        assert agent.stdin
        patience = END_SECONDS
        try:
            yield Ready(agent, address, log)
        except KeyboardInterrupt:
            patience = INTERRUPTED_SECONDS
            raise
        finally:
            agent.stdin.close()
            try:
                agent.wait(patience)
            except subprocess.TimeoutExpired:
                if patience == END_SECONDS:
                    agent.kill()
                    agent.wait()


class Ready:
    """Waits for an agent that was just started, which says once that it is ready. Any thread may ask, any time."""

    def __init__(self, agent: subprocess.Popen[bytes], address: str, log: BinaryIO) -> None:
        """Wait for an agent that serves at address and writes its errors to log."""
        self._agent, self._address, self._log = agent, address, log
        self._lock = threading.Lock()
        self._is_ready = False

    def __call__(self) -> str:
        """Its address, once it serves. GadgetError if it does not in time."""
        with self._lock:
            if not self._is_ready:
                self._wait()
                self._is_ready = True
        return self._address

    def _wait(self) -> None:
        assert self._agent.stdout
        ready, _, _ = select.select([self._agent.stdout], [], [], SILENT_SECONDS)
        if not ready:
            tell("waiting for the local agent")
            ready, _, _ = select.select([self._agent.stdout], [], [], START_SECONDS - SILENT_SECONDS)
        if ready and os.read(self._agent.stdout.fileno(), 4096):
            return
        self._agent.kill()
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        raise GadgetError((said[-1] if said else "the local agent did not start").removeprefix("error: "))
