"""Finds the arguments that a call really takes. Further registers hold old values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

from gadget import syscalls
from kubectl_gadget.strace.calls import Call


def _flag(call: Call, name: str, flag: str) -> int:
    return syscalls.flags(call.machine, name)[flag]


def _creates(flags: int, call: Call) -> bool:
    # O_TMPFILE holds O_DIRECTORY's bit, which alone asks for no mode
    only_temporary = _flag(call, "OPEN", "O_TMPFILE") & ~_flag(call, "OPEN", "O_DIRECTORY")
    return bool(flags & (_flag(call, "OPEN", "O_CREAT") | only_temporary))


def _fcntl(call: Call) -> int:
    commands = syscalls.flags(call.machine, "FCNTL")
    alone = ("F_GETFD", "F_GETFL", "F_GETOWN", "F_GETSIG", "F_GETLEASE", "F_GETPIPE_SZ", "F_GET_SEALS")
    return 2 if call.args[1] in (commands[name] for name in alone) else 3


#: The upper half of an offset means something on 32-bit machines alone.
_POSITIONED = {"preadv": range(4), "pwritev": range(4), "preadv2": (0, 1, 2, 3, 5), "pwritev2": (0, 1, 2, 3, 5)}
#: Arguments of the operations of futex that do not take all six.
_FUTEX = {
    "FUTEX_WAIT": (0, 1, 2, 3),
    "FUTEX_WAKE": (0, 1, 2),
    "FUTEX_REQUEUE": (0, 1, 2, 3, 4),
    "FUTEX_LOCK_PI": (0, 1, 3),
    "FUTEX_LOCK_PI2": (0, 1, 3),
    "FUTEX_UNLOCK_PI": (0, 1),
    "FUTEX_TRYLOCK_PI": (0, 1),
    "FUTEX_WAIT_BITSET": (0, 1, 2, 3, 5),
    "FUTEX_WAKE_BITSET": (0, 1, 2, 5),
    "FUTEX_WAIT_REQUEUE_PI": (0, 1, 2, 3, 4),
}
#: How many arguments the options of prctl take; five if it is not known.
_PRCTL = {
    1: "PR_GET_DUMPABLE PR_GET_KEEPCAPS PR_GET_SECCOMP PR_GET_TIMERSLACK PR_GET_SECUREBITS",
    2: "PR_SET_NAME PR_GET_NAME PR_SET_PDEATHSIG PR_GET_PDEATHSIG PR_SET_DUMPABLE PR_SET_KEEPCAPS PR_CAPBSET_READ"
    " PR_CAPBSET_DROP PR_SET_CHILD_SUBREAPER PR_GET_CHILD_SUBREAPER PR_SET_TIMERSLACK PR_SET_SECUREBITS",
    3: "PR_SET_SECCOMP",
}


#: The same of keyctl.
_KEYCTL = {
    1: "SESSION_TO_PARENT",
    2: "JOIN_SESSION_KEYRING REVOKE CLEAR SET_REQKEY_KEYRING ASSUME_AUTHORITY INVALIDATE",
    3: "GET_KEYRING_ID SETPERM LINK UNLINK SET_TIMEOUT GET_PERSISTENT CAPABILITIES",
    4: "UPDATE CHOWN DESCRIBE READ NEGATE GET_SECURITY RESTRICT_KEYRING",
}


@cache
def _keyctl_counts(machine: str) -> dict[int, int]:
    commands = syscalls.flags(machine, "KEYCTL")
    return {commands[f"KEYCTL_{name}"]: count for count, names in _KEYCTL.items() for name in names.split()}


@cache
def _futex_arguments(machine: str) -> dict[int, Sequence[int]]:
    operations = syscalls.flags(machine, "FUTEX")
    return {operations[name]: shown for name, shown in _FUTEX.items()}


@cache
def _prctl_counts(machine: str) -> dict[int, int]:
    options = syscalls.flags(machine, "PRCTL")
    return {options[name]: count for count, names in _PRCTL.items() for name in names.split()}


def _is_device(mode: int, call: Call) -> bool:
    kinds = syscalls.flags(call.machine, "MODE_TYPE")
    return mode & 0o170000 in (kinds["S_IFCHR"], kinds["S_IFBLK"])


_COUNTS: Mapping[str, Callable[[Call], int]] = {
    "fcntl": _fcntl,
    "ioctl": lambda call: (
        2 if call.args[1] in (_flag(call, "IOCTL", "FIOCLEX"), _flag(call, "IOCTL", "FIONCLEX")) else 3
    ),
    "keyctl": lambda call: _keyctl_counts(call.machine).get(call.args[0] & 0xFFFFFFFF, 5),
    "mknod": lambda call: 3 if _is_device(call.args[1], call) else 2,
    "mknodat": lambda call: 4 if _is_device(call.args[2], call) else 3,
    "mq_open": lambda call: 4 if _creates(call.args[1], call) else 2,
    "mremap": lambda call: 5 if call.args[3] & _flag(call, "MREMAP", "MREMAP_FIXED") else 4,
    "open": lambda call: 3 if _creates(call.args[1], call) else 2,
    "openat": lambda call: 4 if _creates(call.args[2], call) else 3,
    "prctl": lambda call: _prctl_counts(call.machine).get(call.args[0] & 0xFFFFFFFF, 5),
}


def visible(name: str, count: int, call: Call) -> Sequence[int]:
    """Which of the count arguments of the call's prototype this call has."""
    if name == "futex":
        return _futex_arguments(call.machine).get(call.args[1] & 0x7F, range(count))
    if name in _POSITIONED:
        return _POSITIONED[name]
    counted = _COUNTS.get(name)
    return range(counted(call) if counted else count)
