"""Says how the subject of a failure is now, on the node."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence

from kubectl_gadget.why.facts import Component, Facts, FileUser, MountUsage, NodeFacts
from kubectl_gadget.why.findings import plain
from kubectl_gadget.why.noted import Failure

#: linux/capability.h: with these a process is not asked for its rights to files.
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
#: By cause the limits that tell something of it, and what users call them.
_LIMITS = {
    "descriptors": (("nofile", "open files of a process (RLIMIT_NOFILE)"),),
    "processes": (("pids", "processes and threads of its cgroup (pids.max)"), ("nproc", "RLIMIT_NPROC")),
    "memory": (("memory", "memory of its cgroup"), ("as", "address space of a process (RLIMIT_AS)"),
               ("data", "data of a process (RLIMIT_DATA)"), ("memlock", "locked memory (RLIMIT_MEMLOCK)")),
    "oom": (("memory", "memory of its cgroup"),),
    "file-size": (("fsize", "size of a file (RLIMIT_FSIZE)"),),
    "inotify": (("inotify_watches", "fs.inotify.max_user_watches"),
                ("inotify_instances", "fs.inotify.max_user_instances")),
}  # fmt: skip
_PEER = re.compile(r"(?P<host>.*):(?P<port>[0-9]{1,5})", re.DOTALL)
_LOCAL = re.compile(r"127\..*|\[::1\]|0\.0\.0\.0|\[::\]")
_BYTES = frozenset(("memory", "as", "data", "memlock", "fsize"))


def details(facts: Facts, failure: Failure, cause: str) -> Iterator[str]:
    """What the node says of a failure's subject now."""
    live = facts.live
    if live is None:
        return
    parts, mount = live.paths.get(failure.subject, ()), live.mounts.get(failure.subject)
    if failure.error in ("ENOENT", "ENOTDIR") and parts:
        yield _missing(parts)
    elif failure.error in ("EACCES", "EPERM") and parts:
        yield _refused(parts, live.identity)
    if mount and failure.error == "EROFS" and mount.read_only:
        yield f"{plain(mount.path)} is mounted read-only"
    if mount and failure.error in ("ENOSPC", "EDQUOT") and cause == "disk":
        yield _room(mount)
    if who := live.listeners.get(local_port(failure)):
        yield f"{plain(who)} listens there{'' if failure.error == 'EADDRINUSE' else ' now'}"
    yield from limits(live, cause)


def is_peer(failure: Failure) -> bool:
    """Whether a failure is about an address with a port."""
    return not failure.subject.startswith("/") and bool(_PEER.fullmatch(failure.subject))


def local_port(failure: Failure) -> int:
    """The port of the container's own network that a failure is about, taken or with nobody there; 0 if it is not."""
    match = _PEER.fullmatch(failure.subject)
    if not match or not is_peer(failure) or int(match["port"]) > 0xFFFF:
        return 0
    own = failure.error == "EADDRINUSE" or (failure.error == "ECONNREFUSED" and _LOCAL.fullmatch(match["host"]))
    return int(match["port"]) if own else 0


def limits(live: NodeFacts, cause: str) -> Iterator[str]:
    """The limits that tell something of a cause."""
    for name, title in _LIMITS.get(cause, ()):
        if name in live.limits:
            show = size if name in _BYTES else "{:,}".format
            used, limit = live.used.get(name), live.limits[name]
            use = "" if used is None else ", all in use" if used >= limit else f", {show(used)} in use now"
            yield f"{title}: limit {show(limit)}{use}"


def _missing(parts: Sequence[Component]) -> str:
    last = parts[-1]
    if last.exists:
        return f"{plain(last.path)} is there now"
    if last.error:
        return f"{plain(last.path)} cannot be looked at: {plain(last.error, 20)}"
    if last.link:
        return f"{plain(last.path)} is a link to {plain(last.link)}, which is not there"
    above = plain(parts[-2].path) if len(parts) > 1 else "/"
    if len(parts) > 1 and not stat.S_ISDIR(parts[-2].mode):
        return f"{above} is no folder"
    return f"the folder {above} exists" + (f"; it has {_listed(last.names)}" if last.names else ", without it")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(plain(name, 60) for name in names)


def _refused(parts: Sequence[Component], identity: FileUser | None) -> str:
    """The first component that the user may not pass, else the last one; and the user."""
    refusing = next((part for part in parts[:-1] if not _may_pass(part, identity)), parts[-1])
    if not refusing.exists:
        return f"{plain(refusing.path)} cannot be looked at"
    who = f"; it runs as {identity.uid}:{identity.gid}" if identity else ""
    return f"{plain(refusing.path)} has mode {refusing.mode & 0o7777:04o}, owner {refusing.uid}:{refusing.gid}{who}"


def _may_pass(part: Component, identity: FileUser | None) -> bool:
    """Whether the mode of a folder lets somebody through."""
    if identity is None or not part.exists:
        return True
    if identity.capabilities >> _CAP_DAC_OVERRIDE & 1 or identity.capabilities >> _CAP_DAC_READ_SEARCH & 1:
        return True
    shift = 6 if part.uid == identity.uid else 3 if part.gid in (identity.gid, *identity.groups) else 0
    return bool(part.mode >> shift & 1)


def _room(mount: MountUsage) -> str:
    if mount.total_inodes and not mount.free_inodes and mount.free_bytes:
        return f"0 of {mount.total_inodes:,} inodes are free at {plain(mount.path)}"
    return f"{size(mount.free_bytes)} free of {size(mount.total_bytes)} at {plain(mount.path)}"


def size(count: int) -> str:
    """Bytes in the unit that suits them."""
    for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >> shift:
            value = count / (1 << shift)
            return f"{value:.0f} {unit}" if value >= 10 or value == int(value) else f"{value:.1f} {unit}"
    return f"{count} bytes"
