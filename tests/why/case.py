"""What a container of the corpus is, and what a person would say of its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Kind(StrEnum):
    """What is asked of a case: why it ended, why it goes on, or that nothing is wrong."""

    BAD = "bad"
    HANG = "hang"
    BENIGN = "benign"


class Running(Protocol):
    """A container while the test has it."""

    def says(self, text: str) -> None:
        """Wait until it has printed text."""

    def signal(self, name: str) -> None:
        """Send its first process a signal, as the kubelet does by the runtime."""

    def exec(self, *args: str) -> None:
        """Run a command inside, as kubectl exec does."""

    def beside(self, script: str) -> None:
        """Run a shell script in another container of the pod, to its end."""

    def ends(self, seconds: float) -> bool:
        """Whether it has ended when so much time has passed."""


class Act(Protocol):
    """What is done to a container while it runs."""

    def __call__(self, running: Running) -> None: ...


#: A file's content and its mode; mode 0: of a program if it is in a folder bin or begins with #!
Content = str | bytes | Path | tuple[str | bytes, int]


@dataclass(frozen=True)
class Case:
    """One container.

    causes are those that a person who knows would accept as the reason, the best first; says is a pattern that the
    sentence has to match; call is one of the line of the recording where it went wrong. exits is its exit code, or
    minus the signal; None: it runs when it is read, or its runtime could not start it (starts).
    """

    name: str
    language: str
    command: tuple[str, ...]
    causes: tuple[str, ...]
    says: str = ""
    exits: int | None = 1
    kind: Kind = Kind.BAD
    call: str = ""
    source: str = ""
    flags: tuple[str, ...] = ()
    #: shared libraries that the program was linked with; empty ones are there if installed says so
    libraries: tuple[str, ...] = ()
    installed: bool = False
    #: linked dynamically although its container has no libraries
    dynamic: bool = False
    files: Mapping[str, Content] = field(default_factory=dict)
    env: tuple[str, ...] = ()
    starts: bool = True
    #: the machine's /usr is its own too, read-only
    usr: bool = False
    #: it is in a network with the servers of tests/why/peers.py
    peers: bool = False
    #: it sees the processes of its pod, and is not process 1
    shared_pids: bool = False
    user: int = 0
    readonly: bool = False
    memory: int = 0
    pids: int = 0
    rlimits: Mapping[str, int] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    seccomp: Mapping[str, str] = field(default_factory=dict)
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    act: Act | None = None
    #: how long it runs before it is read, in seconds
    runs: float = 0.0

    def judged(self, cause: str, sentence: str) -> bool:
        """Whether a finding is right."""
        import re

        return cause in self.causes and bool(re.search(self.says, sentence, re.IGNORECASE))
