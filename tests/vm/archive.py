"""Debian's archive, from another release or of another machine: nothing of this machine is installed or upgraded by it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

SUITES = ("bullseye", "bookworm", "trixie-backports")
SECURITY_SUITES = ("bullseye-security", "bookworm-security")
#: What the guests are, as Debian says it.
ARCHITECTURES = ("amd64", "arm64")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class NotHad(Exception):
    """Something that is wanted from an archive cannot be had."""


def apt_options(home: Path) -> list[str]:
    """A package list of our own, in home."""
    apt = home / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    mirrors = {end: uri for end in ("debian", "debian-security") for uri in _mirrors() if uri.endswith(f"/{end}")}
    if len(mirrors) < 2:
        raise NotHad("this machine's package sources name no mirror of debian and debian-security")
    suites = [(mirrors["debian"], suite) for suite in SUITES]
    suites += [(mirrors["debian-security"], suite) for suite in SECURITY_SUITES]
    how = f"[signed-by={KEYRING} arch={','.join(ARCHITECTURES)}]"
    (apt / "sources.list").write_text("".join(f"deb {how} {mirror} {suite} main\n" for mirror, suite in suites))
    return settings(
        {
            "Dir::Etc::sourcelist": apt / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::lists": apt / "state/lists",
            "Dir::Cache": apt / "cache",
            "APT::Architectures": ",".join(ARCHITECTURES),
            "APT::Sandbox::User": "root",
            "Acquire::Retries": 3,
            "Acquire::Languages": "none",
        }
    )


def settings(values: dict[str, object]) -> list[str]:
    """Settings as words of apt's commands; of a setting that comes twice the last counts."""
    return [word for name, value in values.items() for word in ("-o", f"{name}={value}")]


def _mirrors() -> Iterator[str]:
    """Where this machine's own packages come from."""
    folder = Path("/etc/apt")
    for path in [*folder.glob("sources.list"), *folder.glob("sources.list.d/*")]:
        for line in path.read_text().splitlines():
            if not line.startswith("#"):
                yield from (word.rstrip("/") for word in line.split() if "://" in word)


def call(*command: str | Path, folder: Path | None = None) -> str:
    """What a command prints. NotHad if it fails."""
    done = subprocess.run(["nice", *map(str, command)], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHad(f"{command[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout
