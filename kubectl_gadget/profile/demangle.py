"""Names of C++ and Rust as people write them, by binutils' c++filt, if there is one.

A container may have chosen a name to do harm: in two hundred bytes, each part of which stands for twice the one before,
there is more text than memory. So another process does it, which is bounded, such names are the last ones that it is
given, and what it fails at keeps its name.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest

#: What compilers make: of C++ (_Z), also of Rust before 2025, and of Rust since (_R).
_MANGLED = re.compile(r"_[ZR][A-Za-z0-9_.$]{2,2048}")
#: For all names together; what one process takes of that at most; and its memory and output.
SECONDS, _AT_ONCE, _MEMORY, _OUTPUT = 5.0, 1 / 10, 64 << 20, 16 << 20
#: What stands for a part of the name that was there before: with so few of them a name can't grow much.
_AGAIN, _FEW = frozenset("STB"), 8
#: Names at once, with few of them and with many.
_SIMPLE, _OTHERS = 2_000, 50
#: Letters of a name that are shown.
LONGEST = 1024


def demangled(*containers: Iterable[str], seconds: float = SECONDS) -> dict[str, str]:
    """Those of the names of each container that mean something else, and what.

    No container takes the time of another one: simple names take turns, of the others each has a share.
    """
    growth = [{name: _growth(name) for name in names if _MANGLED.fullmatch(name)} for names in containers]
    command = shutil.which("c++filt")
    if not any(growth) or not command:
        return {}
    until, at_once = time.monotonic() + seconds, seconds * _AT_ONCE
    of_each = [[name for name, times in names.items() if times <= _FEW] for names in growth]
    simple = [*dict.fromkeys(name for turn in zip_longest(*of_each) for name in turn if name)]
    half = until - seconds / 2
    parts = (simple[at : at + _SIMPLE] for at in range(0, len(simple), _SIMPLE))
    found = {name: meaning for part in parts for name, meaning in _read(command, part, half, at_once)}
    others = [[name for name in sorted(names, key=names.__getitem__) if names[name] > _FEW] for names in growth]
    others = sorted(filter(None, others), key=len)
    for left, names in zip(range(len(others), 0, -1), others, strict=True):
        share = time.monotonic() + (until - time.monotonic()) / left
        for at in range(0, len(names), _OTHERS):
            found.update(_read(command, names[at : at + _OTHERS], share, at_once))
    return found


def _growth(name: str) -> int:
    """At how many places at most a part may stand that was there before, such as S1_, T_ and B3_."""
    *parts, _ = name.split("_")
    return sum(not _AGAIN.isdisjoint(part) for part in parts)


def _read(command: str, names: Sequence[str], until: float, at_once: float) -> Iterator[tuple[str, str]]:
    """Name after name. Of a batch that cannot be read the halves are tried."""
    told = _ask(command, names, min(until - time.monotonic(), at_once))
    if len(told) == len(names):
        for name, found in zip(names, told, strict=True):
            if found != name:
                yield name, found if len(found) <= LONGEST else found[:LONGEST] + "…"
    elif len(names) > 1 and time.monotonic() < until:
        half = len(names) // 2
        yield from _read(command, names[:half], until, at_once)
        yield from _read(command, names[half:], until, at_once)


def _ask(command: str, names: Sequence[str], seconds: float) -> list[str]:
    """The lines that c++filt makes of names; fewer if it failed."""
    if seconds <= 0:
        return []
    with tempfile.TemporaryFile() as out, suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            [command, "--no-strip-underscores"],
            input="".join(f"{name}\n" for name in names).encode(),
            stdout=out,
            stderr=subprocess.DEVNULL,
            preexec_fn=_bound,
            timeout=seconds,
            check=True,
        )
        out.seek(0)
        *lines, _ = out.read(_OUTPUT).decode("utf-8", "backslashreplace").split("\n")  # Rust has others in names
        return lines
    return []


def _bound() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_OUTPUT, _OUTPUT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(SECONDS), int(SECONDS)))
