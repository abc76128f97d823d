"""The agents of a cluster, by node."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from gadget.deadline import left
from gadget.errors import GadgetError, Unreachable, UsageError
from gadget.kube.api import ApiError, ApiServer, not_allowed
from gadget.kube.portforward import Tunnel
from kubectl_gadget.agents.targets import Targets
from kubectl_gadget.cluster.options import SERVERS
from kubectl_gadget.cluster.place import own_folder
from kubectl_gadget.tell import tell

#: What a pod is: an agent, or another server of ours.
COMPONENT = "app.kubernetes.io/component"
LABELS = {"app.kubernetes.io/name": "kubectl-gadget", COMPONENT: "agent"}
PORT = 7070
#: A large cluster's API server is not asked for more at once.
TUNNELS_AT_ONCE = 16
DESCRIBE_SECONDS = 5.0
#: A wait that is longer says for whom: so many names of nodes at most.
SILENT_SECONDS, NAMES = 3.0, 3
#: Reasons to wait that no time removes; those that end in BackOff are as good.
HOPELESS = ("Unschedulable", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")
T = TypeVar("T")


class NoAgents(Unreachable):
    """There are no agents in the cluster."""


@dataclass(frozen=True)
class AgentPod:
    """An agent's pod.

    problem says why it does not serve, empty if it does; hopeless is whether waiting for it is in vain. One that runs
    may serve before it is found ready, or in spite of a probe that took too long.
    """

    node: str
    name: str
    running: bool
    ready: bool
    problem: str
    hopeless: bool
    #: of its last end, if it does not run
    exit_code: int = 0


def list_agents(api: ApiServer, namespace: str, *, cached: bool = False, also: Sequence[str] = ()) -> list[AgentPod]:
    """The agents in a namespace, one for each node. GadgetError if they may not be listed.

    cached: as they were a moment ago, which spares the cluster's etcd: streams ask every few seconds. also: the
    receiver of audit events, or Hubble's API.
    """
    chosen = LABELS | {COMPONENT: ",".join((*also, LABELS[COMPONENT]))}
    query = {"labelSelector": ",".join(f"{name} in ({value})" for name, value in chosen.items())}
    if cached:
        query["resourceVersion"] = "0"
    try:
        found = api.get(f"/api/v1/namespaces/{namespace}/pods", **query).get("items") or []
    except ApiError as error:
        raise not_allowed(error, "list pods", namespace) from None
    # while an agent is replaced its node has two pods: prefer the one that stays
    found.sort(key=lambda pod: ("deletionTimestamp" not in pod["metadata"], pod["metadata"]["creationTimestamp"]))
    by_node = {agent.node: agent for agent in map(read_pod, found)}
    return sorted(by_node.values(), key=lambda agent: agent.node)


def read_pod(pod: dict[str, Any]) -> AgentPod:
    """What a pod object says of an agent."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions") or ())
    reason, why = ("", "") if ready else _problem(status)
    problem = f"pod {name} is {reason}{': ' * bool(why)}{why}" if reason else ""
    running = any("running" in container["state"] for container in status.get("containerStatuses") or ())
    hopeless = reason.endswith("BackOff") or reason in HOPELESS
    ended = [] if ready else [_ended(container) for container in status.get("containerStatuses") or ()]
    code = next((each["exitCode"] for each in ended if each.get("exitCode")), 0)
    return AgentPod(_node(pod), name, running, ready, problem, hopeless, code)


def _ended(container: dict[str, Any]) -> dict[str, Any]:
    """How a container that does not run ended, or the one before it."""
    state = container["state"]
    found: dict[str, Any] = state.get("terminated") or (container.get("lastState") or {}).get("terminated") or {}
    return found


