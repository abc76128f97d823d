"""The step that masks what may not leave this machine: --redact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from agent.masking import Masker
from agent.run.batch import Rows
from gadget import parameters
from gadget.catalog import Gadget
from gadget.errors import Unsupported
from gadget.kinds import find


class Masked:
    """Masks in the rows of a gadget. A match lies in one value of one row."""

    def __init__(self, gadget: Gadget, masker: Masker) -> None:
        """Of gadget, which has fields to mask."""
        self._schema, self._masker = gadget.schema, masker
        self._names = masked_fields(gadget)

    def __call__(self, looked: list[Rows]) -> list[Rows]:
        """Copies of rows, as they may be the kernel's memory."""
        return [self._mask(rows) for rows in looked]

    def _mask(self, rows: Rows) -> Rows:
        copies = np.ascontiguousarray(rows).copy()
        records = copies.view(self._schema.dtype(copies.shape[1]))[:, 0]
        for name in self._names:
            starts = self._schema.text_offset + records[name]["offset"].astype(np.int64)
            ends = starts + records[name]["length"]
            for row, start, end in zip(copies, starts.tolist(), ends.tolist(), strict=True):
                row[start:end][self._masker.hidden(row[start:end].tobytes())] = ord("*")
        return copies


def masked_fields(gadget: Gadget) -> Sequence[str]:
    """The fields of a gadget that an agent with --redact masks."""
    return [field.name for field in gadget.schema.fields if find(field.kind).is_masked]


def check_maskable(gadget: Gadget, settings: Mapping[str, str]) -> None:
    """Unsupported if parameter settings ask for what no pattern can mask."""
    for parameter, encoded in parameters.encode_all(gadget, settings):
        if parameter.name in gadget.unmasked and any(encoded):
            option = parameter.name.replace("_", "-")
            raise Unsupported(f"--{option} of {gadget.name} shows what cannot be masked: this agent has --redact")
