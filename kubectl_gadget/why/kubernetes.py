"""Causes that Kubernetes tells: what its events say of a pod that was killed, or that has not started."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gadget.kinds.times import short_duration
from kubectl_gadget.why.arguments import endpoint
from kubectl_gadget.why.ended import STARTS, heard, in_time
from kubectl_gadget.why.facts import Facts, Kubernetes, PodEvent
from kubectl_gadget.why.findings import Finding, plain, quoted

_IMAGE = re.compile(r"ErrImagePull|ImagePullBackOff|InvalidImageName|ErrImageNeverPull|RegistryUnavailable|"
                    r"ImageInspectError|SignatureValidationFailed")  # fmt: skip
_CREATE = re.compile(r"CreateContainer(Config)?Error|RunContainerError|PreCreateHookError|PreStartHookError")
_START = re.compile(r"StartError|ContainerCannotRun")
_HOOK = "PostStartHookError"
_PROBE = re.compile(r"(?P<kind>Liveness|Startup|Readiness) probe (?:failed|errored[^:]*): ?(?P<what>.*)", re.DOTALL)
_PROBE_KILLS = re.compile(r"failed (?P<kind>liveness|startup) probe")
#: Why Kubernetes ended a pod that nobody had asked it to: reasons of events, of pods and of DisruptionTarget.
_EVICTED = {
    "Evicted": "it was evicted",
    "EvictionByEvictionAPI": "it was evicted, as a drain of its node does",
    "Preempting": "it was evicted for a pod that is critical",
    "Preempted": "it was evicted for a pod of higher priority",
    "PreemptionByScheduler": "it was evicted for a pod of higher priority",
    "TaintManagerEviction": "it was evicted, as it does not tolerate a taint of its node",
    "DeletionByTaintManager": "it was evicted, as it does not tolerate a taint of its node",
    "DeletionByPodGC": "its node is gone, so it was removed",
    "TerminationByKubelet": "the kubelet ended it",
    "NodeShutdown": "its node was shut down",
    "Terminated": "its node was shut down",
    "Shutdown": "its node was shut down",
}
_DEADLINE = "DeadlineExceeded"
#: Of these the pod was asked to go, by who may.
_ON_PURPOSE = ("EvictionByEvictionAPI", "Terminated", "NodeShutdown", "Shutdown")
_MOUNTS = ("FailedMount", "FailedAttachVolume", "FailedMapVolume")
_NETWORKS = ("FailedCreatePodSandBox", "NetworkNotReady")
#: What a kubelet says of volumes that it has only just been told of, as of most pods that start at once.
_COMES = "failed to sync"
_SECOND = 1_000_000_000
_KILLED = 137
#: Events have whole seconds, and are written before what they tell of is done.
_SLACK_NS = 3 * _SECOND
_QUOTED = re.compile(r'.*"[^"]*" ?: (?P<rest>.+)', re.DOTALL)
_DIAL = re.compile(r"(?:dial|read|write) tcp \S+(?:->\S+)?: (?:\w+: )?")


def find(facts: Facts) -> Iterator[Finding]:
    """Findings in what the API server says; none if it could not be asked."""
    said = facts.kubernetes
    if said is None:
        return
    yield from _not_started(facts, said)
    if facts.running:
        yield from _not_ready(facts, said)
    else:
        yield from _killed(facts, said)
        yield from _crashed(facts, said)
    if said.terminated == "OOMKilled" and not facts.oom:
        limit = f", whose limit is {said.memory_limit >> 20} MiB" if said.memory_limit else ""
        what = f"the kernel killed a process of it for want of memory in the container{limit}"
        killed = said.exit_code == _KILLED  # a runtime gives that reason also if it was another process, long ago
        yield Finding("oom", what, 97 if killed else 80, certain=killed)


def was_stopped(facts: Facts) -> bool:
    """Whether it ended because its pod was to go, deleted, scaled down or done, and for no other reason."""
    said = facts.kubernetes
    if said is None or facts.running or facts.ended_by_oom:
        return False
    if said.phase == "Succeeded":
        return said.newest
    asked = heard(facts)
    stopped = _asked_to_end(facts, said) or _killed_outright(facts) or (asked is not None and in_time(facts, asked))
    return _deleted(facts, said) and stopped and _killing_probe(facts, said) is None


def _deleted(facts: Facts, said: Kubernetes) -> bool:
    """Whether its pod was deleted when it ended."""
    return said.deleted and _befell(facts, said, said.deleted_ns)


def _befell(facts: Facts, said: Kubernetes, since_ns: int) -> bool:
    """Whether what happened to its pod, if that is known then, happened to this run, and not after it."""
    return said.newest and not 0 < facts.ended_ns < since_ns - _SLACK_NS


def _killed_outright(facts: Facts) -> bool:
    """Whether a runtime's signals ended it, as far as its status tells."""
    return facts.signal in (9, 15) or facts.code in (137, 143)


