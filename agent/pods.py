"""The Kubernetes watch of this node's pods: labels, owner, IPs, restarts. Names do not depend on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from agent.threads import Worker

log = logging.getLogger(__name__)

PAGE = 250
#: A watch that says nothing for this long is begun again; the API server ends it by itself about then too.
WATCH_SECONDS = 300
BACKOFF_SECONDS = (0.5, 30.0)


class Gone(Exception):
    """410: the resource version is too old to go on from; list again."""


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


def parse_pod(pod: dict[str, Any]) -> PodInfo:
    """A pod's JSON as far as we need it."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    sidecars = [item for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always"]
    owners = [item for item in metadata.get("ownerReferences") or () if item.get("controller")]
    return PodInfo(
        uid=(metadata.get("annotations") or {}).get("kubernetes.io/config.mirror") or metadata["uid"],
        labels=metadata.get("labels") or {},
        owner=f"{owners[0]['kind']}/{owners[0]['name']}" if owners else "",
        ips=tuple(item["ip"] for item in status.get("podIPs") or ()),
        annotations=metadata.get("annotations") or {},
        host_network=bool(spec.get("hostNetwork")),
        ports=tuple(
            (port["name"], port.get("protocol", "TCP"), port["containerPort"])
            for container in (*(spec.get("containers") or ()), *sidecars)
            for port in container.get("ports") or ()
            if port.get("name")
        ),
        restarts={item["name"]: item.get("restartCount", 0) for item in status.get("containerStatuses") or ()},
        object_uid=metadata["uid"],
    )


class PodWatch:
    """Keeps the pods of one node, by the UID that their cgroups carry, for as long as the API server answers."""

    def __init__(self, api: Any, node: str, changed: Callable[[], None]) -> None:
        """Watch through api, a kubernetes.client.CoreV1Api; changed is called after each change."""
        self._api = api
        self._node = node
        self._changed = changed
        self._pods: dict[str, PodInfo] = {}
        self.worker = Worker("pods", self._run, stalls_after=WATCH_SECONDS * 2)
        self.worker.start()

    def get(self, uid: str) -> PodInfo | None:
        """What is known of the pod of that UID."""
        return self._pods.get(uid)

    def close(self) -> None:
        """Stop watching. The thread ends with its request."""
        self.worker.stop(0)

    def _run(self, worker: Worker) -> None:
        wait, longest = BACKOFF_SECONDS
        while not worker.stopping:
            try:
                for kind, pod in self._changes():
                    worker.beat()
                    self._apply(kind, pod)
                    wait = BACKOFF_SECONDS[0]
            except Gone:
                log.info("pods: the watch is too old, listing again")
            except Exception as error:  # whatever the network and the client throw: names do not depend on us
                log.warning("pods: %s: trying again in %.1f s", str(error).splitlines()[0], wait)
                worker.wait(wait)
                wait = min(wait * 2, longest)

    def _apply(self, kind: str, pod: Any) -> None:
        if kind == "LISTED":
            self._pods = {info.uid: info for info in map(parse_pod, pod)}
        elif kind == "DELETED":
            info = parse_pod(pod)
            self._pods[info.uid] = info  # it says at last what a short pod never had the time for
            self._changed()
            self._pods.pop(info.uid, None)
        else:
            info = parse_pod(pod)
            self._pods[info.uid] = info
        self._changed()

    def _changes(self) -> Iterator[tuple[str, Any]]:
        """All pods, then each change; ends when the watch does and begins again where it ended."""
        items, version = self._list()
        yield "LISTED", items
        while not self.worker.stopping:
            for event in self._watch(version):
                pod = event["object"]
                if event["type"] == "ERROR":
                    if pod.get("code") == 410:
                        raise Gone
                    raise OSError(pod.get("message", "watch error"))
                version = pod["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    yield event["type"], pod

    def _list(self) -> tuple[list[dict[str, Any]], str]:
        items: list[dict[str, Any]] = []
        token = None
        while True:
            page = self._request(limit=PAGE, _continue=token, resource_version=None if token else "0")
            data = orjson.loads(page.read())
            items += data.get("items") or []
            token = data["metadata"].get("continue")
            if not token:
                return items, data["metadata"]["resourceVersion"]

    def _watch(self, version: str) -> Iterator[dict[str, Any]]:
        response = self._request(
            watch=True, resource_version=version, timeout_seconds=WATCH_SECONDS, allow_watch_bookmarks=True
        )
        rest = b""
        for chunk in response.stream(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            yield from map(orjson.loads, lines)

    def _request(self, **options: Any) -> Any:
        from kubernetes.client import ApiException

        try:
            return self._api.list_pod_for_all_namespaces(
                field_selector=f"spec.nodeName={self._node}",
                _preload_content=False,
                _request_timeout=(5, WATCH_SECONDS + 10),
                **{name: value for name, value in options.items() if value is not None},
            )
        except ApiException as error:
            if error.status == 410:
                raise Gone from None
            raise
