"""The kernel's own functions: /proc/kallsyms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

#: A kernel with all modules has 200,000 names, about 12 MiB.
MOST_BYTES = 64 << 20
_CHUNK = 1 << 20
#: No function is longer: what is so far behind the last one is of something that the kernel does not tell of.
_LONGEST = 1 << 18
_CODE = frozenset(b"tTwW")
#: What the kernel calls where it begins and ends: no functions.
_MARKS = (b"_text", b"_stext", b"_etext", b"_sinittext", b"_einittext")
KERNEL = "[kernel]"


class KernelFunctions:
    """The functions of the kernel, its modules and BPF programs, as they are now."""

    def __init__(self, path: Path = Path("/proc/kallsyms")) -> None:
        """Read them."""
        begins: list[int] = []
        names: list[bytes] = []
        self._end = 0
        with path.open("rb") as file:
            read, rest = 0, b""
            while read < MOST_BYTES and (data := file.read(_CHUNK)):
                read += len(data)
                lines = (rest + data).split(b"\n")
                rest = lines.pop()
                for line in lines:
                    if len(line) > 19 and line[17] in _CODE:
                        name = line[19:]
                        if name in _MARKS:
                            self._end = int(line[:16], 16) if name == b"_etext" else self._end
                            continue
                        begins.append(int(line[:16], 16))
                        names.append(name)
        order = np.argsort(np.array(begins, np.uint64), kind="stable")
        self._begins = np.array(begins, np.uint64)[order]
        self._places = order
        self._names = names
        #: whether there is anything: without CAP_SYSLOG all addresses are 0
        self.is_known = bool(len(self._begins)) and int(self._begins[-1]) > 0

    def find(self, address: int) -> tuple[str, str]:
        """The name and module of the function that an address lies in; an empty name if it is in none."""
        at = int(np.searchsorted(self._begins, np.uint64(address), side="right")) - 1
        if not self.is_known or at < 0:
            return "", KERNEL
        # several names of one place: the first that the kernel tells
        at = int(np.searchsorted(self._begins, self._begins[at], side="left"))
        name, _, module = self._names[self._places[at]].partition(b"\t")
        begin = int(self._begins[at])
        if address - begin >= _LONGEST or (not module and begin < self._end <= address):
            return "", KERNEL
        return name.decode(errors="backslashreplace"), module.decode(errors="backslashreplace") or KERNEL
