"""What is in the image is what was looked at: every package by version and hash."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from requirements.lock import wanted

REPOSITORY = Path(__file__).parents[2]


def pinned(name: str) -> dict[str, tuple[Version, int]]:
    """Version and number of hashes of each package in a file of requirements/."""
    text = (REPOSITORY / f"requirements/{name}.txt").read_text()
    found = {}
    text = re.sub(r"(?m)^(#.*)?\n", "", text)
    for entry in re.split(r"\n(?=\S)", text.strip()):
        line = entry.split()[0]
        package, _, version = line.partition("==")
        found[canonicalize_name(package)] = Version(version), len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry))
    return found


@pytest.mark.parametrize("name", wanted())
def test_pins_are_complete(name: str) -> None:
    """All that pyproject.toml asks for is pinned in a version that it accepts, and so is what that needs in turn."""
    pins = pinned(name)
    assert all(hashes for _, hashes in pins.values())
    asked = [Requirement(each) for each in wanted()[name]]
    for package in pins:
        try:
            asked += map(Requirement, distribution(package).requires or ())
        except PackageNotFoundError:
            continue  # of the other file
    missing = []
    for each in asked:
        if each.marker is None or each.marker.evaluate({"extra": "", "python_version": "3.11"}):
            version, _ = pins.get(canonicalize_name(each.name), (None, 0))
            if version is None or (str(each) in wanted()[name] and version not in each.specifier):
                missing.append(str(each))
    assert missing == [], "run `make lock`"


def test_the_image_checks_hashes() -> None:
    """The image is built of what is pinned alone: nothing is installed without its hash."""
    lines = re.split(r"&&|\n(?!\s)", (REPOSITORY / "Dockerfile").read_text())
    installs = [line.strip() for line in lines if re.search(r"pip (install|wheel|download)", line)]
    assert len(installs) == 4
    for line in installs:
        assert "--require-hashes" in line or "--no-deps" in line, line
