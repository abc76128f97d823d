"""What the names are that connections are made for: whatever a program sends."""

from __future__ import annotations

from gadget.kinds.texts import Parsed, decode_text


class Domain(Parsed):
    """The name of a server, as a client has it."""

    usual = tight = 20

    def read(self, data: bytes) -> str:
        """In lower case, without the root's dot: names that differ in this are the same (RFC 4343)."""
        return decode_text(data).lower().removesuffix(".")


KINDS = (Domain("domain"),)
