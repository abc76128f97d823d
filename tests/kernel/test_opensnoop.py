"""opensnoop on this kernel: exact counts, and the same opens as strace sees."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from tests.conftest import CLI, Agent, Cli, events, wait_until
from tests.pods import run_in


def start(start_cli: Callable[..., Cli], agent: Agent, *args: str, **options: object) -> Cli:
    cli = start_cli("opensnoop", "--agent", agent.address, "-o", "json", *args, **options)
    wait_until(lambda: "opensnoop: started" in agent.log.read_text(), "the stream's start")
    return cli


def test_exact_counts(agent, start_cli, make_pod, workload) -> None:
    """Of every kind of open and of failure I see exactly as many as happened, with flags, mode and full path."""
    cli = start(start_cli, agent, "--full-path", "--comm", "workload")
    container = make_pod().container("app", "/workload", files={"/workload": workload("opens")})
    wait_until(lambda: "done" in container.log.read_text(), "the workload's end")
    out, err = cli.finish()
    assert "nothing lost" in err
    seen = Counter((e["path"], e["full_path"], e["flags"], e["mode"], e["error"]) for e in events(out))
    created = "O_WRONLY|O_CREAT|O_TRUNC"
    expected = {
        ("/tmp/file", "/tmp/file", created, "0600", None): 1,
        ("/tmp/file", "/tmp/file", "O_RDONLY|O_CLOEXEC", "0000", None): 101,
        ("/tmp/missing", "/tmp/missing", "O_RDONLY", "0000", "ENOENT"): 13,
        ("/tmp/file/below", "/tmp/file/below", "O_RDONLY", "0000", "ENOTDIR"): 7,
        ("/tmp", "/tmp", "O_WRONLY", "0000", "EISDIR"): 5,
        ("/tmp/file", "/tmp/file", "O_RDWR|O_CREAT|O_EXCL", "0640", "EEXIST"): 3,
        ("/tmp/link", "/tmp/link", "O_RDONLY|O_NOFOLLOW", "0000", "ELOOP"): 11,
        ("", "", "O_RDONLY", "0000", "EFAULT"): 2,
        ("./file", "/tmp/file", "O_RDWR|O_APPEND|O_SYNC", "0000", None): 17,
        ("/tmp/made", "/tmp/made", created, "0604", None): 19,
        ("/tmp/file", "/tmp/file", "O_WRONLY|O_NONBLOCK", "0000", None): 23,
        ("/tmp", "/tmp", "O_RDONLY|O_DIRECTORY", "0000", None): 29,
        ("/tmp/deep/deeper", "/tmp/deep/deeper", "O_RDONLY|O_PATH", "0000", None): 1,
        ("leaf", "/tmp/deep/deeper/leaf", "O_RDWR|O_CREAT", "0600", None): 31,
    }
    assert {
        key: number for key, number in seen.items() if key[0].startswith(("/tmp", "./", "leaf")) or not key[0]
    } == expected
    assert all((event["fd"] == -1) == (event["error"] is not None) for event in events(out))


@pytest.mark.parametrize("failed", [True, False])
def test_opens_that_seccomp_ended(agent, start_cli, bare, workload, tmp_path: Path, failed: bool) -> None:
    """An open that seccomp kept from happening by SIGSYS failed, and --failed shows it; it has no descriptor."""
    cli = start(start_cli, agent, "--comm", "trapped", "-n", "trap", *["--failed"] * failed)
    run_in(bare("trap", "trap-0").cgroup, workload("trapped"), cwd=tmp_path)
    paths = ("/tmp/trapped", "/tmp/file")
    seen = Counter((e["path"], e["error"], e["fd"] == -1) for e in events(cli.finish()[0]) if e["path"] in paths)
    assert seen == {("/tmp/trapped", "EPERM", True): 7} | ({} if failed else {("/tmp/file", None, False): 1})


def test_path_that_changes(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """With --file I see which file was opened, also where another thread changes the path while the call waits; and none
    of one that was not opened.
    """
    cli = start(start_cli, agent, "--file", "--comm", "swaps")
    run_in(bare().cgroup, workload("swaps"), "101", cwd=tmp_path)
    out, err = cli.finish()
    assert "nothing lost" in err
    seen = Counter((e["path"], e["file"], e["error"]) for e in events(out) if not e["path"].startswith("/proc/"))
    assert seen == {
        ("innocent", f"{tmp_path}/fifo", None): 101,
        ("./fifo", f"{tmp_path}/fifo", None): 101,
    }


def test_no_file(agent, start_cli, bare) -> None:
    """Of an open that failed no file is told, and without --file of none."""
    asked = start(start_cli, agent, "--file", "--prefix", "/nothing")
    other = start_cli("opensnoop", "--agent", agent.address, "-o", "json", "--prefix", "/etc/hosts")
    wait_until(lambda: agent.log.read_text().count("opensnoop: started") == 2, "the streams")
    container = bare()
    container.run("/bin/busybox", "cat", "/nothing")
    container.run("/bin/busybox", "cat", "/etc/hosts")
    for cli, path in ((asked, "/nothing"), (other, "/etc/hosts")):
        found = events(cli.finish()[0])
        assert [(event["path"], event["file"]) for event in found] == [(path, "")]


def test_odd_opens(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """I see a signal as EINTR, never the kernel's own codes, paths that nobody had touched, and full paths also in a
    chroot, below an openat2 root and from a directory that is gone.
    """
    here = tmp_path / "here"
    here.mkdir()
    cli = start(start_cli, agent, "--full-path", "--comm", "odd_opens")
    run_in(bare().cgroup, workload("odd_opens"), cwd=here)
    out, err = cli.finish()
    assert "nothing lost" in err
    seen = Counter(
        (e["path"], e["full_path"].replace(f"{here}/", "~/"), e["flags"], e["mode"], e["error"]) for e in events(out)
    )
    assert seen == {
        ("fifo", "~/fifo", "O_RDONLY", "0000", "EINTR"): 3,
        ("again", "~/again", "O_RDONLY", "0000", "EINTR"): 1,
        ("again", "~/again", "O_RDWR", "0000", None): 1,
        ("again", "~/again", "O_RDONLY", "0000", None): 1,  # as the kernel restarted it
        ("deep", "~/deep", "O_RDONLY|O_PATH", "0000", None): 1,
        ("leaf", "~/deep/leaf", "O_WRONLY|O_CREAT", "0600", None): 1,
        ("/leaf", "~/deep/leaf", "O_RDONLY", "0000", None): 5,
        ("leaf", "~/deep/leaf", "O_RDONLY", "0000", None): 2,
        ("made", "~/made", "O_WRONLY|O_CREAT", "0620", None): 7,
        ("made", "~/made", "O_RDWR|O_CREAT|O_EXCL", "0604", "EEXIST"): 11,
        ("bad", "~/bad", "O_RDONLY", "0000", "EINVAL"): 13,
        (".", "~/.", "O_RDWR|O_TMPFILE", "0640", None): 17,
        ("/dev/null", "/dev/null", "O_RDONLY|O_DIRECT", "0000", "EINVAL"): 19,
        ("page", "~/page", "O_RDWR|O_CREAT", "0600", None): 1,
        ("untouched", "~/untouched", "O_RDONLY", "0000", "ENOENT"): 23,
        ("leaf", "leaf", "O_RDONLY", "0000", "EBADF"): 29,
        ("leaf", "~/gone/leaf", "O_RDONLY", "0000", "ENOENT"): 37,
        ("/inside", "~/jail/inside", "O_RDONLY", "0000", "ENOENT"): 41,
    }


def test_one_user(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """--uid alone shows the opens of that user, all of them and nobody else's."""
    cli = start(start_cli, agent, "--uid", "4242")
    for uid in ("4242", "4243"):
        run_in(bare().cgroup, workload("odd_opens"), uid, cwd=tmp_path)
    rows = events(cli.finish()[0])
    assert Counter((row["uid"], row["path"], row["error"]) for row in rows) == {(4242, "missing", "EACCES"): 13}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--failed"], {"/tmp/missing": 13, "/tmp/file/below": 7, "/tmp": 5, "/tmp/file": 3, "/tmp/link": 11, "": 2}),
        (["--prefix", "/tmp/m"], {"/tmp/missing": 13, "/tmp/made": 19}),
        (["--failed", "--prefix", "/tmp/m"], {"/tmp/missing": 13}),
    ],
    ids=["failed", "prefix", "both"],
)
def test_failed_and_prefix(agent, start_cli, make_pod, workload, options: list[str], expected: dict[str, int]) -> None:
    """--failed shows only failures, --prefix only paths that begin so; each alone and both together."""
    cli = start(start_cli, agent, "-c", "app", *options)
    container = make_pod().container("app", "/workload", files={"/workload": workload("opens")})
    wait_until(lambda: "done" in container.log.read_text(), "the workload's end")
    rows = [row for row in events(cli.finish()[0]) if row["comm"] == "workload"]
    assert Counter(row["path"] for row in rows) == expected


