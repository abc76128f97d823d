"""The generated part of docs/kernels.md: what `make test-kernels` saw on each kernel."""

from __future__ import annotations

import re

from tests.vm import results
from tests.vm.results import WORKS, Result
from tools import DOCS

PAGE = DOCS / "kernels.md"
BEGIN, END = "<!-- begin: made by make test-kernels ACCEPT=1 -->\n", "<!-- end -->\n"
NOT_GADGETS = {
    "calls": "calls (which lead to the gadgets that want a system call)",
    "tracker": "tracker (containers and their names)",
}


def page() -> str:
    """The page, with its generated part as it should be."""
    before, rest = PAGE.read_text().split(BEGIN)
    return before + BEGIN + "\n" + _tables(results.load()) + "\n" + END + rest.split(END)[1]


def _tables(kernels: dict[str, Result]) -> str:
    gadgets = sorted({name for kernel in kernels.values() for name in kernel.gadgets})
    lines = list(kernels)
    oldest, *_ = lines
    shown = [oldest, *(line for line in lines if "-" in line)]  # such as 6.12-arm64
    rows = ["| | oldest kernel | on " + " | on ".join(shown) + " |", "|---|" + "---|" * (1 + len(shown))]
    for name in gadgets:
        first = next(line for line in lines if kernels[line].gadgets.get(name) == WORKS)
        # "this kernel (5.10.0-46-cloud-amd64) lacks WHAT, which GADGET needs"
        pattern = r"^this kernel \(.*?\) (.*), which \w+ needs$"
        states = [re.sub(pattern, r"\1", kernels[line].gadgets.get(name, "not tried")) for line in shown]
        rows.append(f"| {NOT_GADGETS.get(name, name)} | {first} | {' | '.join(states)} |")
    rows += ["", "Instructions that the verifier processed, of a million that it would:", ""]
    told = [line for line in lines if kernels[line].instructions]
    rows += ["| program | " + " | ".join(_short(kernels[line].release) for line in told) + " |"]
    rows += ["|---|" + "---:|" * len(told)]
    for program in sorted({name for line in told for name in kernels[line].instructions}):
        counts = [kernels[line].instructions.get(program) for line in told]
        rows.append(f"| {program} | " + " | ".join("" if count is None else f"{count:,}" for count in counts) + " |")
    return "\n".join(rows) + "\n"


def _short(release: str) -> str:
    """6.12.117+deb12 of 6.12.117+deb12-cloud-amd64; of another machine with its name."""
    return release.replace("-cloud", "").removesuffix("-amd64")
