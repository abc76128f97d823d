from __future__ import annotations

import ctypes
import errno
import platform
import re
import subprocess
from pathlib import Path

import pytest

import build_syscalls
from gadget import catalog, syscalls
from gadget.errors import UsageError
from gadget.syscalls import MACHINES, Capture, How


@pytest.mark.parametrize(("machine", "least"), [("x86_64", 370), ("aarch64", 315)])
def test_every_call_has_its_name(machine: str, least: int) -> None:
    """Whatever a container calls, I see its name and arguments, not numbers; on both machines."""
    table = syscalls.table(machine)
    assert len(table) >= least
    assert [number for number in range(424, 472) if number not in table] == []
    nameless = [call.name for call in table.values() for argument in call.arguments if not argument.name]
    assert nameless == []
    old = [call for number, call in table.items() if number < 463 and call.name not in ("uprobe", "uretprobe")]
    assert sum(not call.known for call in old) <= 16  # that kernels have long dropped


@pytest.mark.parametrize(
    ("machine", "number", "name", "arguments"),
    [
        ("x86_64", 0, "read", "fd buf count"),
        ("aarch64", 63, "read", "fd buf count"),
        ("x86_64", 9, "mmap", "addr len prot flags fd off"),
        ("x86_64", 45, "recvfrom", "fd buf n flags addr addr_len"),
        ("x86_64", 56, "clone", "flags stack parent_tid child_tid tls"),
        ("aarch64", 220, "clone", "flags stack parent_tid tls child_tid"),
        ("x86_64", 262, "newfstatat", "dfd filename statbuf flag"),
        ("aarch64", 80, "fstat", "fd statbuf"),
        ("x86_64", 53, "socketpair", "domain type protocol fds"),
        ("aarch64", 462, "mseal", "start len flags"),
        ("x86_64", 9999, "syscall_0x270f", "arg0 arg1 arg2 arg3 arg4 arg5"),
    ],
)
def test_arguments_are_the_kernels(machine: str, number: int, name: str, arguments: str) -> None:
    """A call's arguments have the names and the order that the kernel gives them on that machine."""
    call = syscalls.find(machine, number)
    assert (call.name, " ".join(argument.name for argument in call.arguments)) == (name, arguments)


def test_numbers_are_those_of_this_machine() -> None:
    """The table agrees with the headers that programs of this machine are compiled with."""
    text = subprocess.run(
        ["clang", "-E", "-dM", "-include", "asm/unistd.h", "-x", "c", "/dev/null"], check=True, capture_output=True
    ).stdout.decode()
    numbers = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)$", text, re.MULTILINE)}
    ours = syscalls.numbers(platform.machine())
    assert len(numbers) > 250
    assert {name: ours.get(name) for name in numbers} == numbers


@pytest.mark.parametrize(("machine", "arch"), [("x86_64", "x86"), ("aarch64", "arm64")])
def test_programs_know_calls_by_the_kernels_numbers(machine: str, arch: str) -> None:
    """A gadget takes a call for what it is on either machine; what a machine lacks has no number there."""
    include = Path(build_syscalls.__file__).parent / "bpf/include"
    command = ["clang", "-E", "-dM", f"-D__TARGET_ARCH_{arch}", "-target", "bpf", "-I", str(include),
               "-I", f"/usr/include/{platform.machine()}-linux-gnu", str(include / "syscalls.h")]  # fmt: skip
    text = subprocess.run(command, check=True, capture_output=True).stdout.decode()
    used = {name.lower(): int(number, 0) for name, number in re.findall(r"#define SYSCALL_(\w+) (\w+)$", text, re.M)}
    numbers = syscalls.numbers(machine)
    assert {"openat", "connect", "accept4", "execve"} <= {*used}
    assert {name: numbers.get(name) for name in used} == used


def test_newer_calls_are_those_of_the_running_kernel() -> None:
    """Calls that are newer than the headers have the names that the kernel here gives its functions."""
    prefix = {"x86_64": "__x64_sys_", "aarch64": "__arm64_sys_"}[platform.machine()]
    symbols = Path("/proc/kallsyms").read_text()
    libc = ctypes.CDLL(None, use_errno=True)
    newer = [call for number, call in syscalls.table(platform.machine()).items() if number > 462]
    assert [call.name for call in newer[:4]] == ["setxattrat", "getxattrat", "listxattrat", "removexattrat"]
    for call in newer:
        ctypes.set_errno(0)
        libc.syscall(call.number, *[ctypes.c_long(-1)] * 6)
        assert (ctypes.get_errno() != errno.ENOSYS) == (f" {prefix}{call.name}\n" in symbols), call.name


def test_flags_differ_by_machine() -> None:
    """Flags of a node with another processor are read as that processor's kernel means them."""
    x86, arm = (syscalls.flags(machine, "OPEN") for machine in MACHINES)
    assert (x86["O_DIRECTORY"], arm["O_DIRECTORY"]) == (0o200000, 0o40000)
    assert syscalls.flags("aarch64", "SOL")["SOL_SOCKET"] == 1
    empty = [
        (machine, name) for machine in MACHINES for name in build_syscalls.SETS if not syscalls.flags(machine, name)
    ]
    assert empty == [("aarch64", "ARCH")]


def test_errors_have_names_and_meanings() -> None:
    """Errors have names, also those with which the kernel tells itself to restart a call."""
    assert syscalls.errors()[2] == ("ENOENT", "No such file or directory")
    assert syscalls.errors()[11][0] == "EAGAIN"
    assert syscalls.errors()[512] == ("ERESTARTSYS", "To be restarted if SA_RESTART is set")