SCRIPT = "for f in /etc/hostname /etc/nothing /etc; do cat $f; done; cd /etc; ls; cat hostname ./hostname ../etc/fstab; echo x > /tmp/gadget-test-$$; rm /tmp/gadget-test-$$"
LINE = re.compile(
    r'^(\d+) +(?:open|openat|openat2|creat)\((?:AT_FDCWD, |\d+, )?"((?:[^"\\]|\\.)*)", (?:\{flags=)?(O_[\w|]*).*\) += (-?\d+)(?: (E\w+))?'
)


@pytest.mark.parametrize(
    "command",
    [[sys.executable, "-c", "import this"], ["apt-get", "--version"], ["sh", "-c", SCRIPT]],
    ids=["python", "apt-get", "shell"],
)
def test_like_strace(agent, start_cli, tmp_path: Path, command: list[str]) -> None:
    """On the same run of a real program I see just what strace sees: each path with its flags and result."""
    cli = start(start_cli, agent, "--host")
    trace = tmp_path / "trace"
    subprocess.run(["strace", "-f", "-s", "4096", "-e", "trace=open,openat,openat2,creat", "-o", trace, *command],
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)  # fmt: skip
    out, err = cli.finish()
    assert "nothing lost" in err
    lines = [line for line in trace.read_text().splitlines() if not re.search(r"\+\+\+|---", line)]
    wanted = [LINE.match(line) for line in lines]
    assert all(wanted), [line for line, found in zip(lines, wanted, strict=True) if not found]
    pids = {int(found[1]) for found in wanted}
    theirs = Counter(
        (int(found[1]), found[2], frozenset(found[3].split("|")), int(found[4]), found[5]) for found in wanted
    )
    ours = Counter(
        (e["tid"], e["path"], frozenset(e["flags"].split("|")), e["fd"], e["error"])
        for e in events(out)
        if e["tid"] in pids and e["comm"] != "strace"  # which opens files in the child before that execs the program
    )
    assert ours == theirs
    assert len(theirs) > 10


