"""What the kernels showed: read from the guests, compared with what was accepted before, kept for the docs."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path

from agent.bpf.objects import FLAVOUR, OBJECTS
from tests.vm.guest import Done

#: Of each line what `make test-kernels ACCEPT=1` saw last.
ACCEPTED = Path(__file__).with_name("accepted.json")
#: By how much the verifier may process more instructions of a program than were accepted. It stops at a million.
JUMP = 1.2
#: Here a gadget may say what the kernel lacks instead of working.
OLDEST = "5.10"
#: What may need more than that elsewhere too, and says so there. accepted.json has where.
MAY_LACK = {"capable"}
WORKS = "works"


@dataclass
class Result:
    """One kernel. gadgets: each object works, or the line that says what is missing. instructions: by object/program."""

    release: str = ""
    gadgets: dict[str, str] = field(default_factory=dict)
    instructions: dict[str, int] = field(default_factory=dict)

    def with_new(self, of_some: Result) -> Result:
        """This one, with what another one says of some objects."""
        kept = {name: count for name, count in self.instructions.items() if name.split("/")[0] not in of_some.gadgets}
        return Result(
            of_some.release,
            dict(sorted((self.gadgets | of_some.gadgets).items())),
            dict(sorted((kept | of_some.instructions).items(), key=lambda item: item[0].split("/")[0])),
        )


def objects() -> list[str]:
    """Everything that is loaded into kernels."""
    names = sorted(path.name.removesuffix(".bpf.o") for path in (OBJECTS / "x86_64").glob("*.bpf.o"))
    return [name for name in names if FLAVOUR not in name]  # each is taken by its object's name where a kernel has it


def read(done: Done) -> tuple[Result, list[str], list[str]]:
    """What a guest showed, what is wrong with that, and what else a reader should know."""
    result, problems, notes = Result(), [], []
    complete = False
    for line in done.output.splitlines():
        if not line.startswith("{"):
            problems.append(line)
            continue
        said = json.loads(line)
        result.release = said.get("release", result.release)
        complete |= said.get("done", False)
        if "program" in said and said["instructions"]:  # told from Linux 5.16 on
            result.instructions[said["program"]] = said["instructions"]
        if "case" in said:
            problems += [f"{said['case']}: {text}" for text in [said.get("failed")] if text]
            if said["attempts"] > 1:
                notes.append(f"{said['case']} in {said['attempts']} attempts")
            name = said["case"].removeprefix("load ")
            state = said.get("lacks", WORKS)
            if result.gadgets.get(name, WORKS) == WORKS:
                result.gadgets[name] = state
            if name == said["case"]:
                result.gadgets[name] = state
    if done.status or not complete:
        problems.append(f"the tests ended early, with status {done.status}")
    return result, problems, notes


def judge(line: str, result: Result, cases: set[str], accepted: Result | None, *, whole: bool = True) -> list[str]:
    """What is wrong with a result beside what its tests say: missing ones, gadgets that should work, costs that jump.

    cases are the names of the core tests that there are, if whole; else those that were to be tried. Without accepted
    figures nothing is compared.
    """
    problems = [f"{name} has no core test in tests/vm/cases" for name in objects() if whole and name not in cases]
    problems += [f"{name} was not tried" for name in cases if name not in result.gadgets]
    for name, state in result.gadgets.items():
        if state != WORKS and line != OLDEST and name not in MAY_LACK:
            problems.append(f"{name} does not work: {state}")
        if "\n" in state:
            problems.append(f"{name} says what is missing in more than one line")
    if accepted is None:
        return problems
    for name, state in result.gadgets.items():
        if (state == WORKS) != (accepted.gadgets.get(name) == WORKS):
            problems.append(f"{name}: {state}; accepted was: {accepted.gadgets.get(name, 'nothing')}")
    for name, count in result.instructions.items():
        before = accepted.instructions.get(name)
        if before is None:
            problems.append(f"{name}: {count:,} instructions verified, and no accepted figure")
        elif count > before * JUMP:
            problems.append(f"{name}: {count:,} instructions verified, {before:,} accepted")
    return problems


def broken(result: Result, accepted: Result, told: Collection[str]) -> list[str]:
    """What worked before and does not any more, but for objects of which that was told."""
    return [
        f"{name} worked before: {state}. LACKS={name} accepts that"
        for name, state in result.gadgets.items()
        if state != WORKS and accepted.gadgets.get(name) == WORKS and name not in told
    ]


def place(line: str) -> tuple[str, list[int]]:
    """Where a line stands among others: below older ones, and those of other machines below all."""
    version, _, arch = line.partition("-")
    return arch, [int(part) for part in version.split(".")]


def load() -> dict[str, Result]:
    """What was accepted, by line."""
    if not ACCEPTED.exists():
        return {}
    return {line: Result(**values) for line, values in json.loads(ACCEPTED.read_text()).items()}


def save(results: dict[str, Result]) -> None:
    """Accept results of some lines."""
    merged = load() | results
    ordered = sorted(merged.items(), key=lambda item: place(item[0]))
    text = json.dumps({line: asdict(result) for line, result in ordered}, indent=1, sort_keys=False)
    ACCEPTED.write_text(text + "\n")