def test_patterns_choose_calls() -> None:
    """I choose calls by patterns; a mistyped name is refused with what it may have meant."""
    assert syscalls.match(["open*,connect"]) == {
        "open", "openat", "openat2", "open_tree", "open_tree_attr", "open_by_handle_at", "connect"
    }  # fmt: skip
    assert syscalls.match([""]) == frozenset()
    with pytest.raises(UsageError, match=r"no system call 'opennat': is it .*openat"):
        syscalls.match(["read,opennat"])
    with pytest.raises(UsageError, match="see man 2"):
        syscalls.match(["#"])


@pytest.mark.parametrize("machine", MACHINES)
def test_plan_reads_what_calls_point_to(machine: str) -> None:
    """Paths, buffers and addresses of well over a hundred calls are recorded, not only pointers to them."""
    plan, numbers = syscalls.plan(machine), syscalls.numbers(machine)
    assert len(plan) >= 130

    def of(name: str) -> tuple[Capture, ...]:
        return plan[numbers[name]]

    assert of("openat") == (Capture(1, How.STRING),)
    assert of("write") == (Capture(1, How.BYTES_ARG, 2),)
    assert of("read") == (Capture(1, How.BYTES_RESULT, 2, after_success=True),)
    assert of("connect") == (Capture(1, How.BYTES_ARG, 2),)
    assert of("accept4") == (Capture(1, How.BYTES_POINTED, 2, after_success=True),)
    assert of("execve") == (Capture(0, How.STRING), Capture(1, How.STRINGS))
    assert of("renameat2") == (Capture(1, How.STRING), Capture(3, How.STRING))
    assert of("readv") == (Capture(1, How.VECTOR, 2, after_success=True), Capture(1, How.REST, 2, after_success=True))
    assert of("clock_nanosleep")[0] == Capture(2, How.BYTES_FIXED, 16)
    assert of("epoll_ctl") == (Capture(3, How.BYTES_FIXED, 12 if machine == "x86_64" else 16),)
    for number, captures in plan.items():
        arguments = syscalls.find(machine, number).arguments
        for capture in captures:
            assert len(captures) <= syscalls.CAPTURES_MAX
            assert arguments[capture.argument].is_pointer or arguments[capture.argument].name in ("arg2", "arg")
            if capture.how in (How.BYTES_ARG, How.BYTES_RESULT, How.VECTOR):
                assert not arguments[capture.size].is_pointer
            elif capture.how is How.BYTES_POINTED:
                assert arguments[capture.size].is_pointer


def test_ways_of_copying() -> None:
    """What the program in the kernel copies is what the plan means."""
    (field,) = [item for item in catalog.record_fields("traceloop", "names") if item["name"] == "how"]
    theirs = {int(value): name.removeprefix("HOW_") for value, name in field["values"].items() if value != "0"}
    assert theirs == {how.value: how.name for how in syscalls.How}


@pytest.mark.parametrize(("machine", "target"), build_syscalls.TARGETS.items())
def test_every_name_is_the_kernels(machine: str, target: str) -> None:
    """No error, signal or flag is shown by a number or by a wrong name: each is what the kernel's headers say."""
    common = build_syscalls.common_headers()
    assert common
    include = ["-target", target, "-nostdinc", "-I", common / "include/uapi", "-I", f"/usr/{target}/include"]
    include += ["-D__LINUX_COMPILER_H", "-D__LINUX_COMPILER_TYPES_H", "-idirafter", common / "include", "-D__force="]
    headers = [each for each in build_syscalls.HEADERS if Path(f"/usr/{target}/include/{each}.h").exists()]
    source = "".join(f"#include <{each}.h>\n" for each in headers)

    def clang(*options: str, given: str = "") -> subprocess.CompletedProcess[str]:
        command = [
            "clang",
            "-w",
            "-x",
            "c",
            *include,
            "-D__user=",
            "-ferror-limit=0",
            "-fno-spell-checking",
            *options,
            "-",
        ]
        return subprocess.run(command, input=source + given, capture_output=True, text=True, check=False)

    defined = dict(re.findall(r"#define (\w+) (\d+)$", clang("-E", "-dM").stdout, re.MULTILINE))
    errors = {name: int(value) for name, value in defined.items() if re.fullmatch(r"E[A-Z0-9]+", name)}
    assert len(errors) > 130
    assert {name: syscalls.errors()[value][0] for name, value in errors.items()} == {name: name for name in errors}
    signals: dict[int, set[str]] = {}
    for name, value in defined.items():
        if re.fullmatch(r"SIG[A-Z0-9]+", name):
            signals.setdefault(int(value), set()).add(name)
    assert len(signals) > 30
    named = {value: syscalls.signal_name(value) for value in signals if value < 64}
    assert {value: name for value, name in named.items() if name not in signals[value]} == {}
    sets = build_syscalls.SETS
    asserted = [
        f'_Static_assert((unsigned)({name}) == {value & 0xFFFFFFFF}u, "");\n'
        for each in sets
        if "internal" not in sets[each][0] and "libc" not in sets[each][0] and each != "IOCTL"
        for name, value in syscalls.flags(machine, each).items()
    ]
    assert len(asserted) > 900
    wrong = [
        line
        for line in clang("-fsyntax-only", given="".join(asserted)).stderr.splitlines()
        if line.startswith("<stdin>") and ": error:" in line
    ]
    # a name that only newer headers have
    assert [line for line in wrong if "undeclared identifier" not in line] == []
    assert len(wrong) < len(asserted) // 20
