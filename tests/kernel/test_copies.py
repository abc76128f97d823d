"""What the program in the kernel copies of a call's memory, beside what strace -f reads of the same process."""

from __future__ import annotations

import platform
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from gadget import syscalls
from gadget._generated.gadget_pb2 import TraceloopItem, TraceloopListRequest, TraceloopReadRequest
from gadget._generated.gadget_pb2_grpc import AgentStub
from kubectl_gadget import strace
from kubectl_gadget.agents.client import connect
from kubectl_gadget.strace import Call
from kubectl_gadget.traceloop.calls import Entry, ReplyReader
from tests.conftest import Agent, wait_until
from tests.pods import BareContainer

#: Bytes of buffers to compare: of longer ones no fewer are kept.
LIMIT = 16


class Both(NamedTuple):
    """A program's calls as they were recorded, its children's too, and its own lines of strace -f."""

    entries: list[Entry]
    lines: list[str]

    @property
    def calls(self) -> list[Call]:
        return [entry for entry in self.entries if isinstance(entry, Call)]


Compare = Callable[..., Both]


@pytest.fixture
def compare(bpffs: Path, start_agent: Callable[..., Agent], workload: Callable[[str], Path], tmp_path: Path) -> Compare:
    """Runs a workload in a recorded container and under strace at once."""

    def run(*command: str) -> Both:
        agent = start_agent(
            "--no-flows", "--bpffs", str(bpffs), "--traceloop", "copies", "--state", str(tmp_path / "s")
        )
        program, log, folder = workload(command[0]), tmp_path / "log", tmp_path / "empty"
        folder.mkdir()
        with bare_container() as container, connect(agent.address) as channel:
            stub = AgentStub(channel)
            item = wait_until(lambda: recorded(stub, container), "the recording")
            # strace itself stays outside: it makes many calls for each one that it shows
            enter = f'echo 0 > {container.cgroup}/cgroup.procs && exec "$0" "$@"'
            subprocess.run(
                ["strace", "-f", "-a0", f"-s{LIMIT}", "-o", log, "/bin/sh", "-c", enter, program, *command[1:]],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                check=False,
            )
            (reply,) = stub.TraceloopRead(TraceloopReadRequest(cgroup_id=item.container.cgroup_id))
        lines = whole_lines(log.read_text().splitlines())
        began = f'execve("{program}"'
        begin, main = next((at, pid) for at, (pid, line) in enumerate(lines) if line.startswith(began))
        entries = ReplyReader().entries(reply)
        first = next(at for at, each in enumerate(entries) if isinstance(each, Call) and text(each).startswith(began))
        return Both(entries[first + 1 :], [line for pid, line in lines[begin + 1 :] if pid == main])

    return run


def recorded(stub: AgentStub, container: BareContainer) -> TraceloopItem | None:
    """The recording of a container, once calls in it are recorded: it is listed a little before that."""
    for item in stub.TraceloopList(TraceloopListRequest()).items:
        subprocess.run(["/bin/sh", "-c", f"echo 0 > {container.cgroup}/cgroup.procs && exec true"], check=True)
        if item.calls:
            return item
    return None


def whole_lines(lines: list[str]) -> list[tuple[str, str]]:
    """A log's lines, each with its pid, and each call in one line where another thread's came between."""
    found, begun = [], {}
    for line in lines:
        pid, _, rest = line.partition(" ")
        rest = rest.strip()
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest.removesuffix(" <unfinished ...>")
        elif resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", rest):
            found.append((pid, begun.pop(pid) + resumed[1]))
        else:
            found.append((pid, rest))
    return found


@contextmanager
def bare_container() -> Iterator[BareContainer]:
    """A container without a runtime."""
    container = BareContainer("copies", "cart-0")
    try:
        yield container
    finally:
        container.delete()


def text(call: Call) -> str:
    return strace.text(call, LIMIT)


#: strace sees these before the kernel writes to them, or reads random bytes and file attributes, which are not kept
DIFFERENT = {"getrandom", "ppoll"}


def test_copies_are_what_strace_reads(compare: Compare) -> None:
    """Paths, buffers, addresses and structures of a recorded container read letter for letter as strace -f has them."""
    both = compare("calls")
    ours = [call for call in both.calls if call.pid == both.calls[0].pid]
    theirs = [line for line in both.lines if re.match(r"[a-z_0-9]+\(", line)]
    assert len(ours) == len(theirs) > 160
    pairs = [(text(call), line) for call, line in zip(ours, theirs, strict=True)]
    assert [pair for pair in pairs if pair[0] != pair[1] and pair[0].partition("(")[0] not in DIFFERENT] == []
    same = {
        one.partition("(")[0] for call, (one, other) in zip(ours, pairs, strict=True) if call.captured and one == other
    }
    assert len(same) >= 40, sorted(same)


