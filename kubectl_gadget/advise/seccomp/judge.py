"""What an existing profile would make of what was seen, and how it differs from the advised one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from gadget.text import counted, escape
from kubectl_gadget.advise.seccomp import profile
from kubectl_gadget.advise.seccomp.collect import CallingWorkload
from kubectl_gadget.advise.seccomp.profile import Profile


@dataclass(frozen=True)
class ProfileVerdict:
    """Of a workload: what the profile refuses, by action; names that it looks at by arguments; and architectures."""

    workload: CallingWorkload
    refused: dict[str, list[str]]
    sometimes: list[str]
    architectures: list[str]

    @property
    def is_fine(self) -> bool:
        """Whether nothing would have been refused for sure."""
        return not self.refused and not self.architectures

    def to_json(self) -> dict[str, Any]:
        """For -o json."""
        own = self.workload
        return {
            "namespace": own.namespace,
            "workload": f"{own.kind}/{own.name}" if own.name else "",
            "container": own.container,
            "seen": sorted(own.names),
            "refused": self.refused,
            "byArguments": self.sometimes,
            "architectures": self.architectures,
        }


def judge(workload: CallingWorkload, existing: Profile) -> ProfileVerdict:
    """What the profile would have refused of what a workload called."""
    refused: dict[str, list[str]] = {}
    for name in sorted(workload.names):
        if not existing.allows(name):
            refused.setdefault(existing.action(name), []).append(name)
    wanted = profile.make(workload, profile.ERRNO)["architectures"]
    return ProfileVerdict(
        workload,
        refused,
        sorted(workload.names & existing.sometimes - set(existing.rules)),
        [each for each in wanted if not existing.has(each)],
    )


def unused(judged: list[ProfileVerdict], existing: Profile) -> list[str]:
    """What the profile allows, nobody called, and no runtime needs."""
    called = set().union(*(each.workload.names for each in judged))
    return sorted(existing.allowed() - called - {*profile.RUNTIME, *profile.KERNEL, *profile.KERNEL_COMPAT})


def show(judged: list[ProfileVerdict], existing: Profile, *, everything: bool) -> Iterator[str]:
    """What was found, in lines."""
    for each in judged:
        for architecture in each.architectures:
            yield f"DENIED  {each.workload}: all calls of {architecture}, which the profile does not name"
        for action, names in each.refused.items():
            yield f"DENIED  {each.workload}: {', '.join(names)} ({action})"
        if each.sometimes:
            yield f"depends {each.workload}: {', '.join(each.sometimes)} (on arguments or capabilities)"
    superfluous = unused(judged, existing)
    if superfluous and everything:
        yield f"unused  {', '.join(superfluous)}"
    calls = set().union(*(each.workload.names for each in judged))
    denied = {name for each in judged for names in each.refused.values() for name in names}
    more = "" if everything or not superfluous else " (--all names them)"
    yield (
        f"{len(calls) - len(denied)} of {counted(len(calls), 'call')} allowed, {len(denied)} denied; "
        f"{len(superfluous)} allowed that {counted(len(judged), 'container')} never made{more}."
    )


def diff(workload: CallingWorkload, existing: Profile | None, action: str) -> str:
    """How the advised profile differs from the existing one, as a unified diff; empty if they mean the same."""
    name = escape(profile.file_name(workload))
    advised = profile.parse(profile.make(workload, action))
    lines = unified_diff(
        _lines(existing) if existing else [],
        _lines(advised),
        f"{name} (current)" if existing else "/dev/null",
        f"{name} (advised)",
        n=0,
    )
    return "".join(lines)


def _lines(what: Profile) -> list[str]:
    """What a profile means, a line for each name: neither the order of rules nor comments."""
    found = [f"default {what.default}\n", *(f"architecture {each}\n" for each in sorted(what.architectures))]
    rules = {**dict.fromkeys(what.sometimes, f"{profile.ALLOW} by arguments"), **what.rules}
    return found + [f"{name} {action}\n" for name, action in sorted(rules.items()) if action != what.default]
