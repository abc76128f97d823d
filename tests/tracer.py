"""Records the system calls of a program with ptrace, copying what the plan says: what the kernel side does, slowly."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from gadget import syscalls
from gadget.syscalls import Capture, How
from kubectl_gadget.strace import Call, Captured

TRACEME, CONTINUE_TO_SYSCALL, SETOPTIONS, GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E  # linux/ptrace.h
TRACESYSGOOD, ENTRY, EXIT = 1, 1, 2
CAPTURE_MAX = 512
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def trace(command: Sequence[str | Path], folder: Path) -> list[Call]:
    """Run a command in a folder; its calls, the last of which never returns."""
    pid = os.fork()
    if not pid:
        with open(os.devnull, "r+b") as null:
            os.dup2(null.fileno(), 0)
            os.dup2(null.fileno(), 1)
        os.closerange(3, 256)
        os.chdir(folder)
        libc.ptrace(TRACEME, 0, None, None)
        os.execv(command[0], [str(word) for word in command])
    os.waitpid(pid, 0)
    libc.ptrace(SETOPTIONS, pid, None, TRACESYSGOOD)
    calls: list[Call] = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        number, args, deliver = 0, (0,) * 6, 0
        while True:
            libc.ptrace(CONTINUE_TO_SYSCALL, pid, None, deliver)
            _, status = os.waitpid(pid, 0)
            if not os.WIFSTOPPED(status):
                break
            deliver = os.WSTOPSIG(status)
            if deliver != signal.SIGTRAP | 0x80:
                continue
            deliver = 0
            info = ctypes.create_string_buffer(88)
            libc.ptrace(GET_SYSCALL_INFO, pid, ctypes.sizeof(info), ctypes.addressof(info))
            if info.raw[0] == ENTRY:
                number, *registers = struct.unpack_from("<7Q", info.raw, 24)
                args = tuple(registers)
                calls.append(_call(pid, number, args, None, {}))
            else:
                (result,) = struct.unpack_from("<q", info.raw, 24)
                planned = syscalls.plan(platform.machine()).get(number, ())
                pointed = syscalls.pointed(platform.machine(), number).values()
                found = {each.argument: _copy(memory.fileno(), each, args, result) for each in pointed}
                captured = {index: each for index, each in found.items() if each is not None}
                beyond = {key: each for item in planned for key, each in _beyond(memory.fileno(), item, args).items()}
                calls[-1] = _call(pid, number, args, result, captured)._replace(beyond=beyond if result >= 0 else {})
    return calls


def _call(pid: int, number: int, args: tuple[int, ...], result: int | None, captured: dict[int, Captured]) -> Call:
    return Call(time.time_ns(), 1000, pid, pid, "calls", platform.machine(), number, args, result, captured)


def _read(memory: int, address: int, size: int) -> bytes | None:
    if size < 0 or not address:
        return None
    try:
        return os.pread(memory, min(size, CAPTURE_MAX), address) if size else b""
    except (OSError, OverflowError):
        return None


def _string(memory: int, address: int) -> Captured | None:
    data = _read(memory, address, CAPTURE_MAX)
    text = (data or b"").partition(b"\0")[0]
    return None if data is None else Captured(text, len(text))


def _strings(memory: int, address: int) -> Captured | None:
    data = b""
    while pointer := _read(memory, address, 8):
        item = _string(memory, struct.unpack("<Q", pointer)[0])
        if item is None:
            break
        data, address = data + item.data + b"\0", address + 8
    return None if pointer is None else Captured(data, len(data))


def _vector(memory: int, address: int, count: int, limit: int) -> Captured | None:
    buffers = list(struct.iter_unpack("<QQ", _read(memory, address, 16 * count) or b""))
    skipped = int(count > 1 and not buffers[0][1])
    base, size = buffers[skipped]
    data = _read(memory, base, min(size, limit))
    return None if data is None else Captured(data, size, count, skipped)


def _rest(memory: int, argument: int, address: int, count: int) -> dict[tuple[int, str | int], Captured]:
    found: dict[tuple[int, str | int], Captured] = {}
    buffers = list(struct.iter_unpack("<QQ", _read(memory, address, 16 * count) or b""))
    for index in range(1 + (count > 1 and not buffers[0][1]), count):
        if data := _read(memory, *buffers[index]):
            found[argument, index] = Captured(data, buffers[index][1])
    return found


def _beyond(memory: int, capture: Capture, args: Sequence[int]) -> dict[tuple[int, str | int], Captured]:
    """What a capture finds behind a first buffer, and in a struct msghdr."""
    address = args[capture.argument]
    if capture.how is How.REST:
        return _rest(memory, capture.argument, address, args[capture.size])
    header = _read(memory, address, 48) if capture.how is How.HEADER else None
    if not header:
        return {}
    name, name_length, vector, count, control, control_length = struct.unpack("<QIxxxxQQQQ", header)
    found = _rest(memory, capture.argument, vector, count)
    for title, at, size in (("name", name, name_length), ("control", control, control_length)):
        if data := _read(memory, at, size):
            found[capture.argument, title] = Captured(data, size)
    return found


def _copy(memory: int, capture: Capture, args: Sequence[int], result: int) -> Captured | None:
    """What a capture finds."""
    address, length = args[capture.argument], capture.size
    if capture.after_success and result < 0:
        return None
    if capture.how is How.STRING:
        return _string(memory, address)
    if capture.how is How.STRINGS:
        return _strings(memory, address)
    if capture.how is How.VECTOR:
        return _vector(memory, address, args[capture.size], result if capture.after_success else CAPTURE_MAX)
    if capture.how is How.MESSAGE:
        header = _read(memory, address + 16, 16)
        vector, count = struct.unpack("<QQ", header) if header else (0, 0)
        return _vector(memory, vector, count, result if capture.after_success else CAPTURE_MAX) if count else None
    if capture.how is How.BITS:
        length = ((args[capture.size] & 0xFFFF) + 63) // 64 * 8
    if capture.how is How.BYTES_ARG:
        length = args[capture.size]
    elif capture.how is How.BYTES_RESULT:
        length = min(result, args[capture.size])
    elif capture.how is How.BYTES_POINTED:
        pointed = _read(memory, args[capture.size], 4)
        length = struct.unpack("<I", pointed)[0] if pointed else -1
    data = _read(memory, address, length)
    return None if data is None else Captured(data, length)
