"""The names for which pods got the addresses that they connect to, by DNS. Outlive the pods and the agent."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import orjson

from agent.domains import NAME_LETTERS, Domains
from agent.files import write_json

log = logging.getLogger(__name__)

#: Answers to one pod that are read of each batch: most are for the same few names.
ANSWERS = 16
_BYTES = (4, 16)


class Names(Domains):
    """Names by the UID of the pod that asked; they count as long as there is room for them, as flows do."""

    def __init__(self, file: Path, owner_of: Callable[[int], str | None]) -> None:
        """Go on with the names in file, as far as it can be read. owner_of gives the pod of a cgroup."""
        super().__init__(lambda: 0.0, owner_of, ANSWERS)
        self._file = file
        try:
            for uid, address, names in orjson.loads(file.read_bytes())["names"]:
                packed = bytes.fromhex(address)
                if not isinstance(uid, str) or len(packed) not in _BYTES:
                    raise ValueError(f"not a pod's address: {uid!r} {address!r}")
                for name in names:
                    if not isinstance(name, str) or len(name) > NAME_LETTERS:
                        raise ValueError(f"not a name: {name!r}")
                    self.add(uid, name, [(packed, 0)])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("flows: %s: %s: names of addresses are lost", file, error)
        self._saved = self.changes

    def save(self) -> None:
        """Write the file, if a name is new."""
        changes = self.changes
        if changes == self._saved:
            return
        content = {"names": [(uid, address.hex(), names) for uid, address, names in self.all()]}
        try:
            write_json(self._file, content)
            self._saved = changes
        except OSError as error:  # tried again the next time
            log.warning("flows: %s: %s", self._file, error)
