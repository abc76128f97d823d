"""Where the agent listens, and who can reach it there."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path

from agent.files import read_text
from agent.folders import check_place, own_folder
from gadget.errors import GadgetError, UsageError
from gadget.text import host_and_port

DEFAULT = Path("/run/gadget/agent.sock")
UNIX = "unix://"
#: The kubelet's own file, mounted into each container of a pod whatever its network: nothing else looks like it.
_HOSTS = re.compile(r"/pods/[0-9a-f-]{32,36}/etc-hosts /etc/hosts ")
_MOUNTS_BYTES = 1 << 20
#: A sysctl that the machine's first network namespace has alone (net_core_table, net/core/sysctl_net_core.c).
_FIRST_NETWORK = Path("/proc/sys/net/core/netdev_max_backlog")


def in_pod_network(mounts: Path = Path("/proc/self/mountinfo"), first_network: Path = _FIRST_NETWORK) -> bool:
    """Whether loopback here belongs to a pod with its own network, so that no user of the machine can reach it.

    Environment variables and most files do not tell: a shell or a user can have them, too.
    """
    return bool(_HOSTS.search(read_text(mounts, _MOUNTS_BYTES))) and not first_network.exists()


def check_reach(address: str, local_users: bool | None, anywhere: bool | None) -> None:
    """UsageError if an address is no HOST:PORT, or more people could reach it than was meant.

    local_users, anywhere: whether they were meant; None where there is no option to say so.
    """
    parts = host_and_port(address)
    if parts is None:
        raise UsageError(f"--listen {address}: neither {UNIX}/PATH nor HOST:PORT")
    if anywhere:
        return
    if not _is_loopback(parts[0]):
        what = "not a loopback address. Anyone who reaches it may see all that is seen here"
        add = "; add --listen-anywhere if that is meant" if anywhere is not None else ""
        raise UsageError(f"--listen {address}: {what}{add}")
    if not local_users and not in_pod_network():
        path = DEFAULT if local_users is not None else "/PATH"
        what = (
            f"every user of this machine could see all of it there. Listen on {UNIX}{path}, which root alone can open"
        )
        add = "; or add --listen-local-users if that is meant" if local_users is not None else ""
        raise UsageError(f"--listen {address}: {what}{add}")


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


@contextmanager
def place(address: str, local_users: bool | None = None, anywhere: bool | None = None) -> Iterator[None]:
    """A Unix socket's path, or a HOST:PORT that check_reach lets pass: where to serve inside."""
    if address.startswith(UNIX):
        with unix_socket(Path(address.removeprefix(UNIX))):
            yield
    else:
        check_reach(address, local_users, anywhere)
        yield


@contextmanager
def unix_socket(path: Path) -> Iterator[None]:
    """The path for a socket that only this user may open; removed in the end. GadgetError if an agent serves there.

    The caller binds the socket under this process's umask, which must leave no rights to others.
    """
    with socket.socket(socket.AF_UNIX) as probe, suppress(FileNotFoundError, ConnectionRefusedError):
        probe.connect(str(path))
        raise GadgetError(f"an agent listens on {path} already: one is enough for a machine")
    if path == DEFAULT:
        os.close(own_folder(path.parent))
    else:
        check_place(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def close_to_others(address: str) -> None:
    """Leave a Unix socket that is bound to its owner."""
    if address.startswith(UNIX):
        Path(address.removeprefix(UNIX)).chmod(0o600)
