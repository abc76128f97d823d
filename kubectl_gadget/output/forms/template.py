"""Rows as a template has them: `-o format='{comm} {dst.addr}'`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gadget.errors import UsageError
from gadget.schema import Column, Row
from kubectl_gadget.output import Extent, Form, Look, Output, text_of
from kubectl_gadget.output.stdout import write_text

#: A field, or a brace that is written twice, or one that means nothing.
_BRACES = re.compile(r"\{([\w.]+)\}|(\{\{|\}\})|[{}]")


class Template(Output):
    """Writes a line for each row: text, then a field and the text behind it, for each field."""

    def __init__(self, fields: Sequence[Column], texts: Sequence[str], names: Sequence[str]) -> None:
        """Texts, with the names of fields between them. UsageError if fields are without one of them."""
        self.fields = fields
        known = {field.name: at for at, field in enumerate(fields)}
        if unknown := [name for name in names if name not in known]:
            raise UsageError(f"unknown field {unknown[0]!r} in -o format: there is {', '.join(known)}")
        self._first, *after = [text.replace("%", "%%") for text in texts]
        self._line = self._first + "".join(f"%s{text}" for text in after) + "\n"
        self._columns = [(known[name], text_of(fields[known[name]])) for name in names]

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows."""
        raw = list(zip(*rows, strict=True))
        cells = [map(text, raw[at]) for at, text in self._columns]
        write_text("".join([self._line % each for each in zip(*cells, strict=True)]))


def _read(template: str) -> Form:
    """The form of a template. UsageError if it is none."""
    texts, names, end = [""], [], 0
    for found in _BRACES.finditer(template):
        name, brace = found.groups()
        texts[-1] += template[end : found.start()] + (brace or "")[:1]
        end = found.end()
        if name:
            names.append(name)
            texts.append("")
        elif not brace:
            raise UsageError(f"a lone {found[0]} in {template!r}: want {{FIELD}}, and {found[0] * 2} for {found[0]}")
    texts[-1] += template[end:]
    if not names:
        raise UsageError(f"no field in {template!r}: want such as '{{comm}} {{pid}}'")
    if "\n" in template:
        raise UsageError("a template is one line")

    def make(fields: Sequence[Column], headers: Mapping[str, str], look: Look) -> Output:
        return Template(fields, texts, names)

    return replace(FORM, make=make, names=tuple(dict.fromkeys(names)))


def _needs_one(fields: Sequence[Column], headers: Mapping[str, str], look: Look) -> Output:
    raise UsageError(f"-o {FORM.name}: want {FORM.written}")


FORM = Form(
    "format",
    "a line as you write it, with {FIELD} or {FIELD.PART} for values, {{ and }} for braces",
    Extent.ALL,
    one_line=True,
    make=_needs_one,
    takes="TEMPLATE",
    read=_read,
)
FORMS = (FORM,)
