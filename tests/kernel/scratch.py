"""Gadgets that tests write: a copy of the project in a folder of the test, with one gadget more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


class BuildFailed(Exception):
    """What the build said."""


def copy_project(folder: Path) -> Path:
    """A copy of the project, with all that is built of it: a build makes what the test adds."""
    for name in ("bpf", "proto", "gadget", "agent", "kubectl_gadget"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("hatch_build.py", "build_syscalls.py"):
        shutil.copy2(ROOT / name, folder)  # by the times of files a build knows what is out of date
    return folder


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments and the project in that folder, to the end."""
    options = {"env": {**os.environ, "PYTHONPATH": str(folder)}, "cwd": "/", "capture_output": True, "text": True}
    return subprocess.run([sys.executable, "-P", *args], **options, timeout=120, check=False)


class Project:
    """A copy of the project with a new gadget."""

    def __init__(self, folder: Path, gadget: str, files: dict[str, str]) -> None:
        """Make it in a folder; files are those of the gadget's own folder, by name."""
        self.folder = folder
        copy_project(folder)
        (folder / "bpf" / gadget).mkdir()
        for name, text in files.items():
            (folder / "bpf" / gadget / name).write_text(text)
        #: what makes any Python run it
        self.environment = {"PYTHONPATH": str(folder)}

    def build(self) -> None:
        """Compile it, or raise BuildFailed."""
        built = self.run(str(self.folder / "hatch_build.py"))
        if built.returncode:
            raise BuildFailed(built.stderr)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments, to the end."""
        return run(self.folder, *args)

    @property
    def under(self) -> tuple[str, ...]:
        """A command under which others run it."""
        return ("env", *(f"{name}={value}" for name, value in self.environment.items()))
