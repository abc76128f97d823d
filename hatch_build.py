"""Makes what the package carries but the repository does not: BPF objects, catalogue, protobuf.

pip and hatch call it as a build hook; `python hatch_build.py` makes what is out of date in place. Needs
clang, llvm-strip, bpftool and libbpf's headers, for both architectures at once: BPF code is portable.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))  # a build runs before anything is installed

import build_syscalls  # noqa: E402
from gadget.btf import Btf, BtfError  # noqa: E402
from gadget.errors import UsageError  # noqa: E402
from gadget.schema import EVENTS, Schema, read_parameters, read_records, read_source  # noqa: E402
from gadget.story import Story  # noqa: E402

GENERATED = ROOT / "gadget" / "_generated"
OBJECTS, OF_AGENT = ROOT / "agent" / "_objects", ROOT / "agent" / "_generated"
#: machine (as uname says) to clang's __TARGET_ARCH_
ARCHITECTURES = {"x86_64": "x86", "aarch64": "arm64"}
#: How protoc's modules import each other, as if they lay at the top.
_SIBLING = re.compile(r"^import (\w+_pb2) as", re.M)
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-sign-compare"]


class BuildError(Exception):
    """A tool is missing, or refused its input."""


def run(*command: str | Path, stdin: str | None = None) -> str:
    """Run a tool, and return what it printed."""
    words = [str(part) for part in command]
    try:
        return subprocess.run(words, check=True, capture_output=True, text=True, input=stdin).stdout
    except FileNotFoundError:
        raise BuildError(
            f"{command[0]} is missing: run `make setup`, or install clang, llvm, bpftool, libbpf-dev"
        ) from None
    except subprocess.CalledProcessError as error:
        raise BuildError(f"{' '.join(map(str, command))}\n{error.stderr}{error.stdout}") from None


def newest(*paths: Path) -> float:
    """The time of the newest file among and below paths."""
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return max((file.stat().st_mtime for file in files), default=0.0)


def up_to_date(target: Path, *sources: Path) -> bool:
    """Whether target is newer than its sources and this file."""
    return target.exists() and target.stat().st_mtime > newest(*sources, Path(__file__))


def compile_object(source: Path, machine: str, target: Path) -> None:
    """Compile one gadget for one machine: clang, strip debug info but BTF, link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    plain = target.with_suffix(".plain")
    # the kernel headers for a bpf target lie with the host's: asm/types.h is the same on both machines
    system = next(iter(Path("/usr/include").glob("*-linux-gnu/asm")), Path("/usr/include/asm")).parent
    run("clang", "-O2", "-g", "-target", "bpf", f"-D__TARGET_ARCH_{ARCHITECTURES[machine]}", *WARNINGS,
        "-I", ROOT / "bpf" / "include", "-I", system, "-c", source, "-o", plain)  # fmt: skip
    run("llvm-strip", "-g", plain)
    run("bpftool", "gen", "object", target, plain)  # fills in the offsets in DATASEC that clang leaves 0
    plain.unlink()


def read_types(elf: bytes) -> tuple[ELFFile, Btf]:
    """An object's sections and types."""
    sections = ELFFile(io.BytesIO(elf))
    return sections, Btf(sections.get_section_by_name(".BTF").data())


def describe_program(folder: Path, elf: bytes) -> dict[str, Any]:
    """The record layouts of an object that is no gadget, and where in its .rodata each setting is, in bytes."""
    types = read_types(elf)[1]
    return {
        "records": {name: [asdict(field) for field in fields] for name, fields in read_records(types).items()},
        "settings": {name: [item.offset, item.size] for name, item in types.section(".rodata").items()},
    }


def describe(folder: Path, elf: bytes) -> dict[str, Any]:
    """A gadget's entry in the catalogue: its gadget.toml, and schema and parameters from its object."""
    sections, types = read_types(elf)
    try:
        source, schema = read_source(types)
    except BtfError as error:
        raise BuildError(f"{folder.name}: {error}") from None
    about = tomllib.loads((folder / "gadget.toml").read_text())
    known = {field.name for field in schema.shown} | schema.parts.keys()
    for name in (
        *about["columns"],
        *about["wide"],
        *about.get("narrow", ()),
        *about.get("good", {}),
        *about.get("unknown", {}),
        *(name.lstrip("-") for name in about.get("sort", ())),
        *_fields_of_tree(**about.get("tree", {})),
        *(name for filled in about.get("fills", {}).values() for name in filled),
    ):
        if name not in known:
            raise BuildError(f"{folder / 'gadget.toml'}: {name!r} is no documented field of its rows")
    rodata = sections.get_section_by_name(".rodata")
    parameters = read_parameters(types, rodata.data()) if rodata else []
    if unknown := {*about.get("left_out", {})} - {item.name for item in parameters if item.means.is_switch}:
        raise BuildError(f"{folder / 'gadget.toml'}: [left_out]: {min(unknown)!r} is no switch")
    if unknown := {*about.get("fills", {})} - {item.name for item in parameters if item.means.is_switch}:
        raise BuildError(f"{folder / 'gadget.toml'}: [fills]: {min(unknown)!r} is no switch")
    if unknown := {*about.get("unmasked", ())} - {item.name for item in parameters if item.means.is_switch}:
        raise BuildError(f"{folder / 'gadget.toml'}: unmasked: {min(unknown)!r} is no switch")
    if "story" in about:
        try:
            check_story(about["story"], source, schema, {item.name for item in parameters})
        except (TypeError, ValueError, UsageError) as error:
            raise BuildError(f"{folder / 'gadget.toml'}: [story]: {error}") from None
    return {
        "narrow": [],
        "good": {},
        "left_out": {},
        "notes": "",
        "aliases": [],
        **about,
        "source": source,
        "schema": schema.to_json(),
        "parameters": [asdict(item) for item in parameters],
    }


