"""Pods as people name them: NAME, the beginning of one, a pattern, or KIND/NAME."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gadget.errors import UsageError
from gadget.pod_choice import PodChoice
from gadget.selector import parse_names
from gadget.values import dataclass

#: Kinds by the names that kubectl has for them, as `kubectl api-resources` lists them.
KINDS = {
    **dict.fromkeys(("po", "pod", "pods"), "pods"),
    **dict.fromkeys(("deploy", "deployment", "deployments"), "deployments"),
    **dict.fromkeys(("sts", "statefulset", "statefulsets"), "statefulsets"),
    **dict.fromkeys(("ds", "daemonset", "daemonsets"), "daemonsets"),
    **dict.fromkeys(("rs", "replicaset", "replicasets"), "replicasets"),
    **dict.fromkeys(("rc", "replicationcontroller", "replicationcontrollers"), "replicationcontrollers"),
    **dict.fromkeys(("job", "jobs"), "jobs"),
    **dict.fromkeys(("svc", "service", "services"), "services"),
}
SHORT = ("deploy", "sts", "ds", "rs", "job", "svc", "pod")
WANTED = f"want a pod's name, its beginning, * for anything, or KIND/NAME with {', '.join(SHORT)}"


@dataclass(frozen=True)
class PodName:
    """One item of -p. kind is the API server's plural, such as deployments; empty if the item has no kind."""

    written: str
    kind: str
    name: str
    without: bool

    @property
    def is_workload(self) -> bool:
        """Whether only the API server knows which pods it has."""
        return self.kind not in ("", "pods")

    def choices(self) -> list[PodChoice]:
        """The pods of that name: whole with a kind, else all that begin so. web-1 does not begin web-10."""
        name = self.name.replace(".*", "*")  # as a regular expression has it
        if self.kind or "*" in name:
            patterns = [name]
        elif name[-1].isdigit():
            patterns = [name, f"{name}[!0-9]*"]
        else:
            patterns = [f"{name}*"]
        return [PodChoice(pattern=pattern, without=self.without) for pattern in patterns]


def read_pods(items: Sequence[str]) -> list[PodName]:
    """What -p lists. UsageError if a part of it makes no sense."""
    names = parse_names(items)
    return [
        *(_read(name, without=False) for name in sorted(names.wanted)),
        *(_read(name, without=True) for name in sorted(names.unwanted)),
    ]


def _read(written: str, *, without: bool) -> PodName:
    kind, slash, name = written.rpartition("/")
    plural = KINDS.get(kind.partition(".")[0].lower(), "") if slash else ""
    if not re.fullmatch(r"[\w.*-]+", name) or bool(slash) != bool(plural):
        raise UsageError(f"-p {written!r}: {WANTED}")
    return PodName(f"{'!' * without}{written}", plural, name, without)


def name_choices(names: Sequence[PodName]) -> tuple[PodChoice, ...]:
    """The choices of names that need no API server."""
    return tuple(choice for name in names if not name.is_workload for choice in name.choices())
