"""Causes that Kubernetes tells: what its events say of a pod that was killed, or that has not started."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from kubectl_gadget.why.facts import Facts, Kubernetes
from kubectl_gadget.why.findings import Finding, plain


class Reason(NamedTuple):
    """What a container's waiting reason, or an event's, means. what is said before its message."""

    cause: str
    pattern: re.Pattern[str]
    what: str
    weight: float = 96


def _reason(cause: str, pattern: str, what: str, weight: float = 96) -> Reason:
    return Reason(cause, re.compile(pattern), what, weight)


WAITING = (
    _reason("image-pull", r"ErrImagePull|ImagePullBackOff|InvalidImageName|ErrImageNeverPull|RegistryUnavailable",
            "its image cannot be had"),
    _reason("config-error", r"CreateContainerConfigError|CreateContainerError|RunContainerError|"
            r"StartError|ContainerCannotRun", "it could not be created"),
)  # fmt: skip
_UNSCHEDULABLE = re.compile(r"FailedScheduling: (?P<what>.*)")
_MOUNT = re.compile(r"(?:FailedMount|FailedAttachVolume): (?P<what>.*)")
_PROBE = re.compile(r"Unhealthy: (?P<kind>Liveness|Startup|Readiness) probe (?:failed|errored): ?(?P<what>.*)")
_KILLING = re.compile(r"Killing: .*(?:failed|liveness|startup) ?(?:probe)?")
_EVICTED = re.compile(r"(?:Evicted|TaintManagerEviction|Preempted|Preempting): (?P<what>.*)")


def find(facts: Facts) -> Iterator[Finding]:
    """Findings in what the API server says; none if it could not be asked."""
    said = facts.kubernetes
    if said is None:
        return
    yield from _not_started(said)
    if not facts.running and facts.signal in (9, 15):
        yield from _killed(said)
    if facts.running and said.ready is False:
        yield from _not_ready(said)
    if said.terminated == "OOMKilled" and not facts.oom:
        limit = f", whose limit is {said.memory_limit >> 20} MiB" if said.memory_limit else ""
        yield Finding("oom", f"the kernel killed it for want of memory in the container{limit}", 97, certain=True)


def _newest(said: Kubernetes, pattern: re.Pattern[str]) -> re.Match[str] | None:
    return next((match for event in reversed(said.events) if (match := pattern.match(event))), None)


def _not_started(said: Kubernetes) -> Iterator[Finding]:
    for reason in WAITING:
        if reason.pattern.search(said.waiting) or reason.pattern.search(said.terminated):
            yield Finding(reason.cause, f"{reason.what}: {plain(said.message) or said.waiting}", reason.weight,
                          certain=True)  # fmt: skip
    if said.phase == "Pending":
        if match := _newest(said, _UNSCHEDULABLE):
            yield Finding("pending", f"no node takes it: {plain(match['what'])}", 95, certain=True)
        elif match := _newest(said, _MOUNT):
            yield Finding("pending", f"a volume of it cannot be mounted: {plain(match['what'])}", 95, certain=True)


def _killed(said: Kubernetes) -> Iterator[Finding]:
    if match := _newest(said, _EVICTED):
        yield Finding("killed-eviction", f"it was evicted: {plain(match['what'])}", 96, certain=True)
    if _newest(said, _KILLING) and (match := _newest(said, _PROBE)) and match["kind"] != "Readiness":
        yield Finding("killed-probe", f"the kubelet killed it, as its {match['kind'].lower()} probe failed: "
                      f"{plain(match['what'])}", 97, certain=True)  # fmt: skip
    elif said.deleted:
        yield Finding("killed-deletion", "its pod was deleted, so it was asked to end", 90, certain=True, benign=True)


def _not_ready(said: Kubernetes) -> Iterator[Finding]:
    if match := _newest(said, _PROBE):
        yield Finding("not-ready", f"it is not ready, as its {match['kind'].lower()} probe failed: "
                      f"{plain(match['what'])}", 80, certain=True)  # fmt: skip
