from __future__ import annotations

import json
import multiprocessing
import re
import struct
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gadget import syscalls
from kubectl_gadget import strace
from kubectl_gadget.strace import Call, Captured
from tests.tracer import trace

BIG = 1 << 64


def call(
    name: str,
    *args: int,
    result: int | None = 0,
    machine: str = "x86_64",
    captured: dict[int, bytes | Captured] | None = None,
    comm: str = "cart",
    beyond: dict[tuple[int, str | int], bytes] | None = None,
) -> Call:
    given = {
        index: data if isinstance(data, Captured) else Captured(data, len(data))
        for index, data in (captured or {}).items()
    }
    registers = tuple(value % BIG for value in (*args, *(0xDEAD,) * (6 - len(args))))
    return Call(
        1_700_000_000_123_456_789,
        45_000,
        7,
        8,
        comm,
        machine,
        syscalls.numbers(machine)[name],
        registers,
        result,
        given,
        {key: Captured(data, len(data)) for key, data in (beyond or {}).items()},
    )


INET = struct.pack("<H", 2) + struct.pack(">H", 6379) + bytes([10, 96, 14, 2]) + bytes(8)
MAPPED = struct.pack("<H", 10) + struct.pack(">HI", 53, 0) + bytes(10) + b"\xff\xff\x7f\0\0\5" + bytes(4)
FIVE, LEFT = struct.pack("<qq", 5, 0), struct.pack("<qq", 4, 800_000_000)
INET6 = struct.pack("<H", 10) + struct.pack(">HI", 53, 0) + bytes(15) + b"\1" + bytes(4)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            call("openat", -100, 0x7F00, 0o2000000, result=-2, captured={1: b"/etc/app.conf"}),
            'openat(AT_FDCWD, "/etc/app.conf", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)',
        ),
        (
            call("openat", -100, 0x7F00, 0o40000 | 0o400000, result=3, machine="aarch64", captured={1: b"/etc"}),
            'openat(AT_FDCWD, "/etc", O_RDONLY|O_LARGEFILE|O_DIRECTORY) = 3',
        ),
        (
            call("connect", 7, 0x7F00, 16, result=-115, captured={1: INET}),
            'connect(7, {sa_family=AF_INET, sin_port=htons(6379), sin_addr=inet_addr("10.96.14.2")}, 16)'
            " = -1 EINPROGRESS (Operation now in progress)",
        ),
        (
            call("accept4", 3, 0x7F00, 0x7F80, 0o2000000, result=5, captured={1: INET6}),
            "accept4(3, {sa_family=AF_INET6, sin6_port=htons(53), sin6_flowinfo=htonl(0), "
            'inet_pton(AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, [28], SOCK_CLOEXEC) = 5',
        ),
        (
            call("mmap", 0, 4096, 3, 0x22, 0xFFFFFFFF, 0, result=0x7F2C1D000000),
            "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f2c1d000000",
        ),
        (call("write", 2, 0x7F00, 15, result=15, captured={1: b"using defaults\n"}), r'write(2, "using defaults\n", 15) = 15'),
        (
            call("getsockopt", 7, 1, 4, 0x7F00, 0x7F80, captured={3: struct.pack("<i", 111)}),
            "getsockopt(7, SOL_SOCKET, SO_ERROR, [ECONNREFUSED], [4]) = 0",
        ),
        (call("exit_group", 3, result=None), "exit_group(3) = ?"),
        (call("read", 0, 0x7F00, 10, result=None), "read(0, <unfinished ...>) = ?"),
        (call("pause", result=None), "pause(<unfinished ...>) = ?"),
        (
            call("read", 0, 0x7F00, 10, result=-512),
            "read(0, 0x7f00, 10) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)",
        ),
        (call("fcntl", 3, 3, result=0o100002), "fcntl(3, F_GETFL) = 0x8002 (flags O_RDWR|O_LARGEFILE)"),
        (call("close", 0xFFFFFFFF, result=-9), "close(-1) = -1 EBADF (Bad file descriptor)"),
        (call("close", 0xDEADBEEF_00000005), "close(5) = 0"),
        (
            call("execve", 0x7F00, 0x7F10, 0x7F20, captured={0: b"/bin/sh", 1: b"sh\0-c\0x\0"}),
            'execve("/bin/sh", ["sh", "-c", "x"], 0x7f20) = 0',
        ),
        (
            call("clone", 0x3D0F00, 0x7F00, 0x7F10, 0x7F20, 0x7F30, result=9, machine="aarch64"),
            "clone(child_stack=0x7f00, flags=CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM"
            "|CLONE_SETTLS|CLONE_PARENT_SETTID|CLONE_CHILD_CLEARTID, parent_tid=0x7f10, tls=0x7f20, child_tidptr=0x7f30) = 9",
        ),
        (call("mmap", 0, 1, 0, 0x40000002, -1, 0, result=-12), "mmap(NULL, 1, PROT_NONE, MAP_PRIVATE|16<<MAP_HUGE_SHIFT, -1, 0) = -1 ENOMEM (Cannot allocate memory)"),
        (call("sched_yield", result=-4095), "sched_yield() = -1 ERRNO_4095 (Unknown error 4095)"),
        (call("ioctl", 1, 0x5413, 0x7F00), "ioctl(1, TIOCGWINSZ, 0x7f00) = 0"),
        (call("kill", 1, 11), "kill(1, SIGSEGV) = 0"),
        (
            call("execve", 0x7F00, 0x7F10, 0x7F20, result=-7, captured={0: b"/bin/sh"}),
            'execve("/bin/sh", 0x7f10, 0x7f20) = -1 E2BIG (Argument list too long)',
        ),
        (
            call("connect", 7, 0x7F00, 28, captured={1: MAPPED}),
            "connect(7, {sa_family=AF_INET6, sin6_port=htons(53), sin6_flowinfo=htonl(0), "
            'inet_pton(AF_INET6, "::ffff:127.0.0.5", &sin6_addr), sin6_scope_id=0}, 28) = 0',
        ),
        (call("epoll_ctl", 4, 2, 3, 0x7F00, captured={3: bytes(12)}), "epoll_ctl(4, EPOLL_CTL_DEL, 3, 0x7f00) = 0"),
        (
            call("nanosleep", 0x7F00, 0x7F00, result=-516, captured={0: LEFT, 1: LEFT}),
            "nanosleep(0x7f00, {tv_sec=4, tv_nsec=800000000}) = ? ERESTART_RESTARTBLOCK (Interrupted by signal)",
        ),
        (
            call("clock_nanosleep", 0, 0, 0x7F00, 0x7F10, result=-516, captured={2: FIVE, 3: LEFT}),
            "clock_nanosleep(CLOCK_REALTIME, 0, {tv_sec=5, tv_nsec=0}, {tv_sec=4, tv_nsec=800000000})"
            " = ? ERESTART_RESTARTBLOCK (Interrupted by signal)",
        ),
        (call("nanosleep", 0x7F00, 0x7F00, captured={0: FIVE, 1: FIVE}), "nanosleep({tv_sec=5, tv_nsec=0}, 0x7f00) = 0"),
        (call("capset", 0x7F00, 0x7F10), "capset(0x7f00, 0x7f10) = 0"),
        (call("pwritev2", 3, 0x7F00, 1, -1, 0xDEAD, 2, result=3), "pwritev2(3, 0x7f00, 1, -1, RWF_DSYNC) = 3"),
        (call("preadv", 3, 0x7F00, 1, 5, 7, result=3), "preadv(3, 0x7f00, 1, 5) = 3"),
        (call("close_range", 3, 0xFFFFFFFF, 4), "close_range(3, 4294967295, CLOSE_RANGE_CLOEXEC) = 0"),
        (
            call("fanotify_mark", 3, 1, 0x28, -100, 0x7F00, captured={4: b"/etc"}),
            'fanotify_mark(3, FAN_MARK_ADD, FAN_CLOSE_WRITE|FAN_OPEN, AT_FDCWD, "/etc") = 0',
        ),
        (call("semget", 0, 1, 0o1600), "semget(IPC_PRIVATE, 1, IPC_CREAT|0600) = 0"),
        (call("msgget", 7, 0o644, result=-2), "msgget(0x7, 0644) = -1 ENOENT (No such file or directory)"),
        (
            call("mq_open", 0x7F00, 0o102, 0o600, 0, result=3, captured={0: b"jobs"}),
            'mq_open("jobs", O_RDWR|O_CREAT, 0600, NULL) = 3',
        ),
        (
            call("recvmsg", 3, 0x7F00, 0, result=4, captured={1: Captured(b"ab", 2, 3)}, beyond={(1, 1): b"cdxx"}),
            'recvmsg(3, {msg_iov=[{iov_base="ab", iov_len=2}, {iov_base="cd", iov_len=4}, ...], msg_iovlen=3}, 0) = 4',
        ),
    ],
)  # fmt: skip
def test_calls_read_as_from_strace(given: Call, expected: str) -> None:
    """A call reads as strace would have written it: names of flags, errors with their meaning, what pointers point to."""
    assert strace.text(given) == expected


