"""Another agent on the machine, with recorders and streams that begin and end: `pytest -p tests.beside tests/kernel`.

What the tests of this project promise must not depend on being the only ones to have programs in the kernel.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = Path(sys.executable).parent
GADGETS = ("execsnoop", "opensnoop", "tcpconnect", "tcptracer")
#: A stream that begins and ends again and again, so that programs come and go.
SHORT = ("tcpconnect", "--timeout", "1s")


@pytest.fixture(scope="session", autouse=True)
def beside() -> Iterator[None]:
    """An agent of somebody else, whose recorders and streams run as long as the tests."""
    with tempfile.TemporaryDirectory(prefix="beside-") as name:
        address = f"unix://{name}/agent.sock"
        own = ("--bpffs", f"{name}/bpf", "--state", f"{name}/state")
        Path(name, "bpf").mkdir()
        command = (PROGRAMS / "gadget-agent", "--listen", address, "--node", "beside", *own)
        with Path(name, "log").open("w") as log:
            agent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert agent.stdout
        assert agent.stdout.readline().startswith("listening"), Path(name, "log").read_text()
        streams = [_stream(address, gadget) for gadget in GADGETS]
        enough = threading.Event()

        def come_and_go() -> None:
            while not enough.wait(0.5):
                _stream(address, *SHORT).wait()

        churn = threading.Thread(target=come_and_go, name="beside")
        churn.start()
        yield
        enough.set()
        churn.join()
        for process in (*streams, agent):
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        subprocess.run(["rm", "-rf", f"{name}/bpf/gadget"], check=True)
        subprocess.run(["umount", f"{name}/bpf"], check=True)


def _stream(address: str, *command: str) -> subprocess.Popen[bytes]:
    null = subprocess.DEVNULL
    words = (PROGRAMS / "kubectl-gadget", *command, "-A", "--agent", address)
    return subprocess.Popen(words, stdout=null, stderr=null, env={**os.environ, "KUBECONFIG": "/dev/null"})
