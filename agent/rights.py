"""What the agent must be allowed to do. Checked at its start, not when the kernel refuses the first program."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from agent.files import read_text
from gadget.errors import NoRights

#: Numbers of capabilities (linux/capability.h), and what each is for. Without CAP_SYS_PTRACE and the host's processes
#: an agent works: it tells less of processes, and says so (agent/inspect).
_NEEDED = {
    "CAP_BPF": (39, "loads programs"),
    "CAP_PERFMON": (38, "attaches them"),
    "CAP_DAC_READ_SEARCH": (2, "finds the cgroup of an event"),
}
_SYS_ADMIN = 21
#: How much of the file is read: the line of groups comes before the capabilities, and may have 65,536 (NGROUPS_MAX).
_STATUS_BYTES = 1 << 20
_COVERED = {"CAP_BPF", "CAP_PERFMON"}  # by CAP_SYS_ADMIN: bpf_capable(), perfmon_capable()


def missing(status: str) -> Collection[str]:
    """The capabilities that a process lacks, by its /proc/PID/status."""
    held = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    covered = _COVERED if held >> _SYS_ADMIN & 1 else set()
    return [name for name, (bit, _) in _NEEDED.items() if not held >> bit & 1 and name not in covered]


def require_rights(status: Path = Path("/proc/self/status")) -> None:
    """NoRights if this process lacks a capability without which there is nothing to show."""
    if lacks := missing(read_text(status, _STATUS_BYTES)):
        why = ", ".join(f"{name} ({_NEEDED[name][1]})" for name in lacks)
        raise NoRights(f"the agent lacks {why}: run it as root")
