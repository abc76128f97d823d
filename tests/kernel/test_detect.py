"""The events that rules judge, on this kernel: each call in its forms, with all that is told of it."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.judged import Rows, watching
from tests.pods import BareContainer, run_in

#: What every event has of its process.
OF_PROCESS = {"timestamp", "cgroup_id", "pid", "tid", "uid", "gid", "comm", "text_length", "start", "exec_id",
              "cap_effective", "cap_permitted", "euid", "egid", "loginuid", "tty"}  # fmt: skip
#: What only events of processes have.
RELATIONS = {"ppid", "parent_start", "parent_exec_id", "vpid", "pgid", "sid", "vpgid"}
OF_FILE = {"exe_ino", "exe_ctime", "exe_mtime"}
CREAT_FLAGS, CREAT = os.O_CREAT | os.O_WRONLY | os.O_TRUNC, os.O_CREAT | os.O_RDWR


def run(container: BareContainer, program: Path, what: str, folder: Path, *flags: str) -> None:
    """Run a workload in a network of its own."""
    up = 'ip link set lo up; exec "$@"'
    run_in(container.cgroup, "unshare", "--net", *flags, "sh", "-c", up, "sh", program, what, program, cwd=folder)


def told(row: dict[str, Any], *others: str) -> dict[str, Any]:
    """What an event says beside its process: what is not empty, without the arguments and others."""
    left_out = OF_PROCESS | {"args", *others}
    said = {name: value for name, value in row.items() if name not in left_out and (value or name == "fd")}
    if row["fd"] == -1:
        del said["fd"]
    if row["result"] < 0:
        said["result"] = errno.errorcode[-row["result"]]
    return said


def calls(rows: Rows, comm: str = "suspect") -> Rows:
    """What the calls of a program say."""
    others = ("fork", "procexit", "change")
    return [told(row) for row in rows if row["comm"] == comm and row["call"] not in others and not row["ppid"]]


def test_files(bare, workload, tmp_path: Path) -> None:
    """Of each call about files I am told the whole paths, flags, permissions, descriptor and result, also in vain."""
    with watching() as rows:
        run(bare(), workload("suspect"), "files", tmp_path)
    path = str(tmp_path)
    file, made, hard, moved, soft, sub = (f"{path}/{name}" for name in ("file", "made", "hard", "moved", "soft", "sub"))
    cut = os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC
    of_file = {"path": file, "fd_type": "f"}
    assert calls(rows) == [
        {"call": "openat", "result": 3, "fd": 3, "fd_type": "d", "flags": os.O_DIRECTORY, "path": f"{path}/."},
        {"call": "open", "result": 4, "fd": 4, "flags": CREAT, "mode": 0o640, **of_file},
        {"call": "open", "result": "ENOENT", "fd_type": "o", "path": f"{path}/none"},
        {"call": "openat", "result": 5, "fd": 5, "flags": cut, **of_file},
        {"call": "openat", "result": "EBADF", "fd_type": "f", "path": "none"},
        {"call": "openat2", "result": 6, "fd": 6, **of_file},
        {"call": "openat2", "result": "ENOENT", "fd_type": "f", "path": f"{path}/none"},
        {"call": "creat", "result": 7, "fd": 7, "flags": CREAT_FLAGS, "mode": 0o751, "path": made, "fd_type": "f"},
        {"call": "creat", "result": "ENOENT", "flags": CREAT_FLAGS, "mode": 0o751, "path": "/not/there",
         "fd_type": "f"},
        {"call": "chmod", "mode": 0o4711, "path": file},
        {"call": "chmod", "result": "ENOENT", "mode": 0o4711, "path": f"{path}/none"},
        {"call": "fchmod", "fd": 4, "mode": 0o755, **of_file},
        {"call": "fchmodat", "mode": 0o600, "path": file},
        {"call": "fchmodat", "mode": 0o640, "path": file},
        {"call": "link", "path": file, "to": hard},
        {"call": "linkat", "result": "ENOENT", "path": file, "to": f"{path}/none/hard"},
        {"call": "symlink", "path": soft, "to": "../etc"},
        {"call": "symlinkat", "result": "EEXIST", "path": soft, "to": "/etc/shadow"},
        {"call": "rename", "path": hard, "to": moved},
        {"call": "renameat", "path": moved, "to": hard},
        {"call": "renameat2", "result": "EEXIST", "path": hard, "to": file},
        {"call": "unlink", "path": hard},
        {"call": "unlinkat", "path": soft},
        {"call": "mkdir", "mode": 0o1711, "path": sub},
        {"call": "mkdirat", "mode": 0o700, "path": f"{sub}/sub"},
        {"call": "rmdir", "result": "ENOTEMPTY", "path": sub},
        {"call": "unlinkat", "path": f"{sub}/sub"},
        {"call": "rmdir", "path": sub},
        {"call": "dup", "result": 8, "fd": 8, **of_file},
        {"call": "dup2", "result": 20, "fd": 20, "path": path, "fd_type": "d"},
        {"call": "dup3", "result": "EBADF"},
    ]  # fmt: skip


def test_sockets(bare, workload, tmp_path: Path) -> None:
    """Of each call about sockets I am told the kind of socket and both its ends, also of connections in vain."""
    with watching() as rows:
        run(bare(), workload("suspect"), "sockets", tmp_path)
    server, client, closed, other = (f"127.0.0.1 700{number}" for number in (1, 2, 3, 4))
    tcp, udp = {"family": 2, "protocol": 6, "fd_type": "4"}, {"family": 2, "protocol": 17, "fd_type": "4"}
    unix, both = {"family": 1, "fd_type": "u"}, {"src": client, "dst": server, "connected": True}
    named, asked = (
        {**unix, "path": path} for path in ("sock", f"{tmp_path}/sock")
    )  # what it is, and what a call names
    seen = calls(rows)
    for each in seen:
        if int(each.get("src", "0").split(" ")[-1]) > 7999:
            del each["src"]  # a port that the kernel chose
    assert seen == [
        {"call": "socket", "result": 3, "fd": 3, **tcp},
        {"call": "bind", "fd": 3, "src": server, **tcp},
        {"call": "bind", "result": "EINVAL", "fd": 3, "src": client, **tcp},
        {"call": "listen", "fd": 3, "src": server, **tcp},
        {"call": "socket", "result": 4, "fd": 4, **tcp},
        {"call": "bind", "fd": 4, "src": client, **tcp},
        {"call": "connect", "fd": 4, **both, **tcp},
        {"call": "accept4", "result": 5, "fd": 5, "src": server, "dst": client, "connected": True, **tcp},
        {"call": "sendto", "result": 5, "fd": 4, **both, **tcp},
        {"call": "dup2", "fd": 0, **both, **tcp},
        {"call": "socket", "result": 6, "fd": 6, **tcp},
        {"call": "connect", "result": "ECONNREFUSED", "fd": 6, "dst": closed, **tcp},
        {"call": "accept", "result": "EAGAIN"},
        {"call": "socket", "result": 7, "fd": 7, **udp},
        {"call": "sendto", "result": 5, "fd": 7, "dst": closed, "name_changed": True, **udp},
        {"call": "sendto", "result": 5, "fd": 7, "dst": closed, **udp},
        {"call": "sendmsg", "result": 5, "fd": 7, "dst": other, "name_changed": True, **udp},
        {"call": "sendmsg", "result": 1, "fd": 7, "dst": closed, "name_changed": True, **udp},  # by sendmmsg(2)
        {"call": "socket", "result": 8, "fd": 8, **udp},
        {"call": "connect", "fd": 8, "dst": closed, "connected": True, **udp},
        {"call": "sendto", "result": 5, "fd": 8, "dst": closed, "connected": True, **udp},
        {"call": "socket", "result": 9, "fd": 9, **udp, "family": 10, "fd_type": "6"},
        {"call": "sendto", "result": 5, "fd": 9, "dst": "::1 7005", "name_changed": True, **udp, "family": 10,
         "fd_type": "6"},
        {"call": "sendto", "result": 5, "fd": 9, "dst": "127.0.0.1 7005", "name_changed": True, **udp, "family": 10},
        {"call": "socket", "result": 10, "fd": 10, **unix},
        {"call": "bind", "fd": 10, **asked},
        {"call": "listen", "fd": 10, **named},
        {"call": "socket", "result": 11, "fd": 11, **unix},
        {"call": "connect", "fd": 11, "connected": True, **asked},
        {"call": "accept", "result": 12, "fd": 12, "connected": True, **named},
        {"call": "sendto", "result": 100, "fd": 11, "connected": True, **named},
        {"call": "socket", "result": 13, "fd": 13, **unix},
        {"call": "connect", "result": "ECONNREFUSED", "fd": 13, "path": "@hidden", **unix},
        {"call": "socket", "result": 14, "fd": 14, "family": 16, "fd_type": "n"},
        {"call": "socket", "result": "EINVAL", "family": 2},
        {"call": "connect", "result": "EBADF", "fd": 1000},
    ]  # fmt: skip


def test_privileges(bare, workload, tmp_path: Path) -> None:
    """Of each call about privileges I am told what it asked for; of bpf(2) not the elements of maps."""
    with watching() as rows:
        run(bare(), workload("suspect"), "privileges", tmp_path)
    given = {"unshare": 1, "setns": 2, "ptrace": 2, "setuid": 1, "bpf": 1, "userfaultfd": 1, "umount2": 0}
    memo = {"fd": 4, "path": "/memfd:memo", "fd_type": "f"}
    seen = [
        {**told(row), "args": row["args"][: given[row["call"]]]} if row["call"] in given else told(row)
        for row in rows
        if row["comm"] == "suspect" and not row["ppid"] and row["call"] != "procexit"
    ]
    for each in seen:
        if each["call"] in ("bpf", "userfaultfd", "init module", "finit module"):
            assert isinstance(each.pop("result"), str)  # for a reason that differs between kernels
    assert seen == [
        {"call": "unshare", "args": [0x4000000]},
        {"call": "unshare", "args": [0x10000000]},  # by clone(2)
        {"call": "unshare", "args": [0x50000000]},  # and clone3(2)
        {"call": "unshare", "result": "EINVAL", "args": [0x10000000]},
        {"call": "openat", "result": 3, "fd": 3, "path": "/proc/self/ns/uts", "fd_type": "f"},
        {"call": "setns", "fd": 3, "fd_type": "f", "args": [3, 0x4000000]},
        {"call": "setns", "result": "EBADF", "fd": 1000, "args": [1000, 0x40000000]},
        {"call": "ptrace", "result": "ESRCH", "args": [16, 4194303]},
        {"call": "setuid", "args": [0]},
        {"call": "bpf", "args": [5]},
        {"call": "userfaultfd", "args": [1 << 30]},
        {"call": "memfd create", "result": 4, "data": "memo", **memo},
        {"call": "init module", "data": "debug=1"},
        {"call": "finit module", "data": "debug=2", **memo},
        {"call": "mount", "result": "ENOENT", "path": f"{tmp_path}/not/there", "to": "none"},
        {"call": "umount2", "result": "ENOENT", "path": "/not/there", "args": []},
    ]


def test_processes(bare, workload, tmp_path: Path) -> None:
    """Of a process I am told as it is forked, begins programs, changes and ends, with its parent, ids and files."""
    container, program = bare(), workload("suspect")
    with watching(environment="true") as rows:
        run(container, program, "processes", tmp_path, "--pid", "--fork")
    rows = [row for row in rows if row["comm"] == "suspect" or row["arguments"][:1] == ["again"] or
            row["call"] == "procexit"]  # fmt: skip
    first = next(row for row in rows if row["call"] == "execve")
    forks = [row for row in rows if row["call"] == "fork" and row["ppid"] == first["pid"]]
    assert first["arguments"] == [str(program), "processes", str(program)]
    assert (first["vpid"], first["cwd"], first["exe"]) == (1, str(tmp_path), str(program))
    assert all(name in first["env"] for name in ("HOME=", "PATH="))
    assert [row["cgroup_id"] for row in forks] == [container.cgroup.stat().st_ino] * 2
    file = program.stat()
    of_file = {"exe_ino": file.st_ino, "exe_ctime": file.st_ctime_ns, "exe_mtime": file.st_mtime_ns}
    began = {"arguments": ["again", "and", "", "once"], "env": "HOME=/tmp\0A=b\0", "cwd": "/", "exe_writable": True}
    parent = {"ppid": first["pid"], "parent_start": first["start"], "parent_exec_id": first["exec_id"]}
    # Those of the test: not of this namespace. What nobody began by setsid(2) is of session 0.
    host = {key: first[key] for key in ("pgid", "sid") if first[key]}
    for number, (fork, expected) in enumerate(
        zip(
            forks,
            (
                [
                    {"call": "fork", "vpid": 3, "exe": str(program), "cwd": "/", **parent, **host},
                    {"call": "change", "result": 3, "cwd": "/", "vpid": 3, "vpgid": 3, **parent,
                     "pgid": forks[0]["pid"], "sid": forks[0]["pid"]},
                    {"call": "execve", "result": "ENOENT", "path": "/not/there"},
                    {"call": "execve", "vpid": 3, "vpgid": 3, "exe": str(program), **parent, **of_file, **began,
                     "pgid": forks[0]["pid"], "sid": forks[0]["pid"]},
                    {"call": "procexit"},
                ],
                [
                    {"call": "fork", "vpid": 4, "exe": str(program), "cwd": "/", **parent, **host},
                    {"call": "execveat", "vpid": 4, "exe": "/memfd:memo", "exe_memfd": True, **parent, **began, **host},
                    {"call": "procexit"},
                ],
            ),
            strict=True,
        )
    ):  # fmt: skip
        own = [row for row in rows if row["pid"] == fork["pid"]]
        assert [told(row, *(OF_FILE if number else ())) for row in own] == expected
        assert {row["start"] for row in own} == {fork["start"]} and fork["start"] > first["start"]
        assert [row["exec_id"] - first["exec_id"] for row in own] == [0] * (len(own) - 2) + [1, 1]
    change = next(row for row in rows if row["call"] == "change")
    assert (change["pid"], change["cwd"], change["ppid"]) == (first["pid"], "/", first["ppid"])


def test_of_process(bare, tmp_path: Path) -> None:
    """Of whom a call is I am told by ids, capabilities, the terminal and when the process began."""
    limits = "--reuid 1234 --regid 99 --clear-groups --bounding-set -all"
    command = f"setpriv {limits} sh -c 'cut -d \" \" -f 7,22 /proc/$$/stat; exec cat /none'"
    with watching() as rows, (bare().cgroup / "cgroup.procs").open("w") as procs:
        done = subprocess.run(
            ["script", "--quiet", "--command", command, "/dev/null"],
            check=True, capture_output=True, text=True, preexec_fn=lambda: os.write(procs.fileno(), b"0"), cwd=tmp_path,
        )  # fmt: skip
    row = next(row for row in rows if row["path"] == "/none")
    ids = [row[name] for name in ("uid", "euid", "gid", "egid", "cap_effective", "cap_permitted", "loginuid")]
    assert ids == [1234, 1234, 99, 99, 0, 0, int(Path("/proc/self/loginuid").read_text())]
    terminal, ticks = map(int, done.stdout.splitlines()[0].split())
    assert (row["tty"], row["start"] * os.sysconf("SC_CLK_TCK") // 10**9) == (terminal, ticks)
    assert terminal
    began = {row["arguments"][0]: row["exe_writable"] for row in rows if row["arguments"]}
    assert (began["setpriv"], began["cat"]) == (True, False)


def test_layers(bare, tmp_path: Path) -> None:
    """Of a program I am told whether its file came with the image or was written in the container."""
    layers = "lowerdir=lower,upperdir=upper,workdir=work"
    script = f"""
        mkdir lower upper work merged
        cp /bin/true lower/image
        mount -t overlay overlay -o {layers} merged
        cp merged/image merged/made
        merged/image && merged/made && echo done
    """
    with watching() as rows:
        run_in(bare().cgroup, "unshare", "--mount", "sh", "-c", script, cwd=tmp_path)
    began = {row["arguments"][0]: row["exe_upper_layer"] for row in rows if row["arguments"]}
    assert (began["merged/image"], began["merged/made"], began["sh"]) == (False, True, False)


def test_outside(workload, tmp_path: Path) -> None:
    """Of processes outside containers I am told as they begin and end; of their calls only if I ask."""
    for asked in ("false", "true"):
        with watching(host_calls=asked) as rows:
            subprocess.run([workload("suspect"), "files"], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
        own = [row for row in rows if row["comm"] == "suspect"]
        kinds = {row["call"] for row in own}
        assert kinds >= {"execve", "procexit"}
        assert ("openat" in kinds) == (asked == "true")
        for each in tmp_path.iterdir():
            each.unlink()


@pytest.mark.parametrize(
    ("asked", "seen", "said"),
    [
        ("connect,finit_module", {"connect"}, set()),
        ("recvfrom,bind", {"bind", "recvfrom"}, {"hello"}),
        ("recvmsg", {"recvmsg"}, {"h" * 80}),
        (
            "",
            {"socket", "bind", "listen", "connect", "accept", "accept4", "sendto", "sendmsg", "dup2"},
            {"hello", "query", "h" * 80},
        ),
    ],
)
def test_only_some(bare, workload, tmp_path: Path, asked: str, seen: set[str], said: set[str]) -> None:
    """I am told only of the calls that I ask for, without a choice of all but what is received, and what they carry."""
    with watching(**({"calls": asked} if asked else {}), buffers="true") as rows:
        run(bare(), workload("suspect"), "sockets", tmp_path)
    assert {each["call"] for each in calls(rows)} == seen
    assert {row["data"] for row in rows if row["comm"] == "suspect"} - {""} == said