def _asked_to_end(facts: Facts, said: Kubernetes) -> bool:
    """Whether the kubelet stopped it when it ended, for no fault of its own."""
    return any(each.reason == "Killing" and each.message.startswith("Stopping container") and _fits(facts, said, each)
               for each in said.events)  # fmt: skip


def _fits(facts: Facts, said: Kubernetes, event: PodEvent) -> bool:
    """Whether an event may have led to this end: told before it, and no longer than a pod may take to end."""
    if not facts.ended_ns or not event.time_ns:
        return True
    since = facts.ended_ns - event.time_ns
    if -_SLACK_NS <= since <= said.grace_seconds * _SECOND + 2 * _SLACK_NS:
        return True
    # of events that are alike the API server keeps the first time and the last
    return event.times > 2 and event.first_ns - _SLACK_NS <= facts.ended_ns <= event.time_ns


def _newest(said: Kubernetes, *reasons: str) -> PodEvent | None:
    return next((each for each in reversed(said.events) if each.reason in reasons), None)


def _not_started(facts: Facts, said: Kubernetes) -> Iterator[Finding]:
    if _IMAGE.search(said.waiting):
        yield _image(said)
    elif _CREATE.search(said.waiting):
        yield from _not_created(said.message or said.waiting, said.waiting)
    elif said.waiting == _HOOK or _newest_hook(facts, said):
        yield Finding("config-error", f"its postStart hook failed{_behind(said.message)}", 96, certain=True)
    if _START.search(said.terminated) and not (facts.history.kept and not facts.history.programs):
        yield from _not_created(said.message, said.terminated)
    refused = said.phase == "Failed" and said.pod_reason and not said.terminated and not facts.known
    if refused and said.pod_reason not in (*_EVICTED, _DEADLINE):  # no room for it, say: OutOfcpu
        yield Finding("pending", f"its node refused it: {_said(said.pod_reason, said.pod_message)}", 95, certain=True)
    if said.phase == "Pending" and not said.waiting.endswith(("Error", "BackOff")):
        yield from _pending(facts, said)


def _newest_hook(facts: Facts, said: Kubernetes) -> bool:
    event = _newest(said, "FailedPostStartHook")
    return bool(event and not facts.running and _fits(facts, said, event))


def _image(said: Kubernetes) -> Finding:
    message = said.message
    if message.startswith("Back-off") and ": " not in message:  # before 1.31 a kubelet says no more
        pulls = [each.message for each in said.events if each.reason == "Failed" and "Failed to pull" in each.message]
        message = (pulls or [message])[-1]
    what = f"its image {plain(said.image, 80)} cannot be had: {plain(_last_part(message))} ({said.waiting})"
    return Finding("image-pull", what, 96, certain=True)


def _not_created(message: str, reason: str) -> Iterator[Finding]:
    """A container that the runtime or the kubelet could not make."""
    start = message.rfind("exec: ")
    cause = next((cause for words, cause in STARTS.items() if words in message[start:]), "") if start >= 0 else ""
    if cause:
        yield Finding(cause, f"its program could not be started: {plain(message[start:].removeprefix('exec: '))}", 97,
                      certain=True)  # fmt: skip
    else:
        yield Finding("config-error", f"it could not be created: {_said(reason, message)}", 96, certain=True)


def _pending(facts: Facts, said: Kubernetes) -> Iterator[Finding]:
    scheduled = said.conditions.get("PodScheduled")
    failed = _newest(said, "FailedScheduling")
    event = _newest(said, *_MOUNTS, *_NETWORKS, "Pulling", "Pulled", "Created", "Started")
    if scheduled:
        reason, message = scheduled
        message = message or (failed.message if failed else "")
        what = "its scheduling is gated" if reason == "SchedulingGated" else "no node takes it"
        yield Finding("pending", f"{what}: {plain(message or reason)}", 95, certain=True)
    elif said.waits_for and said.waits_begun:  # what a pod needs is there when its first container begins
        yield _init_container(said)
    elif event and event.reason in _MOUNTS:
        volume = re.search(r'volume "([^"]+)"', event.message)
        named = f" {plain(volume[1], 60)}" if volume else ""
        what = f"its volume{named} cannot be mounted: {plain(_last_part(event.message))}"
        yield Finding("pending", what, 95, certain=_COMES not in event.message)
    elif event and event.reason in _NETWORKS:
        yield Finding("pending", f"its network cannot be set up: {plain(_last_part(event.message))}", 95, certain=True)
    elif said.waits_for:
        yield _init_container(said)
    elif event and event.reason == "Pulling":
        since = f" for {short_duration(facts.now_ns - event.time_ns)}" if facts.now_ns > event.time_ns > 0 else ""
        yield Finding("pending", f"its image {plain(said.image, 80)} is being pulled{since}", 70, certain=True)
    elif not facts.recorded:
        yield Finding("pending", f"it has not started yet{f' ({plain(said.waiting)})' if said.waiting else ''}", 40)


