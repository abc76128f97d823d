"""Starts a program under a seccomp profile as runtimes have them: a JSON file with a list of what is allowed.

python -m tests.seccomp PROFILE PROGRAM ARGUMENT…
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from gadget import syscalls

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2  # linux/prctl.h, linux/seccomp.h
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
_libc = ctypes.CDLL(None, use_errno=True)

#: Code, jump if true, jump if not, operand.
Instruction = tuple[int, int, int, int]


def control(*arguments: int) -> None:
    """Call prctl(2). OSError if it fails."""
    if _libc.prctl(*(ctypes.c_ulong(each) for each in arguments)):
        raise OSError(ctypes.get_errno(), f"prctl {arguments[0]}")


def load(code: Sequence[Instruction]) -> None:
    """Filter this process's system calls from now on."""
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in code))
    filters = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(program)))
    control(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(filters), 0, 0)


def no_new_privileges() -> None:
    """What a filter wants of those who have not CAP_SYS_ADMIN, and what allowPrivilegeEscalation: false sets."""
    control(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def names_in(profile: Path) -> list[str]:
    """The calls that a profile allows, which has to refuse all others with EPERM."""
    content = json.loads(profile.read_text())
    assert (content["defaultAction"], content["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    (rule,) = content["syscalls"]
    assert rule["action"] == "SCMP_ACT_ALLOW"
    return list(rule["names"])


def allow(names: Sequence[str]) -> None:
    """Refuse all calls but these; one that this machine does not have is left out."""
    numbers = syscalls.numbers(os.uname().machine)
    code: list[Instruction] = [(LOAD, 0, 0, 0)]
    for name in names:
        if name in numbers:
            code += [(IF_EQUAL, 0, 1, numbers[name]), (RETURN, 0, 0, ALLOW)]
    load([*code, (RETURN, 0, 0, ERRNO | 1)])


def main() -> None:
    """Become the program."""
    no_new_privileges()
    allow(names_in(Path(sys.argv[1])))
    os.execv(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
