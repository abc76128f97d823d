"""Gadgets about system calls beside strace: both watch the same programs, and tell the same."""

from __future__ import annotations

import re
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gadget import catalog
from kubectl_gadget.output import all_fields
from tests.conftest import Cli, events, wait_until
from tests.kernel.test_copies import whole_lines

#: What runs, one after the other: each makes calls of its kind a prime number of times, in all the ways that they end.
WORKLOADS = ("binds", "mods", "mounts", "privs", "signals", "passes")
KINDS = {
    "bind": "bindsnoop",
    "listen": "listensnoop",
    "signal": "sigsnoop",
    "mount": "mountsnoop",
    "file": "filemods",
    "priv": "privsnoop",
    "exit": "exitsnoop",
    "fd": "fdpass",
}
#: Ports from here on are those that the kernel chooses.
CHOSEN = 8000
SENDING = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
MOUNTING = {
    "mount": "mount", "umount2": "umount", "fsopen": "fsopen", "fspick": "fspick", "fsmount": "fsmount",
    "move_mount": "move mount", "open_tree": "open tree", "mount_setattr": "mount setattr",
}  # fmt: skip
#: The operations of filemods, each by what its calls begin with when f, l, 2 and at are left out.
CHANGING = {
    "unlink": "unlink", "rename": "rename", "link": "link", "symlink": "symlink", "mkdir": "mkdir", "rmdir": "rmdir",
    "truncate": "truncate", "chmod": "chmod", "chown": "chown", "utime": "utimes", "utimes": "utimes",
    "utimens": "utimes", "utimesat": "utimes", "setxattr": "setxattr", "removexattr": "removexattr",
}  # fmt: skip
PRIVILEGED = {word.replace(" ", "_") for word in all_fields(catalog.find("privsnoop").schema)["call"].values.values()}
CALL = re.compile(r"(\w+)\((.*)\) += (?:-?\d+\S*|\?)(?: (E[A-Z0-9]+) \()?")
END = re.compile(r"\+\+\+ (?:exited with (\d+)|killed by (SIG\w+)(?: \(core dumped\))?) \+\+\+")
ADDRESS = re.compile(r'htons\((\d+)\).*inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"')
PASSED = re.compile(r"cmsg_len=(\d+), cmsg_level=SOL_SOCKET, cmsg_type=SCM_RIGHTS")
#: CMSG_LEN(0), and what each descriptor takes
HEADER_BYTES, DESCRIPTOR_BYTES = 16, 4

Told = tuple[Any, ...]


def by_strace(pid: int, line: str) -> Iterator[Told]:
    """What a line tells: the kind, the process, and what happened."""
    if ended := END.match(line):
        code, number = ended.groups()
        yield "exit", pid, int(code) if code else 128 + signal.Signals[number]
    if not (called := CALL.match(line)):
        return
    name, args, error = called.groups()
    if error == "EOPNOTSUPP":
        error = "ENOTSUP"  # the same number
    changing = re.sub(r"^[lf](?!ile)|at$|at2$|2$", "", name) if name not in CHANGING else name
    if name == "bind" and (address := ADDRESS.search(args)):
        yield "bind", pid, int(address[1]), address[2], error
    elif name == "listen" and "<UNIX" not in args:
        yield "listen", pid, int(args.rpartition(", ")[2]), error
    elif name in SENDING:
        yield "signal", pid, signal_of(name, args), error
    elif name in MOUNTING:
        yield "mount", pid, MOUNTING[name], error
    elif changing in CHANGING:
        removes = name == "unlinkat" and "AT_REMOVEDIR" in args
        yield "file", pid, "rmdir" if removes else CHANGING[changing], error
    elif name in PRIVILEGED and not (name == "bpf" and "ELEM" in args.partition(",")[0]):
        yield "priv", pid, name.replace("_", " "), error
    elif "SCM_RIGHTS" in args:
        way = "send" if name.startswith("send") else "receive"
        for size in PASSED.findall(args):
            yield from [("fd", pid, way)] * ((int(size) - HEADER_BYTES) // DESCRIPTOR_BYTES)


def signal_of(name: str, args: str) -> str:
    """The signal that a call sends, as gadgets have it."""
    text = args.split(", ")[2 if name.endswith("tgsigqueueinfo") or name == "tgkill" else 1]
    return text if text.startswith("SIG") else str(int(text.split()[0], 0))


def by_gadgets(row: dict[str, Any]) -> Told | None:
    """The same of a row; None if it is none of a call."""
    kind, pid = row["kind"], row["pid"]
    match kind:
        case "bind":
            port = row["address"]["port"]
            return kind, pid, port if port < CHOSEN else 0, row["address"]["addr"], row["error"]
        case "listen":
            return kind, pid, row["backlog"], row["error"]
        case "signal":
            return (kind, pid, row["signal"], row["error"]) if row["reason"] == "call" else None
        case "mount" | "file":
            return kind, pid, row["operation"], row["error"]
        case "priv":
            return (kind, pid, row["call"], row["error"]) if "elem" not in row["request"] else None
        case "exit":
            return kind, pid, row["code"]
        case _:
            return kind, pid, row["operation"]


def test_beside_strace(agent, start_cli: Callable[..., Cli], bare, workload, tmp_path: Path) -> None:
    """Of binds, listens, signals, mounts, changes of files, privileged calls, passed descriptors and ends of processes I
    see what strace sees of the same programs, each with its process and its error.
    """
    cli = start_cli("story", "--agent", agent.address, "--kinds", ",".join(KINDS), "-p", "cart-0", "-o", "json")
    started = lambda: all(f"{name}: started" in agent.log.read_text() for name in KINDS.values())  # noqa: E731
    wait_until(started, "the story's start")
    log, procs = tmp_path / "log", bare("shop", "cart-0").cgroup / "cgroup.procs"
    programs = [str(workload(name)) for name in WORKLOADS]
    # strace itself stays outside
    inside = f'echo 0 > {procs} && exec unshare --net sh -c \'ip link set lo up; for each; do "$each"; done\' sh "$@"'
    done = subprocess.run(
        ["strace", "-f", "-yy", "-v", "-s", "256", "-o", log, "sh", "-c", inside, "sh", *programs],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "done\n" * len(WORKLOADS)
    out, err = cli.finish()
    assert "nothing lost" in err, err
    theirs = Counter(
        told for pid, line in whole_lines(log.read_text().splitlines()) for told in by_strace(int(pid), line)
    )
    ours = Counter(filter(None, map(by_gadgets, events(out))))
    assert {kind for kind, *_ in theirs} == KINDS.keys()
    assert ours == theirs, (ours - theirs, theirs - ours)
    assert theirs.total() > 1000
