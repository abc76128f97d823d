"""--redact: patterns of what may not leave this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gadget.errors import UsageError


class Masker:
    """Replaces what patterns match in a text by as many asterisks."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Mask what any of patterns matches. UsageError if one is no regular expression."""
        try:
            self._patterns = [re.compile(os.fsencode(pattern)) for pattern in patterns]
        except re.error as error:
            raise UsageError(f"--redact: {error}") from None

    def mask(self, data: bytes) -> bytes:
        """A text with asterisks over what matches."""
        masked = np.frombuffer(data, np.uint8).copy()
        masked[self.hidden(data)] = ord("*")
        return masked.tobytes()

    def hidden(self, text: bytes) -> npt.NDArray[np.bool_]:
        """Which bytes to mask. Those between arguments are NULs: they match as spaces too, and stay."""
        matched = bytearray(len(text))
        for form in {text, text.replace(b"\0", b" ")}:
            for pattern in self._patterns:
                for match in pattern.finditer(form):
                    matched[match.start() : match.end()] = b"\1" * len(match[0])
        hidden = np.frombuffer(matched, np.bool_)
        hidden[np.frombuffer(text, np.uint8) == 0] = False
        return hidden
