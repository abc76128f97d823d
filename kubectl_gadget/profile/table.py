"""The table of what was seen, in any form of rows."""

from __future__ import annotations

from collections.abc import Sequence

from gadget.schema import IDENTITY, Column
from kubectl_gadget.output import IDENTITY_COLUMNS, Extent, find_form, make_output, write_table
from kubectl_gadget.profile import hottest, longest
from kubectl_gadget.profile.stacks import Samples


def write(samples: Samples, form: str, top: int) -> None:
    """Write the first top rows, 0 for all. Where columns are few, files are without their folders."""
    of = longest if samples.waits else hottest
    fields = _shown(of.FIELDS, of.WIDE, form)
    names = [field.name for field in of.FIELDS]
    found = (dict(zip(names, row, strict=True)) for row in of.rows(samples, top))
    if find_form(form).extent < Extent.WIDE:
        found = (row | {"file": row["file"].rpartition("/")[2] or row["file"]} for row in found)
    write_table(make_output(form, fields, {}), [tuple(row[field.name] for field in fields) for row in found])


def _shown(fields: Sequence[Column], wide: Sequence[str], form: str) -> Sequence[Column]:
    """Those that a form shows."""
    extent = find_form(form).extent
    if extent == Extent.ALL:
        return fields
    left_out = {*IDENTITY} - {*IDENTITY_COLUMNS} | ({*wide} if extent < Extent.WIDE else set())
    return [field for field in fields if field.name not in left_out]
