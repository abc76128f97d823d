"""Asks the API server for what `why` wants to know, all at once and not for long, with the user's own rights."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from threading import Lock
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import quote

from gadget.endpoints import Endpoint, Owner
from gadget.errors import GadgetError
from gadget.kube.api import ApiError, ApiServer
from gadget.selector import parse_names
from kubectl_gadget.cluster.agents import Background
from kubectl_gadget.cluster.directory import FORBIDDEN, names_of
from kubectl_gadget.why.facts import Kubernetes
from kubectl_gadget.why.history import CallHistory
from kubectl_gadget.why.pod import gone_facts, kubernetes_facts, parse_time, read_events

#: An answer is not held up longer by an API server that is slow.
WAIT_SECONDS = 2.0
#: Objects of one list that are looked at.
MOST = 5000
_NAME = "the API server"
_PODS = "/api/v1/pods"
#: Addresses of one recording that are looked up.
MOST_ADDRESSES = 8

#: Clocks of nodes and of the API server differ by less.
_SKEW_NS = 2_000_000_000

Object = dict[str, Any]
T = TypeVar("T")


class ClusterFacts:
    """The API server as a user may see it, for threads to share. What was not to be had is among missing, in words."""

    def __init__(
        self,
        api: ApiServer,
        namespaces: Sequence[str],
        name: str = "",
        *,
        nodes: Sequence[str] = (),
        every_event: bool = False,
    ) -> None:
        """Begin to ask for the pods of namespaces, all if none is wanted, and for the events of one pod, or of all.

        Those of nodes alone, as --node lists them, if there are any.
        """
        self._on = parse_names(nodes)
        self._api, self._names = api, parse_names(namespaces)
        self._lock = Lock()
        #: how long may still be waited, how many threads wait, and since when one does
        self._left, self._waiting, self._since = WAIT_SECONDS, 0, 0.0
        self.missing: list[str] = []
        self._pods = Background(_NAME, self._list_pods)
        self._listed: list[Object] | None = None
        self._begun: dict[tuple[str, str], Background[list[Object]]] = {}
        self._all_events: dict[tuple[str, str], list[Object]] | None = None
        wanted = sorted(self._names.wanted)
        self._every = Background(_NAME, self._list_events) if every_event else None
        if name and len(wanted) == 1:
            self._ask_events(wanted[0], name)

    @property
    def pods(self) -> list[Object] | None:
        """The pods of the namespaces; None if they may not be listed, or did not come in time."""
        if self._listed is None:
            self._listed = self._wait(self._pods, "what Kubernetes says of pods", "list pods", self._where())
        return self._listed

    def pod(self, namespace: str, name: str) -> Object | None:
        """A pod; empty if there is none of that name, None if nobody knows."""
        if self._names.matches(namespace) and self.pods is not None:
            found = [each for each in self.pods if key_of(each) == (namespace, name)]
            return found[0] if found else {}
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"
        try:
            answer: Object = self._await(Background(_NAME, lambda: self._api.get(path)))
        except ApiError as error:
            if error.code == 404:
                return {}
            self._note(error, "what Kubernetes says of it", "get pods", f"in namespace {namespace}")
            return None
        except GadgetError as error:
            self._note(error, "what Kubernetes says of it", "get pods", f"in namespace {namespace}")
            return None
        return answer

    def facts(
        self, namespace: str, pod: str, container: str, container_id: str = "", started_ns: int = 0
    ) -> Kubernetes | None:
        """What is said of a run of a container, the newest if it has no id; None if the API server does not tell."""
        if not pod:
            return None
        self._ask_events(namespace, pod)
        found = self.pod(namespace, pod)
        if found is None:
            return None
        events = self._events_of(namespace, pod)
        if not found:
            return gone_facts(read_events(events), container)
        metadata = found.get("metadata") or {}
        uid = str(metadata.get("uid") or "")
        if 0 < started_ns < parse_time(metadata.get("creationTimestamp")) - _SKEW_NS:  # another had its name before
            return gone_facts(
                read_events(each for each in events if each["involvedObject"].get("uid") != uid), container
            )
        return kubernetes_facts(found, container, container_id, read_events(events, uid))

    def names(self, history: CallHistory, more: Sequence[str] = ()) -> tuple[dict[str, str], dict[str, str]]:
        """Who the addresses are that a recording has, and what else is known of them: both by ADDRESS:PORT.

        more are further texts that may be addresses.
        """
        ends = _ends(history, more)
        if not ends:
            return {}, {}
        known = self._owners(list(dict.fromkeys(address for address, _ in ends.values())))
        names = {
            text: str(Endpoint(address, port, *known[address]))
            for text, (address, port) in ends.items()
            if address in known
        }
        services = {known[address] for address, _ in ends.values() if address in known and known[address].kind == "svc"}
        unready = self._without_pods(services) if self._every is None else ()
        notes = {text: "no pod of it is ready" for text, (address, _) in ends.items() if known.get(address) in unready}
        return names, notes

    def _owners(self, addresses: Sequence[str]) -> dict[str, Owner]:
        """Who has addresses: nodes, then pods, and services before all."""
        asked: list[tuple[str, Background[list[Object]]]] = []
        if self._every is None:
            asked = [("pods", Background(_NAME, partial(self._list, _PODS, fieldSelector=f"status.podIP={address}")))
                     for address in addresses]  # fmt: skip
        found: dict[str, Owner] = {}
        lists: list[tuple[str, Background[list[Object]]]]
        nodes = self._once("nodes", "", lambda: self._list("/api/v1/nodes"))
        services = self._once("services", "", self._list_services)
        lists = [("nodes", nodes), *asked, ("pods", self._pods), ("services", services)]
        errors: dict[str, GadgetError] = {}
        for kind, each in lists:
            try:
                items = self._await(each)
                found |= names_of(kind, items)
            except GadgetError as problem:
                errors[kind] = problem
        if errors and not found.keys() >= set(addresses):
            kind, error = errors.popitem()  # one line is enough, and services matter most
            self._note(error, "the names of addresses", f"list {kind}", "in all namespaces" if kind == "pods" else "")
        return {address: found[address] for address in addresses if address in found}

    def _without_pods(self, services: Iterable[Owner]) -> set[Owner]:
        """Those of services that have no endpoint that is ready, as far as that can be told."""
        asked = {}
        for service in services:
            path = f"/apis/discovery.k8s.io/v1/namespaces/{quote(service.namespace, safe='')}/endpointslices"
            labels = f"kubernetes.io/service-name={service.name}"
            asked[service] = Background(_NAME, partial(self._list, path, labelSelector=labels))
        unready = set()
        for service, each in asked.items():
            with suppress(GadgetError, AttributeError):
                ends = [end for item in self._await(each) for end in item.get("endpoints") or ()]
                if not any((end.get("conditions") or {}).get("ready", True) is not False for end in ends):
                    unready.add(service)
        return unready

    def _list_pods(self) -> list[Object]:
        wanted = sorted(self._names.wanted)
        if not wanted:
            found = self._list(_PODS)
        else:
            paths = [f"/api/v1/namespaces/{quote(each, safe='')}/pods" for each in wanted]
            with ThreadPoolExecutor(8) as pool:
                found = [item for items in pool.map(self._list, paths) for item in items]
        return [
            item
            for item in found
            if self._names.matches(key_of(item)[0])
            and (not self._on.wanted or self._on.matches((item.get("spec") or {}).get("nodeName") or ""))
        ]

    def _list_events(self) -> list[Object]:
        wanted = sorted(self._names.wanted)
        paths = [f"/api/v1/namespaces/{quote(each, safe='')}/events" for each in wanted] or ["/api/v1/events"]
        return [item for path in paths for item in self._list(path, fieldSelector="involvedObject.kind=Pod")]

    def _list_services(self) -> list[Object]:
        try:
            return self._list("/api/v1/services")
        except ApiError as error:
            if error.code != FORBIDDEN:
                raise
        found = []
        for namespace in sorted(self._names.wanted):
            with suppress(GadgetError):
                found += self._list(f"/api/v1/namespaces/{quote(namespace, safe='')}/services")
        return found

    def _list(self, path: str, most: int = MOST, **query: str) -> list[Object]:
        return list(itertools.islice(self._api.list(path, **query), most))

    def _once(self, what: str, name: str, work: Callable[[], list[Object]]) -> Background[list[Object]]:
        """What is asked for once, by whichever thread needs it first."""
        with self._lock:
            if (what, name) not in self._begun:
                self._begun[what, name] = Background(_NAME, work)
            return self._begun[what, name]

    def _ask_events(self, namespace: str, pod: str) -> Background[list[Object]]:
        if self._every is not None:
            return self._every
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/events"
        selector = f"involvedObject.kind=Pod,involvedObject.name={pod}"
        return self._once(namespace, pod, lambda: self._list(path, fieldSelector=selector))

    def _events_of(self, namespace: str, pod: str) -> list[Object]:
        if self._every is None:
            asked = self._ask_events(namespace, pod)
            return self._wait(asked, "events", "list events", f"in namespace {namespace}") or []
        if self._all_events is None:
            by_pod: dict[tuple[str, str], list[Object]] = {}
            for item in self._wait(self._every, "events", "list events", self._where()) or []:
                about = item.get("involvedObject") or {}
                by_pod.setdefault((about.get("namespace") or "", about.get("name") or ""), []).append(item)
            self._all_events = by_pod
        return self._all_events.get((namespace, pod), [])

    def _wait(self, asked: Background[list[Object]], what: str, right: str, where: str) -> list[Object] | None:
        try:
            return self._await(asked)
        except GadgetError as error:
            self._note(error, what, right, where)
            return None

    def _await(self, asked: Background[T]) -> T:
        """What was asked for. GadgetError if it was not to be had, or all time for waiting is used up.

        Time in which several threads wait counts once.
        """
        with self._lock:
            if not self._waiting:
                self._since = monotonic()
            self._waiting += 1
            left = self._since + self._left - monotonic()
        try:
            return asked.wait(max(0.01, left))
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    self._left -= monotonic() - self._since

    def _note(self, error: GadgetError, what: str, right: str, where: str) -> None:
        may_not = isinstance(error, ApiError) and error.code == FORBIDDEN
        why = f"you may not {right} {where}" if may_not else str(error)
        line = f"{what} {'is' if what.startswith('what') else 'are'} not shown: {why.rstrip()}"
        with self._lock:
            if line not in self.missing:
                self.missing.append(line)

    def _where(self) -> str:
        wanted = sorted(self._names.wanted)
        return f"in namespace{'s' * (len(wanted) > 1)} {', '.join(wanted)}" if wanted else "in all namespaces"


def key_of(item: Mapping[str, Any]) -> tuple[str, str]:
    """Namespace and name of an object."""
    metadata = item.get("metadata") or {}
    return str(metadata.get("namespace") or ""), str(metadata.get("name") or "")


def _ends(history: CallHistory, more: Sequence[str]) -> dict[str, tuple[str, int]]:
    """The addresses that calls were about which failed or have not returned: by ADDRESS:PORT."""
    texts = [failure.subject for failure in reversed(history.failures) if failure.name in _NETWORK]
    texts += more
    texts += [name for name, *_ in history.unanswered()]
    for call, _ in history.blocked:
        thing = history.thing(call.pid, call.args[0] & 0xFFFFFFFF)
        texts += [thing.name] if thing and thing.kind in ("socket", "client") else []
    found: dict[str, tuple[str, int]] = {}
    for text in dict.fromkeys(texts):
        host, _, port = text.rpartition(":")
        with suppress(ValueError):
            address = ip_address(host.strip("[]"))
            if not (address.is_loopback or address.is_unspecified or len(found) >= MOST_ADDRESSES):
                found[text] = str(address), int(port)
    return found


_NETWORK = (
    "connect",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "read",
    "readv",
    "recvfrom",
    "recvmsg",
    "write",
    "writev",
    "bind",
)
