"""Starts a service as systemd would, where systemd is not process 1: applies the directives of its unit, then its program.

    python -m tests.systemd UNIT PROGRAM

A directive that is not known here is an error, so that a unit is not called tested for what was left out.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from tests.seccomp import ALLOW, ERRNO, IF_EQUAL, LOAD, RETURN, control, load, no_new_privileges

_PR_CAPBSET_DROP = 24  # linux/prctl.h
_SOCKET = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
_EAFNOSUPPORT = 97
_FAMILIES = {"AF_UNIX": 1, "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16}

#: What has no bearing on whether the program can work, or has a test of its own.
LEFT_OUT = {"Description", "After", "Wants", "Type", "Restart", "RestartSec", "WantedBy", "MemoryMax", "ExecStart",
            "RuntimeDirectoryMode", "StateDirectoryMode"}  # fmt: skip
Directives = dict[str, str]


def read_unit(path: Path) -> Directives:
    """The directives of a unit, whatever their section."""
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if re.match(r"[A-Z]\w*=", line))


def _folder(base: str, option: str) -> Callable[[str, Directives], None]:
    def make(name: str, unit: Directives) -> None:
        path = Path(base, name)
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(int(unit.get(option, "755"), 8))

    return make


def _bound(names: str, _: Directives) -> None:
    header = Path("/usr/include/linux/capability.h").read_text()
    numbers = {name: int(number) for name, number in re.findall(r"#define (CAP_\w+)\s+(\d+)$", header, re.M)}
    kept = {numbers[name] for name in names.split()}
    for number in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        if number not in kept:
            control(_PR_CAPBSET_DROP, number, 0, 0, 0)


def _no_new_privileges(value: str, _: Directives) -> None:
    assert value == "yes"
    no_new_privileges()


def _families(names: str, _: Directives) -> None:
    """A seccomp filter of socket(2), as systemd's: struct seccomp_data has the number at 0 and arguments from 16 on."""
    allowed = [_FAMILIES[name] for name in names.split()]
    last = len(allowed)
    code = [(LOAD, 0, 0, 0), (IF_EQUAL, 0, last + 2, _SOCKET), (LOAD, 0, 0, 16)]
    code += [(IF_EQUAL, last - at, 0, family) for at, family in enumerate(allowed)]
    load([*code, (RETURN, 0, 0, ERRNO | _EAFNOSUPPORT), (RETURN, 0, 0, ALLOW)])


#: In the order in which systemd applies them (exec_child, src/core/execute.c).
APPLY: dict[str, Callable[[str, Directives], None]] = {
    "UMask": lambda mask, _: (os.umask(int(mask, 8)), None)[1],
    "RuntimeDirectory": _folder("/run", "RuntimeDirectoryMode"),
    "StateDirectory": _folder("/var/lib", "StateDirectoryMode"),
    "CapabilityBoundingSet": _bound,
    "NoNewPrivileges": _no_new_privileges,
    "RestrictAddressFamilies": _families,
}


def main() -> None:
    """Become the service."""
    unit = read_unit(Path(sys.argv[1]))
    if unknown := unit.keys() - APPLY.keys() - LEFT_OUT:
        sys.exit(f"not known here: {', '.join(unknown)}")
    os.umask(0o022)  # systemd's own
    for name, apply in APPLY.items():
        if name in unit:
            apply(unit[name], unit)
    os.execv(sys.argv[2], [sys.argv[2], *unit["ExecStart"].split()[1:]])


if __name__ == "__main__":
    main()