def _init_container(said: Kubernetes) -> Finding:
    return Finding("init-container", f"it waits for the init container {plain(said.waits_for, 60)}", 75, certain=True)


def _killing_probe(facts: Facts, said: Kubernetes) -> str | None:
    """The kind of probe whose failure made the kubelet kill it."""
    for event in reversed(said.events):
        match = _PROBE_KILLS.search(event.message) if event.reason == "Killing" else None
        if match and _fits(facts, said, event):
            return match["kind"]
    return None


def _killed_before(said: Kubernetes) -> str:
    """The kind of probe because of which it was killed at another time: of events that are alike not all are told."""
    found = [match["kind"] for event in said.events if event.reason == "Killing"
             and (match := _PROBE_KILLS.search(event.message))]  # fmt: skip
    return found[-1] if found else ""


def _killed(facts: Facts, said: Kubernetes) -> Iterator[Finding]:
    deleted, disrupted = _deleted(facts, said), _befell(facts, said, said.disrupted_ns)
    known = (said.pod_reason, said.disruption) if disrupted else ()
    event = next((each for each in reversed(said.events) if each.reason in _EVICTED and _fits(facts, said, each)), None)
    reason = next((each for each in (*known, event.reason if event else "") if each in _EVICTED), "")
    outright = _killed_outright(facts) and not facts.ended_by_oom
    by_kubelet = outright or (_asked_to_end(facts, said) and not facts.ended_by_oom) or not facts.recorded
    if reason and by_kubelet:
        message = said.pod_message or (event.message if event else "")
        message = "" if reason in ("TaintManagerEviction", "DeletionByTaintManager") else _first_part(message)
        more = f": {plain(message)}" if message else ""
        yield Finding("killed-eviction", f"{_EVICTED[reason]}{more}", 98, certain=True, benign=reason in _ON_PURPOSE)
    elif said.pod_reason == _DEADLINE and disrupted and by_kubelet:
        yield Finding("killed-deadline", "its pod ran longer than its activeDeadlineSeconds allow, so it was ended", 98,
                      certain=True)  # fmt: skip
    elif kind := _killing_probe(facts, said):
        yield _by_probe(facts, said, kind, certain=True)
    elif not deleted and outright and (kind := _killed_before(said)):
        yield _by_probe(facts, said, kind, certain=False)
    elif deleted and _asked_to_end(facts, said):
        yield Finding("killed-deletion", "its pod was deleted, so it was asked to end", 86, certain=True, benign=True)
    elif deleted and outright:
        yield Finding("killed-deletion", "its pod was deleted, so it was asked to end", 82, benign=True)
    elif said.phase == "Succeeded" and said.newest and facts.status:
        yield Finding("killed-deletion", "its pod was done, so it was asked to end", 92, certain=True, benign=True)


def _by_probe(facts: Facts, said: Kubernetes, kind: str, *, certain: bool) -> Finding:
    asked = f" ({plain(said.probes[kind], 60)})" if said.probes.get(kind) else ""
    result = _probe_result(said, kind)
    got = f": {result[1]}" if result and result[1] else ""
    written = re.search(r":(\d+)", said.probes.get(kind, ""))
    port, ports = int(written[1]) if written else 0, _listened(facts)
    details: tuple[str, ...] = ()
    slow = kind == "startup" and port not in ports
    if port and facts.history.complete and not facts.history.missing and not facts.left_out:
        if not ports:
            slow = True
            details = ("it had not listened on any port by then: it starts more slowly than the probe allows",)
        elif port not in ports:
            details = (f"it never listened on port {port}, but on {', '.join(map(str, sorted(ports)[:5]))}",)
    what = f"the kubelet killed it, as its {kind} probe{asked} failed{got}"
    return Finding("slow-start" if slow else "killed-probe", what, 98 if certain else 93, certain, details=details)


