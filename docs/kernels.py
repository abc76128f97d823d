"""The generated part of docs/kernels.md: what `make test-kernels` saw on each kernel."""

from __future__ import annotations

import re
from pathlib import Path

from tests.vm import results
from tests.vm.results import WORKS, Result

PAGE = Path(__file__).with_name("kernels.md")
BEGIN, END = "<!-- begin: made by make test-kernels ACCEPT=1 -->\n", "<!-- end -->\n"
NOT_GADGETS = {"tracker": "tracker (containers and their names)"}


def page() -> str:
    """The page, with its generated part as it should be."""
    before, rest = PAGE.read_text().split(BEGIN)
    return before + BEGIN + "\n" + _tables(results.load()) + "\n" + END + rest.split(END)[1]


def _tables(kernels: dict[str, Result]) -> str:
    gadgets = sorted({name for kernel in kernels.values() for name in kernel.gadgets})
    lines = list(kernels)
    oldest, *_ = lines
    rows = ["| | oldest kernel | on " + oldest + " |", "|---|---|---|"]
    for name in gadgets:
        first = next(line for line in lines if kernels[line].gadgets.get(name) == WORKS)
        state = kernels[oldest].gadgets[name]
        # "this kernel (5.10.0-46-cloud-amd64) lacks WHAT, which GADGET needs"
        lacks = re.sub(r"^this kernel \(.*?\) (.*), which \w+ needs$", r"\1", state)
        rows.append(f"| {NOT_GADGETS.get(name, name)} | {first} | {lacks} |")
    rows += ["", "Instructions that the verifier processed, of a million that it would:", ""]
    told = [line for line in lines if kernels[line].instructions]
    rows += ["| program | " + " | ".join(kernels[line].release.partition("-cloud")[0] for line in told) + " |"]
    rows += ["|---|" + "---:|" * len(told)]
    for program in sorted({name for line in told for name in kernels[line].instructions}):
        counts = [kernels[line].instructions.get(program) for line in told]
        rows.append(f"| {program} | " + " | ".join("" if count is None else f"{count:,}" for count in counts) + " |")
    return "\n".join(rows) + "\n"