def _fields_of_tree(own: str = "", below: Sequence[str] = (), indented: str = "") -> list[str]:
    """The fields that [tree] of a gadget.toml names."""
    return [name for name in (own, *below, indented) if name]


def check_story(about: dict[str, Any], source: str, schema: Schema, parameters: set[str]) -> None:
    """ValueError, TypeError or UsageError unless [story] of a gadget.toml fits the gadget."""
    story, known = Story(**about), {item.name: item for item in schema.shown}
    story.check()
    if source != EVENTS:
        raise ValueError("a story has events, no tables")
    if "kind" in known:
        raise ValueError("'kind' is a key of its own in JSON, so no field may be called so")
    if missing := [name for name in story.fields if name not in known and name not in schema.parts]:
        raise ValueError(f"{missing[0]!r} is no documented field of its rows")
    for name, words in story.silent.items():
        if missing := [word for word in words if word not in known[name].means.words(known[name])]:
            raise ValueError(f"{missing[0]!r} is no word of {name}")
    if missing := [name for name in (*story.parameters, *story.whole) if name not in parameters]:
        raise ValueError(f"{missing[0]!r} is no parameter")


def make_modules(file: str, folder: Path) -> None:
    """Copy a module that gadgets have in their folders to where it is found: each by its gadget's name."""
    texts = {path.parent.name: path.read_text() for path in (ROOT / "bpf").glob(f"*/{file}")} | {"__init__": ""}
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.py"):
        if stale.stem not in texts:
            stale.unlink()
    for name, text in texts.items():
        target = folder / f"{name}.py"
        if not target.exists() or target.read_text() != text:
            target.write_text(text)


def make_gadgets() -> None:
    """Compile every folder of bpf/ that holds a program, and write the catalogue of those with a gadget.toml."""
    bpf = ROOT / "bpf"
    folders = sorted({path.parent for path in bpf.glob("*/*.bpf.c")})
    gadgets, programs = {}, {}
    for folder in folders:
        described = (folder / "gadget.toml").exists()
        entries = []
        for machine in ARCHITECTURES:
            for source in folder.glob("*.bpf.c"):  # also those for newer kernels: agent/bpf/objects.py
                target = OBJECTS / machine / f"{source.name.removesuffix('.c')}.o"
                if not up_to_date(target, folder, bpf / "include"):
                    compile_object(source, machine, target)
            target = OBJECTS / machine / f"{folder.name}.bpf.o"
            entries.append((describe if described else describe_program)(folder, target.read_bytes()))
        if any(entry != entries[0] for entry in entries):
            raise BuildError(f"{folder.name}: events differ between machines; give members fixed sizes")
        (gadgets if described else programs)[folder.name] = entries[0]
    for stale in OBJECTS.glob("*/*.bpf.o"):
        if not list(bpf.glob(f"*/{stale.name.removesuffix('.o')}.c")):
            stale.unlink()
    told = Counter(entry["story"]["kind"] for entry in gadgets.values() if "story" in entry)
    if twice := [kind for kind, number in told.items() if number > 1]:
        raise BuildError(f"two gadgets have the kind {twice[0]!r} in [story]")
    text = json.dumps({"gadgets": gadgets, "programs": programs}, indent=1)
    target = GENERATED / "catalog.json"
    if not target.exists() or target.read_text() != text:
        target.write_text(text)


def make_protobuf() -> None:
    """Generate Python from proto/."""
    for source in sorted((ROOT / "proto").glob("*/v1/*.proto")):
        stub = GENERATED / f"{source.stem}_pb2_grpc.py"
        if up_to_date(stub, source):
            continue
        run(sys.executable, "-m", "grpc_tools.protoc", f"-I{source.parent}", f"--python_out={GENERATED}",
            f"--pyi_out={GENERATED}", f"--grpc_python_out={GENERATED}", source)  # fmt: skip
        for made in (stub, GENERATED / f"{source.stem}_pb2.py", GENERATED / f"{source.stem}_pb2.pyi"):
            made.write_text(_SIBLING.sub(r"from gadget._generated import \1 as", made.read_text()))


def make_syscalls() -> None:
    """Write the table of system calls."""
    headers = build_syscalls.common_headers()
    target = GENERATED / "syscalls.json"
    if headers is None:
        raise BuildError("the kernel's headers are missing: run `make setup`, or install linux-headers-*-common")
    if not up_to_date(target, Path(build_syscalls.__file__), headers / "include" / "linux" / "syscalls.h"):
        target.write_text(json.dumps(build_syscalls.read(headers, run)))


def make_all() -> None:
    """Make whatever is out of date."""
    GENERATED.mkdir(parents=True, exist_ok=True)
    OF_AGENT.mkdir(parents=True, exist_ok=True)
    for package in (GENERATED, OF_AGENT):
        (package / "__init__.py").touch()
    make_protobuf()
    make_modules("kinds.py", GENERATED / "kinds")
    make_modules("reader.py", OF_AGENT / "readers")
    make_gadgets()
    make_syscalls()


class CustomBuildHook(BuildHookInterface[Any]):
    """What hatchling calls before it packs a wheel or makes an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make everything that a wheel carries. A source distribution carries none of it."""
        if self.target_name == "wheel":
            make_all()


if __name__ == "__main__":
    try:
        make_all()
    except BuildError as error:
        sys.exit(f"build: {error}")
