"""Programs that run at a rate on every CPU, and so see what it does at that moment."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from ctypes import c_uint32, c_uint64
from pathlib import Path

from agent.bpf import libbpf
from agent.bpf.attach.where import Where

#: So often a second at most: a program of a microsecond then takes a thousandth of a CPU.
MOST_HZ = 1000
_ONLINE = Path("/sys/devices/system/cpu/online")
_SYS_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}  # asm/unistd.h
#: linux/perf_event.h
_SOFTWARE, _CPU_CLOCK, _CLOEXEC = 1, 0, 1 << 3
_EXCLUDE_IDLE, _FREQ = 1 << 7, 1 << 10
_libc = ctypes.CDLL(None, use_errno=True)


class _Attributes(ctypes.Structure):
    """struct perf_event_attr, as its first version was."""

    _fields_ = (
        ("type", c_uint32),
        ("size", c_uint32),
        ("config", c_uint64),
        ("sample_freq", c_uint64),
        ("sample_type", c_uint64),
        ("read_format", c_uint64),
        ("flags", c_uint64),
        ("wakeup_events", c_uint32),
        ("bp_type", c_uint32),
        ("config1", c_uint64),
    )


def takes(section: str) -> bool:
    """Of perf events."""
    return section == "perf_event"


def attach(program: int, where: Where) -> Iterator[int | None]:
    """A link for each CPU that is online now. It has the event: with the link the event goes."""
    if not 0 < where.hz <= MOST_HZ:
        raise OSError(errno.EINVAL, f"samples a second are 1 to {MOST_HZ}, not {where.hz}")
    for cpu in online():
        try:
            fd = _open(cpu, where.hz)
        except OSError as error:
            if error.errno == errno.ENODEV:  # it went offline meanwhile
                continue
            raise
        link = libbpf.library().bpf_program__attach_perf_event(program, fd)
        if not link:
            code = ctypes.get_errno()
            os.close(fd)
            ctypes.set_errno(code)
        yield link


def online(file: Path = _ONLINE) -> list[int]:
    """The CPUs that are online: "0-3,6"."""
    found: list[int] = []
    for part in file.read_bytes().strip().split(b","):
        first, _, last = part.partition(b"-")
        found += range(int(first), int(last or first) + 1)
    return found


def _open(cpu: int, hz: int) -> int:
    """An event of a clock in software, which virtual machines have, too. It does not come while the CPU is idle."""
    event = _Attributes(_SOFTWARE, ctypes.sizeof(_Attributes), _CPU_CLOCK, hz, flags=_EXCLUDE_IDLE | _FREQ)
    call = _SYS_PERF_EVENT_OPEN[os.uname().machine]
    fd: int = _libc.syscall(call, ctypes.byref(event), -1, cpu, -1, _CLOEXEC)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"perf_event_open: {os.strerror(code)}")
    return fd