def test_hundred_thousand_a_second(agent, make_pod, workload, tmp_path: Path) -> None:
    """At 100,000 opens a second of 1,009 files for 10 s nothing is lost at default settings while JSON goes to a file."""
    target = tmp_path / "out.json"
    with target.open("wb") as file:
        command = [CLI, "opensnoop", "--agent", agent.address, "-o", "json", "-p", "flood"]
        cli = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: "opensnoop: started" in agent.log.read_text(), "the stream's start")
        container = make_pod("shop", "flood").container(
            "app", "/workload", "opens", "100000", "10", "2", "/tmp/file", files={"/workload": workload("paced")}
        )
        wait_until(lambda: "done" in container.log.read_text(), "the workload's end", 60)
        cli.terminate()
        err = cli.communicate(timeout=60)[1]
    made, *_ = container.log.read_text().split()
    assert int(made) == 1_000_000  # on a machine that does other work in some more than 10 s
    assert "; nothing lost." in err, err
    with target.open("rb") as file:
        paths = Counter(orjson.loads(line)["path"] for line in file)
    opened = {path: number for path, number in paths.items() if path.startswith("/tmp/file-")}
    assert (len(opened), sum(opened.values())) == (1009, 1_000_000)


def test_opens_by_handle(agent, start_cli, bare, workload, tmp_path: Path) -> None:
    """An open by handle, as a program makes it to leave a container's files, is shown with the path of the file."""
    cli = start(start_cli, agent, "--full-path", "--file", "--comm", "handles")
    file = tmp_path / "file"
    file.touch()
    run_in(bare().cgroup, workload("handles"), file, tmp_path)
    out, err = cli.finish()
    assert "nothing lost" in err
    seen = Counter(
        (e["path"], e["full_path"], e["file"], e["flags"], e["mode"], e["error"])
        for e in events(out)
        if e["path"] == str(file) or not e["path"]
    )
    assert seen == {
        (str(file), str(file), str(file), "O_RDONLY|O_CLOEXEC", "0000", None): 11,
        ("", "", "", "O_RDWR", "0000", "ESTALE"): 5,
    }