def compared(program: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """What we and what strace make of the same program."""
    log = tmp_path_factory.mktemp("log") / "strace"
    # in a process of its own: this one has threads, of gRPC among others, and forks badly
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
        calls = fresh.submit(trace, [program], tmp_path_factory.mktemp("ours")).result()
    ours = [strace.text(each) for each in calls]
    subprocess.run(
        ["strace", "-a0", f"-s{strace.LIMIT}", "-o", log, program],
        cwd=tmp_path_factory.mktemp("theirs"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    theirs = [line for line in log.read_text().splitlines()[1:] if line[0].isalpha()]
    return comparable(ours), comparable(theirs)


@pytest.fixture(scope="module")
def both(workload: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    return compared(workload("calls"), tmp_path_factory)


def comparable(lines: list[str]) -> list[str]:
    """Without what differs from run to run: addresses and process ids."""
    pids = {found[1] for line in lines if (found := re.match(r"(?:set_tid_address|getpid|clone)\(.*\) = (\d+)$", line))}
    pid = re.compile(rf"\b({'|'.join(pids)})\b")
    return [pid.sub("PID", re.sub(r"0x[0-9a-f]{5,}", "ADDRESS", line)) for line in lines]


#: strace shows more: random bytes, and the timeout before the kernel writes what is left of it
DIFFERENT = {"getrandom", "ppoll"}


def test_as_strace_itself(both: tuple[list[str], list[str]]) -> None:
    """What I read is letter for letter what strace says of the same program, for nearly a hundred different calls."""
    ours, theirs = both
    assert len(ours) == len(theirs)
    different = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
    assert [pair for pair in different if pair[0].partition("(")[0] not in DIFFERENT] == []
    same = {one.partition("(")[0] for one, other in zip(ours, theirs, strict=True) if one == other}
    assert len(same) >= 80


#: What strace shows of a struct msghdr though there is nothing.
NOTHING = re.compile(r"msg_name=NULL, msg_namelen=0, |, msg_controllen=0|, msg_flags=0")
#: What changes from run to run, or what strace alone can know: it looks before the call too.
CHANGES = re.compile(r"(?<=tv_.sec=)\d+|(?<=f_bfree=)\d+|(?<=f_bavail=)\d+|(?<== )\d+$|0x[0-9a-f]{5,}|ADDRESS")


def test_structures_as_strace_itself(workload, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What calls point to reads as strace has it; where I see less than it shows there are dots."""
    ours, theirs = compared(workload("structures"), tmp_path_factory)
    aside = ("capget(", "preadv(", "getrandom(", "semctl(")  # of which strace shows what was not kept
    ours, theirs = ([line for line in lines if not line.startswith(aside)] for lines in (ours, theirs))
    assert len(ours) == len(theirs) > 80
    for one, other in zip(ours, theirs, strict=True):
        plain, shown = CHANGES.sub("0", NOTHING.sub("", other)), CHANGES.sub("0", one)
        if one.startswith("pselect6("):  # the kernel has written over what it was given
            plain, shown = plain.rpartition(" = ")[2], shown.rpartition(" = ")[2]
        elif one.startswith(("bpf(BPF_PROG_QUERY", "mount_setattr")):
            plain, shown = plain.partition(", {")[0], shown.rpartition(", 0")[0]
        form = re.escape(shown).replace(r",\ \.\.\.", ".*")
        assert re.fullmatch(form, plain), (one, other)


def test_buffers_are_cut_and_paths_are_not() -> None:
    """Long buffers are cut with dots where I say, and paths are whole as far as they were recorded."""
    written = call("write", 1, 0x7F00, 4000, result=4000, captured={1: Captured(b"y" * 256, 4000)})
    assert strace.text(written) == f'write(1, "{"y" * strace.LIMIT}"..., 4000) = 4000'
    assert strace.text(written, limit=3) == 'write(1, "yyy"..., 4000) = 4000'
    assert strace.text(call("chdir", 1, captured={0: b"/" + b"p" * 300})) == f'chdir("/{"p" * 300}") = 0'
    assert strace.text(call("chdir", 1, captured={0: Captured(b"/pp", 4096)})) == 'chdir("/pp"...) = 0'


def test_a_line_says_when_who_and_how_long() -> None:
    """A line begins with time, program and thread, whose name cannot break my terminal."""
    line = strace.line(call("getpid", comm="a\x1b[2J", result=7), duration=True)
    assert re.fullmatch(r"\d\d:\d\d:20\.123456 \[a\\x1b\[2J 8\] getpid\(\) = 7 <0\.000045>", line)


def test_json_has_values_and_registers() -> None:
    """As JSON a call has its arguments by name, decoded where they can be, and the registers."""
    data = strace.to_json(call("openat", -100, 0x7F00, 0o101, 0o644, result=-13, captured={1: "/é\n".encode()}))
    assert json.loads(json.dumps(data)) == {
        "time": "2023-11-14T22:13:20.123456789Z",
        "duration_ns": 45_000,
        "pid": 7,
        "tid": 8,
        "comm": "cart",
        "syscall": "openat",
        "number": 257,
        "args": {"dfd": "AT_FDCWD", "filename": "/é\n", "flags": "O_WRONLY|O_CREAT", "mode": "0644"},
        "args_raw": [BIG - 100, 0x7F00, 0o101, 0o644],
        "cut": [],
        "result": -13,
        "error": "EACCES",
    }
    execve = strace.to_json(call("execve", 1, 2, 3, captured={0: b"sh", 1: b"sh\0\0\xff\0"}))
    assert execve["args"] == {"filename": "sh", "argv": ["sh", "", {"text": "\\xff", "base64": "/w=="}], "envp": 3}
    other = strace.to_json(call("execve", 1, 2, 3, captured={0: b"sh", 1: b"sh\0\0\\xff\0"}))
    assert other["args"]["argv"] == ["sh", "", "\\xff"]
    read = strace.to_json(call("read", 3, 0x7F00, 9, result=2, captured={1: b"hi"}))
    assert (read["args"], read["error"]) == ({"fd": 3, "buf": "hi", "count": 9}, None)


@given(st.data())
def test_nothing_recorded_can_stop_it(data: st.DataObject) -> None:
    """Whatever a hostile program passes, and however little of it was recorded, I get a line without control characters."""
    machine = data.draw(st.sampled_from(syscalls.MACHINES))
    number = data.draw(st.sampled_from(sorted(syscalls.table(machine))) | st.integers(0, 2000))
    word = st.integers(0, BIG - 1) | st.integers(0, 300) | st.just(BIG - 1)
    copies = st.builds(Captured, st.binary(max_size=80), st.integers(0, 1 << 32))
    further = st.tuples(st.integers(0, 5), st.sampled_from(["name", "control", 1, 2, 4, -3, 28]))
    hostile = Call(
        data.draw(st.integers(0, 1 << 62)),
        data.draw(st.none() | st.integers(0, 1 << 40)),
        1,
        1,
        data.draw(st.text(max_size=15)),
        machine,
        number,
        tuple(data.draw(word) for _ in range(6)),
        data.draw(st.none() | st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-600, 20)),
        data.draw(st.dictionaries(st.integers(0, 5), copies, max_size=3)),
        data.draw(st.dictionaries(further, copies, max_size=3)),
    )
    assert strace.line(hostile, limit=data.draw(st.integers(0, 200)), duration=True).isprintable()
    json.dumps(strace.to_json(hostile))


@pytest.mark.parametrize("machine", syscalls.MACHINES)
def test_every_call_can_be_shown(machine: str) -> None:
    """Every call of both machines has its line, whatever it is given."""
    for number, described in syscalls.table(machine).items():
        for word in (0, 1, BIG - 1):
            for size in (0, 1, 2, 7, 16, 128):
                copies = {index: Captured(bytes([word & 0xFF]) * size, size) for index in range(6)}
                for result in (None, -2, 0, 1, 200):
                    shown = strace.text(Call(0, 0, 1, 1, "", machine, number, (word,) * 6, result, copies))
                    assert shown.startswith(f"{described.name}(")
