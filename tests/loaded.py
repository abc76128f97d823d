"""Whose programs and maps are in the kernel: a test looks at its own alone, as other agents may be on the machine."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any


def bpf_programs() -> set[int]:
    """Ids of all loaded BPF programs: to ask whether those of a test still are."""
    return {program["id"] for program in _bpftool("prog")}


def pinned_programs(folder: Path) -> set[int]:
    """Ids of the programs whose links are pinned below folder."""
    return {link["prog_id"] for link in _bpftool("link") if _is_below(folder, link)}


def programs_of(pid: int) -> set[int]:
    """Ids of the programs that a process and those that it has started hold."""
    return {number for each in _family(pid) for kind, number in kernel_objects(each) if kind == "prog"}


def kernel_objects(pid: int) -> set[tuple[str, int]]:
    """The BPF programs and maps that a process holds: kind and id."""
    found = set()
    with suppress(OSError):  # it has ended
        for info in Path(f"/proc/{pid}/fdinfo").iterdir():
            with suppress(OSError):  # closed since it was listed
                text = info.read_text()
                found |= {(kind, int(number)) for kind, number in re.findall(r"^(prog|map)_id:\s+(\d+)", text, re.M)}
    return found


def maps_of(pid: int, folder: Path | None = None) -> list[dict[str, Any]]:
    """The maps that a process holds, those that are pinned below folder, and what maps of maps among them hold."""
    held = {number for kind, number in kernel_objects(pid) if kind == "map"}
    every = {each["id"]: each for each in _bpftool("map")}
    own = {number for number, each in every.items() if number in held or _is_below(folder, each)}
    for number in [number for number in own if every.get(number, {}).get("type", "").endswith("_of_maps")]:
        own |= {
            entry["inner_map_id"] for entry in _bpftool("map", "dump", "id", str(number)) if "inner_map_id" in entry
        }
    return [every[number] for number in own if number in every]


def rings(pid: int, folder: Path) -> set[int]:
    """Ids of traceloop's rings among them, but for those that stand ready for the next containers."""
    found = [each for each in maps_of(pid, folder) if each.get("name") == "traceloop"]
    return {each["id"] for each in found if not any("/spare-" in path for path in each.get("pinned", ()))}


def is_there(kind: str, number: int) -> bool:
    """Whether a program or map is in the kernel, whoever holds it."""
    shown = subprocess.run(["bpftool", kind, "show", "id", str(number)], capture_output=True, check=False)
    return shown.returncode == 0


def _bpftool(*command: str) -> list[dict[str, Any]]:
    done = subprocess.run(["bpftool", "-j", "-f", *command], capture_output=True, check=True)
    found = json.loads(done.stdout or "[]")
    return found if isinstance(found, list) else [found]


def _is_below(folder: Path | None, shown: dict[str, Any]) -> bool:
    return folder is not None and any(str(folder) in path for path in shown.get("pinned", ()))


def _family(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):  # a thread, or all of them, has ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))
