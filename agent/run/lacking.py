"""Which gadgets this kernel cannot run, and why: each is loaded once, when somebody asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from gadget import catalog
from gadget.catalog import Gadget
from gadget.errors import Exhausted, GadgetError, NoRights


class Lacking:
    """What is known of it so far. It stays, as the kernel does."""

    def __init__(self, check: Callable[[Gadget], None]) -> None:
        """Nothing yet. check raises a GadgetError if a gadget cannot be loaded."""
        self._check = check
        self._lock = threading.Lock()
        self._found: dict[str, str] = {}

    def find(self, active: Callable[[], bool]) -> Mapping[str, str]:
        """Why each gadget cannot run of those that cannot, by name. NoRights or Exhausted if that is not the kernel's.

        It takes seconds the first time, in which only one caller loads; it ends early if nobody is active any more.
        """
        with self._lock:
            for name, each in catalog.load().items():
                if name not in self._found and active():
                    self._found[name] = self._why(each)
            return {name: why for name, why in self._found.items() if why}

    def _why(self, gadget: Gadget) -> str:
        try:
            self._check(gadget)
        except (NoRights, Exhausted):
            raise
        except GadgetError as error:
            return str(error)
        return ""
