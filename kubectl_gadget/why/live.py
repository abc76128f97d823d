"""Asks the node about the subjects of the first findings, so that they tell the present state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from gadget._generated import gadget_pb2 as pb
from gadget.errors import GadgetError, Unsupported
from gadget.kinds.texts import decode_text
from kubectl_gadget.agents.client import ask_once
from kubectl_gadget.traceloop.instances import Instance
from kubectl_gadget.why import failed, now
from kubectl_gadget.why.arguments import call_name
from kubectl_gadget.why.facts import Component, Facts, FileUser, MountUsage, NodeFacts
from kubectl_gadget.why.findings import plain
from kubectl_gadget.why.meant import what_failed
from kubectl_gadget.why.noted import Failure

#: An answer that takes longer is not waited for. The agent itself takes 1 s at most.
SECONDS = 2.0
#: Findings that are asked about, and what an agent takes of each kind at a time.
_FINDINGS, _MOST, _LONGEST = 8, 16, 4096
#: Causes for which a limit tells something, wherever they struck.
_OF_LIMITS = ("descriptors", "processes", "memory", "inotify", "file-size", "oom")


def with_node(facts: Facts, instance: Instance, others: Sequence[Instance], seconds: float = SECONDS) -> Facts:
    """The facts with what the node says now: of the container if it runs, else of the one that runs in its place.

    What could not be asked is among what is missing.
    """
    asked = list(_failures(facts))
    paths, ports = _paths(facts, asked), _ports(asked)
    if not (facts.running or paths or ports or facts.oom or _about_limits(asked)):
        return facts
    running = in_its_place(instance, others)
    if running is None:
        return _missing(facts, "how it is now: not looked at, as it no longer runs")
    request = pb.InspectRequest(cgroup_id=running.container.cgroup_id, paths=paths, ports=ports)
    try:
        reply = ask_once(running.agent, "Inspect", request, seconds)
    except Unsupported:
        return _missing(facts, f"how it is now: the agent of {plain(running.node)} is older and cannot tell")
    except GadgetError as error:
        return _missing(facts, f"how it is now: {plain(str(error))}")
    known = _missing(facts, *(f"how it is now: {plain(why)}" for why in reply.missing[:_MOST]))
    return replace(known, live=node_of(reply, paths))


def in_its_place(instance: Instance, others: Sequence[Instance]) -> Instance | None:
    """The container itself if it runs, else the newest that runs under its name."""
    if instance.item.running:
        return instance
    named = [each for each in others if each.item.running and each.name == instance.name
             and (each.container.pod or each.node == instance.node)]  # fmt: skip
    return max(named, key=lambda each: each.newest, default=None)


def node_of(reply: pb.InspectReply, paths: Sequence[str]) -> NodeFacts:
    """An agent's answer about paths, in that order."""
    there = list(zip(paths, reply.paths, strict=False))
    waits: dict[int, tuple[str, ...]] = {}
    for wait in reply.waits:
        if wait.kind:
            waits[wait.tid] = (*waits.get(wait.tid, ()), f"{wait.kind} {wait.name}")
    identity = reply.identity
    return NodeFacts(
        paths={path: tuple(map(_component, found.components)) for path, found in there},
        mounts={path: _mount(found.mount) for path, found in there if found.HasField("mount")},
        limits={each.name: each.limit for each in reply.usages if each.HasField("limit")},
        used={each.name: each.used for each in reply.usages if each.HasField("used")},
        listeners={each.port: _listener(each) for each in reversed(reply.listeners)},
        holders={wait.tid: _who(wait.holder) for wait in reply.waits if wait.HasField("holder")},
        children={wait.tid: _who(wait.child) for wait in reply.waits if wait.HasField("child")},
        descriptors={(wait.pid, wait.descriptor): f"{wait.kind} {wait.name}" for wait in reply.waits if wait.kind},
        waits=waits,
        identity=FileUser(identity.uid, identity.gid, frozenset(identity.groups), identity.capabilities)
        if reply.HasField("identity")
        else None,
    )


def _component(part: pb.Component) -> Component:
    return Component(part.path, part.exists, part.mode, part.uid, part.gid, tuple(part.names), part.link, part.error)


def _mount(mount: pb.Mount) -> MountUsage:
    return MountUsage(
        mount.path, mount.read_only, mount.free_bytes, mount.total_bytes, mount.free_inodes, mount.total_inodes
    )


def _who(task: pb.Task) -> str:
    kind = "PID" if task.pid == task.tid else "thread"
    return f"{kind} {task.tid}{f' ({task.comm})' if task.comm else ''}"


def _listener(each: pb.Listener) -> str:
    return _who(each.task) if each.HasField("task") else "a process that is not of its pod"


def _missing(facts: Facts, *why: str) -> Facts:
    return replace(facts, missing=(*facts.missing, *why))


def _failures(facts: Facts) -> Iterator[Failure]:
    """The failures that the first findings are about."""
    findings = sorted(failed.find(facts), key=lambda each: -each.weight)[:_FINDINGS]
    evidence = [id(finding.evidence[0]) for finding in findings if finding.evidence]
    by_call = {id(failure.call): failure for failure in facts.history.failures}
    yield from (by_call[each] for each in evidence if each in by_call)


def _about_limits(failures: Sequence[Failure]) -> bool:
    meant = (what_failed(failure) for failure in failures)
    return any(each is not None and each.cause in _OF_LIMITS for each in meant)


def _paths(facts: Facts, failures: Sequence[Failure]) -> list[str]:
    """The paths that failures are about, and those that threads hang in the open of."""
    hanging = [decode_text(found.data) for call, _ in facts.history.blocked if call_name(call) in ("open", "openat")
               for found in call.captured.values()]  # fmt: skip
    subjects = [failure.subject for failure in failures if not now.is_peer(failure)]
    asked = dict.fromkeys(each for each in (*subjects, *hanging) if each and not each.startswith("@"))
    return [each for each in asked if "\0" not in each and len(each.encode()) <= _LONGEST][:_MOST]


def _ports(failures: Sequence[Failure]) -> list[int]:
    """The ports of this network that failures are about: taken, or with nobody there."""
    return list(islice(dict.fromkeys(port for each in failures if (port := now.local_port(each))), _MOST))
