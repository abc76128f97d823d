"""Pods and events as an API server has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

Object = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> str:
    """So long after NOW, as the API server writes it."""
    return (NOW + timedelta(seconds=seconds)).isoformat(timespec="seconds").replace("+00:00", "Z")


def at_ns(seconds: float) -> int:
    """The same in nanoseconds since 1970."""
    return int((NOW.timestamp() + seconds) * 1e9)


def ended(code: int, seconds: float = 0, reason: str = "", container_id: str = "", **more: Any) -> Object:
    """The state of a container that ended."""
    found = {
        "exitCode": code,
        "reason": reason or ("Error" if code else "Completed"),
        "finishedAt": at(seconds),
        **more,
    }
    return {"terminated": {**found, "containerID": f"containerd://{container_id}"} if container_id else found}


def waits(reason: str, message: str = "") -> Object:
    """The state of a container that waits."""
    return {"waiting": {"reason": reason, "message": message}}


RUNS: Object = {"running": {"startedAt": at(-100)}}


def pod(
    name: str = "cart",
    *,
    namespace: str = "shop",
    state: Object | None = None,
    last: Object | None = None,
    ready: bool = False,
    phase: str = "",
    spec: Object | None = None,
    container: Object | None = None,
    more: list[tuple[Object, Object]] | None = None,
    init: list[tuple[Object, Object]] | None = None,
    conditions: list[Object] | None = None,
    restarts: int = 0,
    container_id: str = "",
    deleting: bool = False,
    created: float = -600,
    labels: dict[str, str] | None = None,
    **status: Any,
) -> Object:
    """A pod with a container app; more and init are the specs and statuses of others."""
    own = ({"name": "app", "image": "shop/cart:1", **(container or {})},
           {"name": "app", "state": state or {}, "lastState": last or {}, "ready": ready, "restartCount": restarts,
            "containerID": f"containerd://{container_id}" if container_id else ""})  # fmt: skip
    every = [own, *(more or [])]
    meta: Object = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "creationTimestamp": at(created),
                    "labels": labels or {}}  # fmt: skip
    if deleting:
        meta["deletionTimestamp"] = at(0)
    statuses = [status for _, status in every if status.get("state")]
    init_statuses = [{"name": each["name"], **status} for each, status in init or []]
    return {
        "metadata": meta,
        "spec": {"containers": [each for each, _ in every], "initContainers": [each for each, _ in init or []],
                 "nodeName": "node-a", "terminationGracePeriodSeconds": 30, **(spec or {})},
        "status": {"phase": phase or ("Running" if state and "running" in state else "Pending"),
                   "conditions": conditions or [], "containerStatuses": statuses,
                   "initContainerStatuses": init_statuses, **status},
    }  # fmt: skip


def condition(kind: str, reason: str, message: str = "", *, status: str = "False", since: float = -300) -> Object:
    """A condition of a pod."""
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at(since)}


def event(
    reason: str, message: str, seconds: float = 0, *, pod: str = "cart", container: str = "app", uid: str = "",
    namespace: str = "shop", count: int = 1, first: float | None = None, field: str = "containers",
) -> Object:  # fmt: skip
    """An event of a pod, or of a container of it."""
    about = {"kind": "Pod", "name": pod, "namespace": namespace, "uid": uid or f"uid-{pod}"}
    if container:
        about["fieldPath"] = f"spec.{field}{{{container}}}"
    return {"metadata": {"name": f"{pod}.{reason}.{seconds}"}, "involvedObject": about, "reason": reason,
            "message": message, "count": count, "firstTimestamp": at(seconds if first is None else first),
            "lastTimestamp": at(seconds)}  # fmt: skip