def named(both: Both, name: str) -> list[str]:
    return [line for line in map(text, both.calls) if line.startswith(f"{name}(")]


def test_what_is_cut_says_so(compare: Compare) -> None:
    """Nothing that was cut looks whole: arguments of a program, paths, buffers, options; and nothing whole looks cut."""
    both = compare("calls", "hard")
    failed = " = -1 ENOENT (No such file or directory)"
    b16 = '"' + "b" * LIMIT + '"...'
    # strings of 102, 103, 104 and 150 bytes, of which 103 are kept
    lists = [call.captured[1] for call in both.calls if call.result == -2 and 1 in call.captured]
    kept = [(len(found.data.split(b"\0")[1]), sorted(found.cut)) for found in lists[:4]]
    assert kept == [(102, []), (103, []), (103, [1]), (103, [1])]
    assert named(both, "execve")[3] == f'execve("missing", ["a", {b16}, "c"], NULL){failed}'
    assert named(both, "execve")[4:6] == [
        f'execve("missing", ["1", "2", "3", "4", "5", "6", ...], NULL){failed}',
        f'execve("missing", ["3", "4", "5", "6", "7", "8"], NULL){failed}',
    ]
    paths = [call.captured[0] for call in both.calls if text(call).startswith("chdir(")]
    assert [(len(path.data), path.size) for path in paths] == [(260, 260), (261, 261), (261, 262 + 3834)]
    assert named(both, "writev") == [
        f"writev(3, [{{iov_base={b16}, iov_len=3000}}], 1) = 3000",
        'writev(3, [{iov_base="one", iov_len=3}, {iov_base="two", iov_len=3}], 2) = 6',
        'writev(3, [{iov_base="", iov_len=0}, {iov_base="two", iov_len=3}], 2) = 3',
    ]
    assert named(both, "sendmsg") == [
        f"sendmsg(3, {{msg_iov=[{{iov_base={b16}, iov_len=3000}}], msg_iovlen=1}}, 0) = 3000",
        'sendmsg(3, {msg_iov=[{iov_base="one", iov_len=3}, {iov_base="two", iov_len=3}], msg_iovlen=2}, 0) = 6',
    ]
    assert named(both, "readv") == [f"readv(4, [{{iov_base={b16}, iov_len=2000}}], 1) = 2000"]
    (option,) = named(both, "getsockopt")
    assert re.fullmatch(r'getsockopt\(5, SOL_TCP, TCP_INFO, "\\7.*"\.\.\., \[104\]\) = 0', option)


def test_an_exec_by_descriptor(compare: Compare) -> None:
    """A program that was started through a descriptor says so, and a long list of arguments that it was cut."""
    shown = next(line for line in named(compare("calls", "hard"), "execveat") if "AT_EMPTY_PATH" in line)
    b16 = '"' + "b" * LIMIT + '"...'
    assert shown == f'execveat(6, "", ["calls", "end", {b16}, ...], [...], AT_EMPTY_PATH) = 0'


def test_nobody_fakes_a_call(compare: Compare) -> None:
    """A program that asks for a number no kernel has cannot make it look like another call."""
    both = compare("calls", "hard")
    fakes = [line for line in map(text, both.calls) if "ENOSYS" in line]
    assert [line.partition("(")[0] for line in fakes] == [
        "syscall_0x20001", "syscall_0x10001", "syscall_0x40000001", "syscall_0xffffffff"
    ]  # fmt: skip
    written = [call for call in both.calls if text(call).startswith("write(")]
    assert [call.number & syscalls.COMPAT for call in written] == [syscalls.COMPAT]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="32-bit calls of x86")
def test_32_bit_calls(compare: Compare) -> None:
    """A 32-bit call has its name and the arguments that it was given, and one that ends the program is there."""
    both = compare("calls", "hard")
    narrow = [call for call in both.calls if call.number & syscalls.COMPAT]
    assert [text(call).partition("(")[0] for call in narrow] == ["write", "exit_group", "fork"]
    assert [(call.number & 0xFFFF, call.args[:5], call.result) for call in narrow[:2]] == [
        (4, (0xFFFFFFFF, 77, 78, 79, 80), -9),
        (252, (7, *narrow[1].args[1:5]), None),
    ]
    assert narrow[2].result  # once, of the parent: its child made no such call


def test_an_exec_that_only_asks(compare: Compare) -> None:
    """An execveat that only asks whether it may is recorded, whether it may or not (since Linux 6.14)."""
    asked = [line for line in named(compare("calls", "hard"), "execveat") if "/proc/self/exe" in line]
    (shown,) = asked
    assert shown.endswith((" = 0", " = -1 EINVAL (Invalid argument)")) and '["calls"]' in shown