def _listened(facts: Facts) -> set[int]:
    """The ports that its sockets were bound to."""
    found = set()
    for call in facts.history.calls("bind"):
        data = call.captured.get(1)
        port = endpoint(data.data).rpartition(":")[2] if data and not call.failed else ""
        if port.isdecimal() and int(port):
            found.add(int(port))
    return found


def _probe_result(said: Kubernetes, *kinds: str) -> tuple[str, str, int] | None:
    """Of probes of some kinds the one that failed last: its kind, what it got, and how often."""
    for event in reversed(said.events):
        match = _PROBE.match(event.message) if event.reason == "Unhealthy" else None
        if match and (kind := match["kind"].lower()) in kinds:
            return kind, _answer(match["what"]), event.times
    return None


def _answer(text: str) -> str:
    """The answer to a probe, without the request."""
    status = re.search(r"HTTP probe failed with statuscode: (\d+)", text)
    if status:
        return f"HTTP status {status[1]}"
    if "context deadline exceeded" in text or "i/o timeout" in text or "Client.Timeout" in text:
        return "no answer in time"
    if found := re.match(r'Get "[^"]*": (.*)', text, re.DOTALL):
        text = found[1]
    return plain(re.sub(r"\s+", " ", _DIAL.sub("", text)).strip(), 100)


def _not_ready(facts: Facts, said: Kubernetes) -> Iterator[Finding]:
    if event := _newest(said, "NodeNotReady"):
        reason, _ = said.conditions.get("Ready", ("", ""))
        if not said.conditions or reason == "NodeNotReady":
            yield Finding("node-lost", f"its node is not ready: {plain(event.message)}", 90, certain=bool(reason))
    if said.ready is not False:
        if gate := said.conditions.get("Ready"):
            reason, message = gate
            if reason == "ReadinessGatesNotReady":
                yield Finding("not-ready", f"its pod is not ready: {plain(message)}", 80, certain=True)
        return
    if said.init:
        yield Finding("init-container", "it is an init container: the pod's others wait until it has ended", 45)
        return
    kinds = [kind for kind in ("startup", "readiness", "liveness") if kind in said.probes]
    if "startup" in kinds and said.started is not None:  # the others wait for it, and it ends with them
        kinds = [kind for kind in kinds if (kind == "startup") is not said.started]
    decides = [kind for kind in kinds if kind != "liveness"]
    if result := _probe_result(said, *decides) or _probe_result(said, *kinds):
        kind, answer, number = result
        got, times = f": {answer}" if answer else "", f", {number} times" if number > 2 else ""
        what = f"it is not ready: its {kind} probe ({plain(said.probes[kind], 60)}) failed{got}{times}"
        yield Finding("not-ready", what, 90, certain=True)
        return
    asked = f": its {kinds[0]} probe ({plain(said.probes[kinds[0]], 60)}) has not succeeded" if kinds else ""
    yield Finding("not-ready", f"it is not ready{asked}", 60, certain=True)


def _crashed(facts: Facts, said: Kubernetes) -> Iterator[Finding]:
    """An end that only Kubernetes tells of."""
    if facts.recorded or said.exit_code is None or said.terminated in ("OOMKilled", "StartError", "ContainerCannotRun"):
        return
    if said.exit_code:
        words = f", and left the message {quoted(said.message)}" if said.message else ""
        signal = said.exit_code - 128 if 128 < said.exit_code <= 192 else 0
        by = (
            " (as one that SIGKILL ended does)"
            if signal == 9
            else " (as one that SIGTERM ended does)"
            if signal == 15
            else ""
        )
        yield Finding("nothing", f"it exited with {said.exit_code}{by}{words}", 50 if words else 20)
    elif not said.init:
        policy = said.restart_policy == "Always"
        yield Finding("clean-exit", f"it ended by itself with 0{', though it should run on' if policy else ''}", 60,
                      certain=True, benign=not policy)  # fmt: skip


def _said(reason: str, message: str) -> str:
    """Kubernetes' message, and its reason in brackets."""
    return f"{plain(message)} ({plain(reason, 60)})" if message and message != reason else plain(reason, 60)


def _behind(message: str) -> str:
    return f": {plain(message)}" if message else ""


def _last_part(text: str) -> str:
    """The end of a chain of errors, each behind what it was about: there is what it began with."""
    text = re.sub(r"\s+", " ", text).strip()
    found = _QUOTED.fullmatch(text)
    rest = found["rest"] if found else text
    return re.sub(r"^rpc error: code = \w+ desc = ", "", rest)


def _first_part(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().rstrip(".")
