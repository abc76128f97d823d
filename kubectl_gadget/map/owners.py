"""Finds the workload of a pod, and the workload behind a Service: boxes of the map are workloads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gadget.endpoints import RAW, Endpoint
from gadget.errors import GadgetError
from gadget.kube.api import ApiServer
from gadget.text import escape
from gadget.workload import name_by_pod, workload

#: Where what is in no namespace stands, as in `advise network-policy graph`.
NODES, OUTSIDE, HERE = "nodes", "outside the cluster", "this machine"
#: Addresses outside that have a box each; what else there is shares one.
MOST_OUTSIDE = 400
OTHERS = "other addresses"
#: Letters of a name, more than Kubernetes and DNS allow. Not every name is theirs.
LONGEST = 260
#: Labels of a box: more than a workload's pods have, unless each has its own.
MOST_LABELS = 200
#: How often the cluster is asked whose pods are that nobody knew.
AGAIN_SECONDS = 30.0


def shown(text: str, letters: int = LONGEST) -> str:
    """A text that somebody else chose, safe to show: unprintable characters are escaped, and the length is bounded."""
    whole = escape(text[: letters + 1])
    return whole if len(whole) <= letters else f"{whole[: letters - 1]}…"


class MapNode(NamedTuple):
    """Something that talks. kind is that of an endpoint; of a pod it stands for its workload."""

    group: str
    name: str
    kind: str


@dataclass
class ClusterOwners:
    """What a cluster says: the workload of each pod, and of each Service the one whose pods it leads to.

    labels: those that pods of a workload have, as KEY=VALUE.
    """

    pods: dict[tuple[str, str], str] = field(default_factory=dict)
    services: dict[tuple[str, str], str] = field(default_factory=dict)
    labels: dict[tuple[str, str], set[str]] = field(default_factory=dict)


class Owners:
    """Finds the spot of an end of a flow."""

    def __init__(
        self,
        look: Callable[[], ClusterOwners] | None = None,
        most_outside: int = MOST_OUTSIDE,
        again_seconds: float = AGAIN_SECONDS,
    ) -> None:
        """Ask look, which takes its time, at once, and again when a pod turns up that it did not know."""
        self._look, self._most_outside, self._again_seconds = look, most_outside, again_seconds
        self._known = ClusterOwners()
        self._spots: dict[tuple[str, str, str], MapNode] = {}
        self._outside: set[str] = set()
        self._next = 0.0
        self._is_asking = False
        self.ask()

    def spot(self, end: Endpoint | None) -> MapNode:
        """The spot of an end."""
        if end is None or end.kind == RAW.kind:
            return self._address(end.addr if end else "")
        key = (end.kind, end.namespace, end.name)
        spots = self._spots  # once the cluster has answered there are others, which take nothing found before
        if key not in spots:
            if len(spots) > 100_000:  # pods that came and went
                spots.clear()
            spots[key] = self._find(end)
        return spots[key]

    @property
    def known(self) -> ClusterOwners:
        """What the cluster said last."""
        return self._known

    def labels(self, spot: MapNode) -> list[str]:
        """The labels that pods of a spot have."""
        own = self._known.labels.get((spot.group, spot.name), ()) if spot.kind == "pod" else ()
        return [shown(each) for each in sorted(own)[:MOST_LABELS]]

    def _address(self, address: str) -> MapNode:
        if address not in self._outside:
            if len(self._outside) >= self._most_outside:
                return MapNode(OUTSIDE, OTHERS, RAW.kind)
            self._outside.add(address)
        return MapNode(OUTSIDE, escape(address) or "not known", RAW.kind)

    def _find(self, end: Endpoint) -> MapNode:
        namespace = shown(end.namespace)
        if end.kind == "node":
            return MapNode(NODES, shown(end.name), end.kind)
        if end.kind == "svc":
            name = self._known.services.get((end.namespace, end.name))
            return (
                MapNode(namespace, shown(name), "pod") if name else MapNode(namespace, f"svc/{shown(end.name)}", "svc")
            )
        if end.kind == "pod":
            name = self._known.pods.get((end.namespace, end.name))
            if name is None:
                self._ask_again()
            return MapNode(namespace, shown(name or name_by_pod(end.name)), end.kind)
        return MapNode(HERE, shown(end.name), end.kind)

    def ask(self) -> None:
        """Ask the cluster, and wait."""
        self._next = time.monotonic() + self._again_seconds
        if self._look is None:
            return
        with suppress(GadgetError):  # names tell nearly as much
            self._known = self._look()
            self._spots = {}

    def _ask_again(self) -> None:
        """Look again, in a thread: the stream waits for nobody."""
        if self._look is None or self._is_asking or time.monotonic() < self._next:
            return
        self._is_asking = True

        def ask() -> None:
            try:
                self.ask()
            finally:
                self._is_asking = False

        threading.Thread(target=ask, name="owners", daemon=True).start()


def ask_cluster(apis: Sequence[ApiServer]) -> ClusterOwners:
    """Ask all clusters for owners. GadgetError if none of them lets this user list pods."""
    known = ClusterOwners()
    wrong: GadgetError | None = None
    for api in apis:
        try:
            pods = list(api.list("/api/v1/pods"))
        except GadgetError as error:
            wrong = error
            continue
        labels: dict[str, list[tuple[Mapping[str, str], str]]] = {}
        for pod in pods:
            with suppress(AttributeError, KeyError, TypeError):  # an object that is not as it has to be
                meta = pod["metadata"]
                name = _owner(meta)
                known.pods[meta["namespace"], meta["name"]] = name
                own = meta.get("labels") or {}
                labels.setdefault(meta["namespace"], []).append((own, name))
                known.labels.setdefault((meta["namespace"], name), set()).update(f"{k}={v}" for k, v in own.items())
        with suppress(GadgetError):
            for service in api.list("/api/v1/services"):
                with suppress(AttributeError, KeyError, TypeError):
                    _add_service(known, service, labels)
    if wrong and not known.pods:
        raise wrong
    return known


def _owner(meta: Mapping[str, Any]) -> str:
    owner = next((each for each in meta.get("ownerReferences") or () if each.get("controller")), None)
    whose = f"{owner['kind']}/{owner['name']}" if owner else f"Pod/{meta['name']}"
    revision = (meta.get("labels") or {}).get("pod-template-hash", "")
    return workload(meta["name"], whose, revision).partition("/")[2] or meta["name"]


def _add_service(known: ClusterOwners, service: Mapping[str, Any], labels: Mapping[str, list[tuple[Any, str]]]) -> None:
    """A Service is its workload's, if all pods that it selects are of one."""
    meta, selector = service["metadata"], service["spec"].get("selector") or {}
    pods = labels.get(meta["namespace"], ())
    found = {name for own, name in pods if selector and selector.items() <= own.items()}
    if len(found) == 1:
        known.services[meta["namespace"], meta["name"]] = found.pop()
