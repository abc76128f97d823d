"""Builds pages of one document that loads nothing: their data is text, and only their own script may run."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from pathlib import Path
from string import Template
from typing import Any


def build(template: Path, style: str, script: str, data: Any, *, asks: bool = False, **texts: str) -> str:
    """The document of a template with its style, its script, data that the script reads, and texts.

    The document's policy names style and script by their hashes. asks: the script may ask whoever served it.
    """
    from kubectl_gadget.output.encode import encode

    connect = "; connect-src 'self'" if asks else ""
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; base-uri 'none'; "
        f"form-action 'none'{connect}"
    )
    return Template(template.read_text()).substitute(
        {name: escape(text) for name, text in texts.items()},
        policy=policy,
        style=style,
        script=script,
        data=encode(data).decode().replace("<", "\\u003c"),  # nothing in it may end the element
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
