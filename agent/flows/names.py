"""The names for which pods got the addresses that they connect to, by DNS. They outlive the pods and the agent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.domains import NAME_LETTERS, Domains
from agent.files import StateFile

#: Answers to one pod that are read of each batch: most are for the same few names.
ANSWERS = 16
_BYTES = (4, 16)


class NamesOfPods(Domains):
    """Names by the UID of the pod that asked; they count as long as there is room for them, as flows do."""

    def __init__(self, file: Path, owner_of: Callable[[int], str | None]) -> None:
        """Go on with the names in file, as far as it can be read. owner_of gives the pod of a cgroup."""
        super().__init__(lambda: 0.0, owner_of, ANSWERS)
        self._memory = StateFile(file, "names of addresses")
        self._memory.recall(self._recall)
        self._saved = self.changes

    def _recall(self, saved: dict[str, Any]) -> None:
        for uid, address, names in saved["names"]:
            packed = bytes.fromhex(address)
            if not isinstance(uid, str) or len(packed) not in _BYTES:
                raise ValueError(f"not a pod's address: {uid!r} {address!r}")
            for name in names:
                if not isinstance(name, str) or len(name) > NAME_LETTERS:
                    raise ValueError(f"not a name: {name!r}")
                self.add(uid, name, [(packed, 0)])

    def save(self) -> None:
        """Write the file, if a name is new."""
        changes = self.changes
        if changes == self._saved:
            return
        content = {"names": [(uid, address.hex(), names) for uid, address, names in self.all()]}
        if self._memory.write(content):  # else tried again the next time
            self._saved = changes
