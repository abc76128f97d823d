"""What is in the built objects."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import agent
from agent.run.source import TABLES

OBJECTS = sorted((Path(agent.__file__).parent / "_objects").glob("*/*.bpf.o"))


def readelf(what: str, path: Path) -> list[list[str]]:
    done = subprocess.run(["readelf", what, "--wide", str(path)], capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def maps_of(path: Path) -> set[str]:
    sections = "\n".join(" ".join(words) for words in readelf("--sections", path))
    number = re.search(r"\[ ?(\d+)\] \.maps ", sections)
    assert number, sections
    return {words[7] for words in readelf("--symbols", path) if len(words) == 8 and words[6] == number[1]}


def used_in(path: Path) -> set[str]:
    """The names that code refers to."""
    names, code = set(), False
    for words in readelf("--relocs", path):
        if words[:2] == ["Relocation", "section"]:
            code = not words[2].startswith(("'.rel.BTF", "'.rel.debug"))
        elif code and len(words) >= 5:
            names.add(words[4])
    return names


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_map_is_used(path: Path) -> None:
    """No object brings a map along that nobody uses: the kernel would set memory aside for it."""
    assert maps_of(path)
    if not (used := used_in(path)):
        return  # it has no program: the agent alone uses its maps
    # the second table is put in the first one's place by the agent, which also iterates over turns
    assert maps_of(path) - used - {TABLES[1], "turns"} == set()
