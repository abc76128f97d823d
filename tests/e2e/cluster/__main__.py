"""Runs a command in a cluster of its own: KUBECONFIG and PATH are set, and the current folder is kept.

As a user of it sees it: the command is in the network where the API server listens, as root, and what it changes in
mounts and interfaces is gone afterwards.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.e2e.cluster.binaries import cache, kubernetes_binaries
from tests.e2e.cluster.control_plane import ControlPlane
from tests.e2e.cluster.images import make_images
from tests.leftovers import alone

#: Not below /tmp, which may be in memory: it holds the nodes' containers.
FOLDER = Path("/var/tmp/kubectl-gadget-e2e")
CGROUPS = Path("/sys/fs/cgroup")
BPFFS = Path("/sys/fs/bpf")


def main() -> int:
    """Prepare what needs the network, enter namespaces, and clean up after them."""
    if len(sys.argv) < 2 or os.geteuid():
        sys.exit("usage, as root: python -m tests.e2e.cluster COMMAND [ARGUMENT...]")
    cache().mkdir(parents=True, exist_ok=True)
    with alone():
        return run_alone()


def run_alone() -> int:
    """What only one process of this machine may do at a time."""
    for other in in_the_way():
        print(f"cluster: another agent runs on this machine, which makes it slower: {other}", file=sys.stderr)
    binaries, images = kubernetes_binaries(), make_images()
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    clean()  # what a killed one left
    os.symlink(images, FOLDER / "images")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(128 + signal.SIGTERM))
    namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    # if this process is killed, so is unshare, and with it the first process of the namespaces
    command = ["setpriv", "--pdeathsig=KILL", *namespaces, sys.executable, "-c", INSIDE, str(binaries), *sys.argv[1:]]
    cluster = subprocess.Popen(command)
    try:
        while True:
            with suppress(KeyboardInterrupt):  # it went to the command too, which ends in its own time
                return cluster.wait()
    finally:
        cluster.kill()
        cluster.wait()
        clean()
        FOLDER.rmdir()


INSIDE = "from tests.e2e.cluster.__main__ import inside; inside()"


def inside() -> None:
    """The first process of the namespaces: adopts and reaps what daemons leave behind, until the command has ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    worker = os.fork()
    if worker == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os._exit(run_in_cluster(Path(sys.argv[1]), sys.argv[2:]))
    while True:
        pid, status = os.wait()
        if pid == worker:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def run_in_cluster(binaries: Path, command: list[str]) -> int:
    """Bring the cluster up, run the command, and give its exit code."""
    began = time.monotonic()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    unmount_all(BPFFS)
    try:
        control_plane = ControlPlane(FOLDER, binaries)
        control_plane.start()
    except RuntimeError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"cluster: up in {time.monotonic() - began:.1f} s", flush=True)
    settings = {"KUBECONFIG": str(FOLDER / "admin.kubeconfig"), "PATH": f"{binaries}:{os.environ['PATH']}"}
    asked, ask = os.pipe()
    settings["E2E_CONTROL"] = str(ask)
    threading.Thread(target=_do_as_asked, args=(asked, control_plane), daemon=True).start()
    process = subprocess.Popen(command, env=os.environ | settings, pass_fds=[ask])
    while True:
        with suppress(KeyboardInterrupt):
            code = process.wait()
            return code if code >= 0 else 128 - code


def _do_as_asked(asked: int, control_plane: ControlPlane) -> None:
    """End the API server for each `-` that the command writes, start it again for each `+`, have a node join for each `>`
    and break for each `<`, one after the other.
    """
    plane = control_plane
    deeds = {b"-": plane.stop_api_server, b"+": plane.start_api_server, b">": plane.add_node, b"<": plane.remove_node}
    while what := os.read(asked, 1):
        deeds[what]()


def unmount_all(place: Path) -> None:
    """Take away what this machine has mounted at a place, in our own mount namespace: nodes mount theirs there."""
    while any(line.split()[1] == str(place) for line in Path("/proc/self/mounts").read_text().splitlines()):
        subprocess.run(["umount", "--lazy", place], check=True)


def in_the_way() -> list[str]:
    """What else of this machine the cluster will notice: agents, whose programs and recordings cost every node."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_text().split("\0")
            if any(word.endswith("/gadget-agent") for word in words[:2]):
                found.append(f"process {process.name}: {' '.join(words).strip()}")
    return found


def clean() -> None:
    """Remove the cgroups and files of a cluster that has ended."""
    for hierarchy in [CGROUPS, *CGROUPS.iterdir()]:
        for folder, _, _ in os.walk(hierarchy / "gadget-e2e", topdown=False):
            _remove_cgroup(folder)
    for path in FOLDER.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _remove_cgroup(folder: str) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            return os.rmdir(folder)
        except OSError:  # its last processes are still being ended
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
