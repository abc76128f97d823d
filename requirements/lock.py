"""Pins all that is taken from the package registry, with hashes: `make lock`. Needs pip-tools.

requirements/agent.txt is what an agent runs with, requirements/build.txt what makes it; requirements/developer.txt is
what the tests run with: both of them and the developer's tools, so that a new release of a library breaks no build.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

FOLDER = Path(__file__).parent
OPTIONS = ["--quiet", "--upgrade", "--generate-hashes", "--strip-extras", "--allow-unsafe", "--no-header",
           "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"]  # fmt: skip


def wanted() -> dict[str, list[str]]:
    """What pyproject.toml asks for, by the name of the file that pins it."""
    about = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())
    project = about["project"]
    agent, build = project["dependencies"], about["build-system"]["requires"]
    return {
        "agent": agent,
        "build": build,
        "developer": [*agent, *build, *project["optional-dependencies"]["dev"]],
    }


def main() -> None:
    """Write the files anew, with the newest versions that fit."""
    for name, lines in wanted().items():
        with tempfile.NamedTemporaryFile("w", suffix=".in") as file:
            file.write("\n".join(lines))
            file.flush()
            output = f"--output-file={FOLDER / name}.txt"
            subprocess.run([sys.executable, "-m", "piptools", "compile", *OPTIONS, output, file.name], check=True)


if __name__ == "__main__":
    main()
