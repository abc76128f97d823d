"""The Kubernetes watch of this node's pods: labels, owner, IPs, restarts. Names do not depend on it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import msgspec

from agent.containers.pod_settings import Settings
from agent.threads import Worker
from gadget.errors import Unreachable
from gadget.kube.api import Answer, ApiError, ApiServer

log = logging.getLogger(__name__)

PATH = "/api/v1/pods"
#: Pods of a list, which most API servers ignore when they answer from memory.
PAGE = 250
#: How many pods are remembered: a kubelet has 110, or some hundred, and there are those that have ended.
MOST = 20_000
#: A watch that ends sooner than this, without an event, has failed.
BRIEF_SECONDS = 1.0
#: How long close waits for a connection that is being made.
CLOSE_SECONDS = 1.0
#: How many letters of the API server's answer go into the log.
SHOWN = 500
#: The annotations that are kept; others may be a whole manifest each.
ANNOTATIONS = "kubectl-gadget/"
MIRROR = "kubernetes.io/config.mirror"


@dataclass(frozen=True)
class PodInfo:
    """What only the API server knows of a pod. restarts counts those of each container by name.

    ports are those that have a name: name, protocol, number. object_uid is that of the object: a static pod's cgroups
    carry another.
    """

    uid: str
    labels: dict[str, str]
    owner: str
    ips: tuple[str, ...]
    restarts: dict[str, int]
    annotations: dict[str, str]
    host_network: bool = False
    ports: tuple[tuple[str, str, int], ...] = ()
    object_uid: str = ""


class _Owner(msgspec.Struct):
    kind: str
    name: str
    controller: bool | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    uid: str
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[_Owner] | None = None


class _Port(msgspec.Struct, rename="camel"):
    container_port: int
    name: str | None = None
    protocol: str = "TCP"


class _Container(msgspec.Struct, rename="camel"):
    ports: list[_Port] | None = None
    restart_policy: str | None = None


class _Spec(msgspec.Struct, rename="camel"):
    containers: list[_Container] | None = None
    init_containers: list[_Container] | None = None
    host_network: bool | None = None


class _Ip(msgspec.Struct):
    ip: str


class _ContainerStatus(msgspec.Struct, rename="camel"):
    name: str
    restart_count: int = 0


class _Status(msgspec.Struct, rename={"pod_ips": "podIPs", "container_statuses": "containerStatuses"}):
    pod_ips: list[_Ip] | None = None
    container_statuses: list[_ContainerStatus] | None = None


class _Pod(msgspec.Struct):
    """The parts of a pod that we need. The rest of its JSON, which is most of it, is never decoded."""

    metadata: _Metadata
    spec: _Spec | None = None
    status: _Status | None = None


class _Versions(msgspec.Struct, rename={"version": "resourceVersion", "more": "continue"}):
    version: str
    more: str | None = None


class _Page(msgspec.Struct):
    metadata: _Versions
    items: list[_Pod] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct):
    metadata: _Versions


class _Failure(msgspec.Struct):
    code: int = 0
    message: str = "the watch failed"


_read_page = msgspec.json.Decoder(_Page).decode
_read_event = msgspec.json.Decoder(_Event).decode
read_pod = msgspec.json.Decoder(_Pod).decode


def info_of(pod: _Pod) -> PodInfo:
    """What is kept of a pod."""
    metadata, spec, status = pod.metadata, pod.spec or _Spec(), pod.status or _Status()
    annotations = metadata.annotations or {}
    sidecars = [item for item in spec.init_containers or () if item.restart_policy == "Always"]
    owners = [item for item in metadata.owner_references or () if item.controller]
    return PodInfo(
        uid=annotations.get(MIRROR) or metadata.uid,
        labels=metadata.labels or {},
        owner=f"{owners[0].kind}/{owners[0].name}" if owners else "",
        ips=tuple(item.ip for item in status.pod_ips or ()),
        annotations={name: value for name, value in annotations.items() if name.startswith(ANNOTATIONS)},
        host_network=bool(spec.host_network),
        ports=tuple(
            (port.name, port.protocol, port.container_port)
            for container in (*(spec.containers or ()), *sidecars)
            for port in container.ports or ()
            if port.name
        ),
        restarts={item.name: item.restart_count for item in status.container_statuses or ()},
        object_uid=metadata.uid,
    )


class PodWatch:
    """Keeps the pods of one node, by the UID that their cgroups carry, for as long as the API server answers."""

    def __init__(
        self,
        api: ApiServer,
        node: str,
        changed: Callable[[], None],
        settings: Settings = Settings(),  # noqa: B008
    ) -> None:
        """Watch through api; changed is called after each change."""
        self._api, self._settings = api, settings
        self._node = node
        self._changed = changed
        self._pods: dict[str, PodInfo] = {}
        self._version = ""  # the version to go on from; empty if all pods are to be listed
        self._answer: Answer | None = None
        self.worker = Worker("pods", self._run, stalls_after=settings.watch_seconds * 2)
        self.worker.start()

    def get(self, uid: str) -> PodInfo | None:
        """What is known of the pod of that UID."""
        return self._pods.get(uid)

    def close(self) -> None:
        """Stop watching, at once unless the API server lets us wait for a connection."""
        self.worker.stop(0)
        if answer := self._answer:
            answer.cut()
        self.worker.stop(CLOSE_SECONDS)

    def _run(self, worker: Worker) -> None:
        shortest, longest = self._settings.first_wait_seconds, self._settings.most_wait_seconds
        wait = shortest
        while not worker.stopping:
            worker.beat()
            began, heard = time.monotonic(), False
            try:
                if not self._version:
                    self._list()
                for line in self._watch():
                    worker.beat()
                    heard, wait = True, shortest
                    self._take(line)
                why = "" if heard or time.monotonic() - began > BRIEF_SECONDS else "the watch ended at once"
            except TimeoutError:
                why = ""  # perhaps nothing happened; a server that is away will not be reached again
                log.debug("pods: nothing was heard for %.0f s: asking again", self._settings.silent_seconds)
            except Unreachable as error:
                why = str(error)
            except Exception as error:  # 410, too old, or nonsense: names need none of it
                self._version, why = "", str(error) or type(error).__name__
            if why and not worker.stopping:
                pause = wait * random.uniform(0.5, 1)  # all nodes may have lost the same API server
                log.warning("pods: %s: trying again in %.1f s", why.splitlines()[0][:SHOWN], pause)
                worker.wait(pause)
                wait = min(wait * 2, longest)

    def _list(self) -> None:
        """Learn of all pods anew."""
        found: dict[str, PodInfo] = {}
        more: str | None = None
        while True:
            # from the API server's memory: with a few thousand nodes etcd would notice
            query = {"continue": more} if more else {"resourceVersion": "0"}
            with self._ask(limit=PAGE, **query) as answer:
                page = _read_page(answer.read(self._settings.page_bytes))
            for info in map(info_of, page.items or ()):
                _keep(found, info)
            more = page.metadata.more
            if not more or self.worker.stopping or len(found) >= MOST:
                break
            self.worker.beat()
        self._pods, self._version = found, page.metadata.version
        self._changed()

    def _watch(self) -> Iterator[bytes]:
        """Take in changes after a version, a line each, until the API server ends the watch."""
        seconds = random.randint(self._settings.watch_seconds, 2 * self._settings.watch_seconds)
        more = {"resourceVersion": self._version, "allowWatchBookmarks": "true"}
        with self._ask(watch="true", timeoutSeconds=seconds, **more) as answer:
            yield from answer.lines(self._settings.line_bytes, self._settings.silent_seconds)

    def _take(self, line: bytes) -> None:
        """Learn from a line of a watch."""
        event = _read_event(line)
        if event.type == "ERROR":
            failure = msgspec.json.decode(event.object, type=_Failure)
            raise ApiError(failure.code, failure.message)
        if event.type == "BOOKMARK":
            self._version = msgspec.json.decode(event.object, type=_Bookmark).metadata.version
            return
        pod = read_pod(event.object)
        info = info_of(pod)
        _keep(self._pods, info)
        self._changed()
        if event.type == "DELETED":  # the last event has what was still unknown of a pod that was short
            self._pods.pop(info.uid, None)
            self._changed()
        self._version = pod.metadata.resource_version

    @contextmanager
    def _ask(self, **query: Any) -> Iterator[Answer]:
        """An answer about the node's pods. close() cuts it."""
        query["fieldSelector"] = f"spec.nodeName={self._node}"
        with self._api.open("GET", f"{PATH}?{urlencode(query)}") as answer:
            self._answer = answer
            if self.worker.stopping:  # before there was something to cut
                answer.cut()
            yield answer


def _keep(pods: dict[str, PodInfo], info: PodInfo) -> None:
    if info.uid in pods or len(pods) < MOST:
        pods[info.uid] = info
        if len(pods) == MOST:
            log.warning("%d pods on this node: labels of others will not be known", MOST)
