"""What core tests share inside a guest: the machine under test, and the events of a gadget on it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from agent.containers.tracker import Tracker
from agent.run.batch import Batch
from agent.run.runs import begin
from agent.selection import Selection
from gadget import catalog
from gadget._generated import gadget_pb2 as pb
from gadget.kinds.numbers import Named
from gadget.rows import Decoder
from kubectl_gadget.output import all_fields
from tests.pods import BareContainer

WORKLOAD = Path("/workload")
CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x40000000, 0x8914, 1  # linux/sched.h, linux/sockios.h, linux/if.h
Row = dict[str, Any]


class Busy(Exception):
    """The kernel skipped a program because it was running on that CPU already, and said how often.

    That is a loss that users are told of, and says nothing of the kernel: the case is tried again. An interrupt, or
    since Linux 7.0 preemption, comes at such a moment more often where everything is emulated.
    """


class Stream:
    """A gadget's events of one pod, from entry on."""

    def __init__(self, tracker: Tracker, name: str, pod: str = "cart-0", **settings: str) -> None:
        """Load and attach it."""
        self._gadget = catalog.find(name)
        self._batches: list[Batch] = []
        self._events = begin(self._gadget, settings, tracker, Selection(pods=[pod] if pod else [])).first
        self._thread = Thread(target=lambda: self._batches.extend(self._events.batches()))
        self._thread.start()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._events.finish()
        self._thread.join()
        self._events.close()

    def snapshot(self) -> list[Row]:
        """The rows of a snapshot, which has been taken."""
        while not any(batch.whole for batch in self._batches):
            time.sleep(0.01)
        return self.rows()

    def rows(self) -> list[Row]:
        """End it; every event, with names where a user sees names. Nothing may be lost."""
        self._events.finish()
        self._thread.join()
        losses = self._events.summary().losses
        if any(loss.reason == "program busy" for loss in losses):
            raise Busy
        assert not losses, losses
        decoder, fields = Decoder("guest", self._gadget.schema), all_fields(self._gadget.schema)
        show = {name: field.means.names(field) for name, field in fields.items() if isinstance(field.means, Named)}
        found = []
        for batch in self._batches:
            sections = [pb.Section(**vars(section)) for section in batch.sections]
            containers = [
                pb.Container(cgroup_id=key, namespace=item.namespace, pod=item.pod, container=item.name, id=item.id)
                for key, item in batch.containers.items()
            ]
            packed = pb.Batch(sections=sections, containers=containers)
            for _, values, _ in decoder.rows(packed, list(fields), lambda table: None):
                row = dict(zip(fields, values, strict=True))
                found.append(row | {name: text(row[name]) for name, text in show.items()})
        return found


@contextmanager
def container(pod: str = "cart-0") -> Iterator[BareContainer]:
    made = BareContainer("shop", pod)
    try:
        yield made
    finally:
        made.delete()


class Core:
    """The machine under test."""

    def __init__(self, tracker: Tracker, workloads: Path) -> None:
        self.tracker, self._workloads = tracker, workloads

    def work(self, inside: BareContainer, name: str, *args: str) -> None:
        """Run a workload in a container until it says that it is done, or to its end."""
        shutil.copy(self._workloads / name, WORKLOAD)

        def enter() -> None:
            make_network()
            (inside.cgroup / "cgroup.procs").write_text("0")

        command = [str(WORKLOAD), *args]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd="/tmp", preexec_fn=enter) as process:
            assert process.stdout
            said = process.stdout.readline()
            if said.startswith("done"):
                assert said in ("done\n", "done 0\n"), said
                process.kill()

    def call(self, inside: BareContainer, function: Callable[[], object]) -> None:
        """Call a function in a container."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                (inside.cgroup / "cgroup.procs").write_text("0")
                function()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0


def make_network() -> None:
    """A network for this process alone, in which no port is taken; its loopback is up."""
    assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
