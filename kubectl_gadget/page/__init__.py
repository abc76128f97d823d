"""The page that shows who talks to whom: one document that loads nothing, with all that is known, or told as it comes.

Its parts are plain modules of JavaScript. In the document they are one script, as modules of a file cannot import each
other; the policy of the document names that script and its style by their hashes, so nothing else can run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gadget.text import escape
from kubectl_gadget.page.build import build
from kubectl_gadget.terms import GRAMMAR

#: What the page knows: new spots and edges, and sums of edges; model.js says what is where.
Message = Mapping[str, Any]
_FOLDER = Path(__file__).parent
#: In an order in which each stands behind those that it imports.
_MODULES = ("text", "model", "filter", "layout", "map", "table", "save", "drawer", "policies", "main")
_IMPORT = re.compile(r"^import (\{.*\}) from \"\./(\w+)\.js\";$", re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?function|const|class) (\w+)", re.MULTILINE)


def document(
    title: str,
    messages: Iterable[Message] = (),
    *,
    live: bool = False,
    empty: str = "",
    policies: bool = False,
    labels: bool = False,
) -> str:
    """The page. live: what is known comes as events from where it is, and if policies, what they say of it.

    empty says what there is to say to who sees nothing. labels: messages have the labels of spots.
    """
    data = {
        "live": live, "messages": [*messages], "empty": empty, "policies": policies, "labels": labels,
        "grammar": GRAMMAR,
    }  # fmt: skip
    return build(_FOLDER / "index.html", _style(), _script(), data, asks=live, title=escape(title))


@cache
def _style() -> str:
    return (_FOLDER / "style.css").read_text()


@cache
def _script() -> str:
    return "".join(_as_function(name, (_FOLDER / f"{name}.js").read_text()) for name in _MODULES)


def _as_function(name: str, module: str) -> str:
    """A module as a function that is called at once: its names are its own, and it gives those that it exports."""
    names = ", ".join(found[2] for found in _EXPORT.finditer(module))
    inside = _EXPORT.sub(r"\1 \2", _IMPORT.sub(r"const \1 = module_\2;", module))
    return f"const module_{name} = (() => {{\n{inside}return {{ {names} }};\n}})();\n"