def _node(pod: dict[str, Any]) -> str:
    """The node that a DaemonSet's pod runs on, or is meant for."""
    if (component := pod["metadata"].get("labels", {}).get(COMPONENT)) in SERVERS:
        return str(component)
    if node := pod["spec"].get("nodeName"):
        return str(node)
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    for term in (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ():
        for item in term.get("matchFields") or ():
            if item["key"] == "metadata.name":
                return str(item["values"][0])
    return f"the node of {pod['metadata']['name']}"


def _problem(status: dict[str, Any]) -> tuple[str, str]:
    """Why a pod is not ready: in one word, as Kubernetes has it, and in a few words."""
    for container in status.get("containerStatuses") or ():
        waiting = container["state"].get("waiting") or {}
        ended = _ended(container)
        if waiting and waiting.get("reason") != "CrashLoopBackOff":
            return waiting.get("reason", "waiting"), waiting.get("message", "")
        if ended:
            return waiting.get("reason", "terminated"), f"its agent ended with exit code {ended.get('exitCode')}"
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return condition.get("reason", "Pending"), condition.get("message", "")
    return status.get("phase", "unknown"), "its agent does not serve yet" if status.get("phase") == "Running" else ""


def describe_agents(api: ApiServer, namespace: str) -> dict[str, str]:
    """Version and kernel of each agent that answers, by node."""
    from gadget._generated import gadget_pb2 as pb
    from kubectl_gadget.agents.client import ask_once

    about = {}
    with cluster_agents(api, namespace, (), also=SERVERS) as targets:
        reached = targets()
        for node in reached:
            with suppress(GadgetError):
                reply = ask_once(reached.reach(node), "Describe", pb.DescribeRequest(), DESCRIBE_SECONDS)
                about[node] = f"agent {reply.version}, Linux {reply.kernel}"
    return about


class Background(Generic[T]):
    """The result of a function that runs in a thread, which does not keep the process from ending."""

    def __init__(self, name: str, work: Callable[[], T]) -> None:
        """Begin; name is who is waited for."""
        self._name, self._work = name, work
        self._done = threading.Event()
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="background", daemon=True).start()

    def _run(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:  # raised again where it is waited for
            self._error = error
        finally:
            self._done.set()

    @property
    def done(self) -> bool:
        """Whether the result is there, so that wait() returns at once."""
        return self._done.is_set()

    def wait(self, seconds: float | None = None) -> T:
        """The result, or the error, once it is there. Unreachable if it is not by the deadline, or within seconds."""
        rest = left()
        sooner = seconds is not None and (rest is None or seconds < rest)
        if not self._done.wait(seconds if sooner else rest):
            raise Unreachable(f"{self._name}: no answer {'in time' if sooner else 'within the time of --wait'}")
        if self._error:
            raise self._error
        return self._value


@contextmanager
def cluster_agents(
    api: ApiServer,
    namespace: str,
    nodes: Sequence[str],
    *,
    of_several: bool = False,
    also: Sequence[str] = (),
    silent_seconds: float = SILENT_SECONDS,
) -> Iterator[Callable[[], Targets]]:
    """Gives a function that waits for the agents by node: for each, a function that waits for its address.

    Both are under way already: the caller has modules to import meanwhile. of_several: other clusters may have the
    nodes that this one has not. also: as list_agents has it.
    """
    tunnels: dict[str, Tunnel] = {}
    slots = threading.BoundedSemaphore(TUNNELS_AT_ONCE)
    numbers = itertools.count()
    awaited: dict[str, Background[Any]] = {}
    with own_folder() as folder, _told_of(awaited, silent_seconds):

        def open_tunnel(agent: AgentPod) -> str:
            if before := tunnels.pop(agent.node, None):
                before.close()
            # by number: a path of a Unix socket may have 107 bytes, a node's name 253
            with slots:
                tunnel = _open(api, namespace, agent, folder / str(next(numbers)))
            tunnels[agent.node] = tunnel
            return tunnel.address

        def look(*, cached: bool = True) -> Targets:
            agents = _choose(list_agents(api, namespace, cached=cached, also=also), nodes, namespace, of_several)
            found = Targets({agent.node: partial(open_tunnel, agent) for agent in agents})
            found.are_nodes = True
            return found

        def list_and_open() -> Targets:
            opened = {node: Background(node, opening) for node, opening in look(cached=False).items()}
            awaited.update(opened)
            targets = Targets({node: each.wait for node, each in opened.items()})
            targets.look, targets.are_nodes = look, True
            return targets

        try:
            awaited["the API server"] = listing = Background("the API server", list_and_open)
            yield listing.wait
        finally:
            for tunnel in list(tunnels.values()):
                tunnel.close()


@contextmanager
def _told_of(awaited: Mapping[str, Background[Any]], silent_seconds: float) -> Iterator[None]:
    """Name what is waited for, once, if it takes longer."""

    def look() -> None:
        names = [name for name, each in list(awaited.items()) if not each.done]
        more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
        if names:
            tell(f"waiting for {', '.join(names[:NAMES])}{more}")

    timer = threading.Timer(silent_seconds, look)
    timer.name, timer.daemon = "waits", True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _open(api: ApiServer, namespace: str, agent: AgentPod, path: Path) -> Tunnel:
    if not agent.running:
        raise Unreachable(f"{agent.node}: no agent ({agent.problem})")
    try:
        return Tunnel(api, namespace, agent.name, PORT, path)
    except ApiError as error:
        raise not_allowed(error, "port-forward", namespace) from None
    except Unreachable as error:
        why = f"no agent ({agent.problem})" if agent.problem else error  # it may have ended since, and be on its way
        raise Unreachable(f"{agent.node}: {why}") from None


def _choose(agents: list[AgentPod], nodes: Sequence[str], namespace: str, of_several: bool) -> list[AgentPod]:
    if not agents:
        raise NoAgents(
            f"no agents in namespace {namespace}: run `kubectl gadget deploy`, or trace this machine with --local"
        )
    wanted = [name for item in nodes for name in item.split(",") if name]
    known = {agent.node for agent in agents}
    if not of_several and (unknown := [name for name in wanted if name not in known]):
        raise UsageError(f"no agent on node {', '.join(unknown)}: there is {', '.join(sorted(known))}")
    return [agent for agent in agents if not wanted or agent.node in wanted]
