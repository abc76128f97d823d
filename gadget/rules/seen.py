"""What a container was seen to do: sets with bounds, which grow alike in whatever order things happen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import accumulate

PROGRAMS, FILES, PORTS, PEERS = KINDS = ("programs", "files", "ports", "peers")
#: Of a container. What is beyond is counted.
MOST = {PROGRAMS: 512, FILES: 2048, PORTS: 256, PEERS: 1024}
#: Of all that is kept of a container, in characters.
MOST_LETTERS = 256 << 10
#: Entries of one folder; with more it stands for all below it.
MANY = 8
#: Folders that never do: those of the system with what is below them, and those where others keep what is theirs.
SYSTEM = ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr")
HIGH = ("/", "/home", "/media", "/mnt", "/opt", "/root", "/root/.ssh", "/run", "/srv", "/var", "/var/lib", "/var/spool")


class Paths:
    """Files that were written. A folder with many entries becomes one path, with a slash at its end."""

    def __init__(self) -> None:
        """None yet."""
        self._paths: set[str] = set()
        self._whole: set[str] = set()
        self._entries: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._paths) + len(self._whole)

    def __iter__(self) -> Iterator[str]:
        yield from self._paths
        yield from (f"{folder}/" for folder in self._whole)

    def new(self, path: str) -> str:
        """What taking in a path would add: the path, a folder that stands for it then, or nothing."""
        folders = list(_above(path))
        if path in self._paths or any(folder in self._whole for folder in folders):
            return ""
        if path.endswith("/"):
            return path
        for folder, below in zip(folders, [*folders[1:], path], strict=True):
            entries = self._entries.get(folder, ())
            if len(entries) >= MANY and below not in entries and _may_be_whole(folder):
                return f"{folder}/"
        return path

    def add(self, path: str) -> None:
        """Add what new() returned."""
        folders = list(_above(path))
        for folder, below in zip(folders, [*folders[1:], path], strict=not path.endswith("/")):
            self._entries.setdefault(folder, set()).add(below)
        if not path.endswith("/"):
            self._paths.add(path)
            return
        for known in (self._paths, self._whole, self._entries):
            for each in [each for each in known if f"{each}/".startswith(path)]:
                known.pop(each) if isinstance(known, dict) else known.discard(each)
        self._whole.add(path[:-1])


def _above(path: str) -> Iterator[str]:
    """The folders that a path is in, the highest first; of a folder, which ends with a slash, itself too."""
    yield "/"
    yield from list(accumulate(path.strip("/").split("/") if path.endswith("/") else path.split("/")[1:-1],
                               lambda folder, part: f"{folder}/{part}", initial=""))[1:]  # fmt: skip


def _may_be_whole(folder: str) -> bool:
    return folder not in HIGH and not f"{folder}/".startswith(tuple(f"{each}/" for each in SYSTEM))


class Seen:
    """What one container does, or all containers of a workload together."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._known: dict[str, set[str] | Paths] = {kind: Paths() if kind == FILES else set() for kind in KINDS}
        self._letters = MOST_LETTERS
        #: how often there was no room for something, by kind
        self.more: Counter[str] = Counter()

    def add(self, kind: str, value: str) -> str:
        """Take in something of a kind; gives what is new by that, which may be a folder, or nothing."""
        known = self._known[kind]
        value = known.new(value) if isinstance(known, Paths) else "" if value in known else value
        if not value:
            return ""
        if len(known) >= MOST[kind] or len(value) > self._letters:
            self.more[kind] += 1
            return ""
        self._letters -= len(value)
        known.add(value)
        return value

    def has(self, kind: str, value: str) -> bool:
        """Whether a value of a kind that is not FILES is known."""
        known = self._known[kind]
        return isinstance(known, set) and value in known

    def count(self, kind: str) -> int:
        """How many of a kind are known."""
        return len(self._known[kind])

    def of(self, kind: str) -> list[str]:
        """All of a kind, sorted by their bytes."""
        return sorted(self._known[kind], key=lambda each: each.encode("utf-8", "surrogateescape"))

    def add_all(self, kind: str, values: Iterable[str]) -> None:
        """Take in several."""
        for value in values:
            self.add(kind, value)
