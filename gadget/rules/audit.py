"""The fields of a Kubernetes audit event (audit.k8s.io/v1), as rules name them: plugins/k8saudit, extract.go."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

import orjson

_REQUEST, _SPEC, _NOTE = "requestObject", ("requestObject", "spec"), "annotations"
_PATHS: dict[str, tuple[str, ...]] = {
    "ka.auditid": ("auditID",),
    "ka.stage": ("stage",),
    "ka.auth.decision": (_NOTE, "authorization.k8s.io/decision"),
    "ka.auth.reason": (_NOTE, "authorization.k8s.io/reason"),
    "ka.auth.openshift.decision": (_NOTE, "authentication.openshift.io/decision"),
    "ka.auth.openshift.username": (_NOTE, "authentication.openshift.io/username"),
    "ka.validations.admission.policy.failure": (_NOTE, "validation.policy.admission.k8s.io/validation_failure"),
    "ka.security.pod.violations": (_NOTE, "pod-security.kubernetes.io/audit-violations"),
    "ka.cluster.name": (_NOTE, "cluster_name"),
    "ka.user.name": ("user", "username"),
    "ka.user.groups": ("user", "groups"),
    "ka.impuser.name": ("impersonatedUser", "username"),
    "ka.verb": ("verb",),
    "ka.uri": ("requestURI",),
    "ka.useragent": ("userAgent",),
    "ka.sourceips": ("sourceIPs",),
    "ka.target.name": ("objectRef", "name"),
    "ka.target.namespace": ("objectRef", "namespace"),
    "ka.target.resource": ("objectRef", "resource"),
    "ka.target.subresource": ("objectRef", "subresource"),
    "ka.req.configmap.name": ("objectRef", "name"),
    "ka.req.configmap.obj": (_REQUEST, "data"),
    "ka.req.binding.subjects": (_REQUEST, "subjects"),
    "ka.req.binding.role": (_REQUEST, "roleRef", "name"),
    "ka.req.role.rules": (_REQUEST, "rules"),
    "ka.req.pod.host_ipc": (*_SPEC, "hostIPC"),
    "ka.req.pod.host_network": (*_SPEC, "hostNetwork"),
    "ka.req.pod.host_pid": (*_SPEC, "hostPID"),
    "ka.req.container.host_network": (*_SPEC, "hostNetwork"),
    "ka.req.pod.run_as_user": (*_SPEC, "securityContext", "runAsUser"),
    "ka.req.pod.run_as_group": (*_SPEC, "securityContext", "runAsGroup"),
    "ka.req.pod.fs_group": (*_SPEC, "securityContext", "fsGroup"),
    "ka.req.pod.supplemental_groups": (*_SPEC, "securityContext", "supplementalGroups"),
    "ka.req.pod.volumes.hostpath": (*_SPEC, "volumes", "hostPath", "path"),
    "ka.req.pod.volumes.flexvolume_driver": (*_SPEC, "volumes", "flexVolume", "driver"),
    "ka.req.service.type": (*_SPEC, "type"),
    "ka.req.service.ports": (*_SPEC, "ports"),
    "ka.req.role.rules.apiGroups": (_REQUEST, "rules", "apiGroups"),
    "ka.req.role.rules.nonResourceURLs": (_REQUEST, "rules", "nonResourceURLs"),
    "ka.req.role.rules.verbs": (_REQUEST, "rules", "verbs"),
    "ka.req.role.rules.resources": (_REQUEST, "rules", "resources"),
    "ka.resp.name": ("responseObject", "metadata", "name"),
    "ka.response.code": ("responseStatus", "code"),
    "ka.response.reason": ("responseStatus", "reason"),
}
_SECURITY = "securityContext"
#: Of the containers of a pod, behind ka.req.pod.containers., .initContainers. and .ephemeralContainers.
_OF_CONTAINERS: dict[str, tuple[str, ...]] = {
    "name": ("name",),
    "image": ("image",),
    "image.repository": ("image",),
    "command": ("command",),
    "args": ("args",),
    "host_port": ("ports",),
    "privileged": (_SECURITY, "privileged"),
    "allow_privilege_escalation": (_SECURITY, "allowPrivilegeEscalation"),
    "read_only_fs": (_SECURITY, "readOnlyRootFilesystem"),
    "run_as_user": (_SECURITY, "runAsUser"),
    "run_as_group": (_SECURITY, "runAsGroup"),
    "eff_run_as_user": (_SECURITY, "runAsUser"),
    "eff_run_as_group": (_SECURITY, "runAsGroup"),
    "proc_mount": (_SECURITY, "procMount"),
    "add_capabilities": (_SECURITY, "capabilities", "add"),
}
_CONTAINERS = re.compile(r"ka\.req\.pod\.(containers|initContainers|ephemeralContainers)\.(.+)")
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
#: How deep JSON may be nested. orjson writes 254 levels and reads 1,024; the API server takes 10,000 from its clients.
MOST_DEPTH, _TOO_DEEP = 200, b'"(nested too deep)"'
_NESTING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{}]', re.DOTALL)
_LATEST = 7_258_118_400  # 2200-01-01
_KEY = re.compile(r"([^\[]+)(?:\[(.*)\])?", re.DOTALL)
#: Fields of several values: a check of one that has none is as of one that is missing.
LISTS = frozenset(
    name for name in _PATHS
    if name.startswith("ka.req.role.rules") or name in (
        "ka.user.groups", "ka.sourceips", "ka.req.binding.subjects", "ka.req.pod.supplemental_groups",
        "ka.req.pod.volumes.hostpath", "ka.req.pod.volumes.flexvolume_driver", "ka.req.service.ports",
    )
)  # fmt: skip


def events(payload: bytes) -> Iterator[dict[str, Any]]:
    """The audit events of a payload: one, an array, or an EventList. What is none of them is passed over.

    Raises:
        ValueError: The payload is no JSON.

    """
    found = _parsed(payload)
    if isinstance(found, dict) and found.get("kind") == "EventList":
        found = found.get("items")
    for each in found if isinstance(found, list) else [found]:
        if isinstance(each, dict) and "auditID" in each and each.get("kind", "Event") == "Event":
            yield each  # those of a list of the API server have no kind


def _parsed(payload: bytes) -> Any:
    """JSON. What a client wrote may be no UTF-8, or nested without end, and does not hide the events beside it."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return json.loads(_shallow(payload).decode("utf-8", "replace"))


def _shallow(payload: bytes) -> bytes:
    """The JSON with a text in place of each value that is nested too deep for parsers."""
    parts, depth, copied = [], 0, 0
    for found in _NESTING.finditer(payload):
        if (letter := found[0]) in (b"[", b"{"):
            depth += 1
            if depth == MOST_DEPTH + 1:
                parts.append(payload[copied : found.start()])
        elif letter in (b"]", b"}"):
            if depth == MOST_DEPTH + 1:
                parts.append(_TOO_DEEP)
                copied = found.end()
            depth -= 1
    if depth > MOST_DEPTH:
        raise ValueError("it is nested, and cut off")
    return b"".join([*parts, payload[copied:]])


class AuditEvent:
    """One audit event; a field is read when it is asked for, and once."""

    def __init__(self, event: Mapping[str, Any], number: int = 1) -> None:
        self._event = event
        self._known: dict[str, Any] = {"evt.num": number, "evt.source": "k8s_audit"}

    def get(self, key: str) -> Any:
        """The value of a field; None if the event does not have it."""
        if key not in self._known:
            self._known[key] = self._read(key)
        return self._known[key]

    @property
    def place(self) -> tuple[str, str]:
        """The namespace and the pod that the request was about; empty if it was about none."""
        namespace, pod = str(self.get("ka.target.namespace") or ""), ""
        if self.get("ka.target.resource") == "pods":  # of one that is made the answer alone may have the name
            pod = str(self.get("ka.target.name") or self.get("ka.resp.name") or "")
        return namespace, pod

    def _read(self, key: str) -> Any:
        found = _KEY.fullmatch(key)
        name, arg = (found[1], found[2]) if found else (key, None)
        if name.startswith(("jevt.", "json.")):
            return self._json(name[5:], arg)
        if "auditID" not in self._event:
            return None
        index = _index(arg)
        if of := _CONTAINERS.fullmatch(name):
            return self._containers(of[1], of[2], index)
        if name in _SPECIAL:
            return _SPECIAL[name](self, arg)
        if name not in _PATHS:
            return None
        if name in LISTS:
            return tuple(_flat(_values(self._event, _PATHS[name], index))) or None
        value = self._at(*_PATHS[name])
        return None if value is None else _text(value)

    def _at(self, *keys: str) -> Any:
        value: Any = self._event
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def _json(self, name: str, arg: str | None) -> Any:
        if name == "obj":
            return _text(self._event, orjson.OPT_INDENT_2)
        if name in ("rawtime", "time"):
            return rawtime(self._at("stageTimestamp"))
        value: Any = self._event
        for part in (arg or "").removeprefix("/").split("/") if arg else ():
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, list):
                index = _index(part)
                value = value[index] if index is not None and index < len(value) else None
            else:
                value = value.get(part) if isinstance(value, dict) else None
        return None if value is None else _text(value)

    def _containers(self, which: str, name: str, index: int | None) -> Any:
        """A field of the containers of a pod."""
        if name not in _OF_CONTAINERS:
            return None
        found = list(_values(self._event, (*_SPEC, which, *_OF_CONTAINERS[name]), index))
        if name.startswith("eff_"):
            default = self._at(*_SPEC, _OF_CONTAINERS[name][-1])
            found = [("0" if default is None else default) if each is None else each for each in found]
        found = [each for each in found if each is not None]
        texts: Iterable[str]
        if name in ("command", "args"):
            texts = (" ".join(map(_text, each)) for each in found if isinstance(each, list))
        elif name == "host_port":
            ports = (port for each in found if isinstance(each, list) for port in each if isinstance(port, dict))
            numbers = (port.get("hostPort", port.get("containerPort")) for port in ports)
            texts = (_text(number) for number in numbers if number is not None)
        elif name == "image.repository":
            texts = (repository(_text(each)) for each in found)
        else:
            texts = _flat(found)
        return tuple(texts) or None

    def _parameter(self, name: str | None) -> Any:
        query = _text(self._at("requestURI") or "").partition("?")[2].partition("#")[0]
        found = parse_qs(query, keep_blank_values=True)
        return found[name][0] if name in found else None

    def _subjects(self, kind: str, *, named: bool = False) -> Any:
        subjects = self._at(_REQUEST, "subjects")
        own = (each for each in subjects if isinstance(each, dict)) if isinstance(subjects, list) else ()
        chosen = [each for each in own if each.get("kind") == kind and "name" in each]
        names = (f"{each.get('namespace')}:{each['name']}" if named else _text(each["name"]) for each in chosen)
        return tuple(names) or None

    def _pod_name(self) -> Any:
        if self._at("objectRef", "resource") != "pods" or self._at("objectRef", "subresource"):
            return None
        return self.get("ka.resp.name")

    def _volume_types(self, index: int | None) -> Any:
        volumes = _flat_values(_values(self._event, (*_SPEC, "volumes"), index))
        return tuple(key for each in volumes if isinstance(each, dict) for key in each if key != "name") or None

    def _privileged(self) -> Any:
        if self._at(*_SPEC, "containers") is None:
            return None
        return "true" if "true" in (self.get("ka.req.pod.containers.privileged") or ()) else "false"

    def _host_path(self, wanted: str | None) -> Any:
        if self._at(*_SPEC, "volumes") is None:
            return None
        paths = self.get("ka.req.pod.volumes.hostpath") or ()
        prefix = wanted.removesuffix("*") if wanted and wanted.endswith("*") else None
        found = wanted in paths or (prefix is not None and any(each.startswith(prefix) for each in paths))
        return "true" if found else "false"

    def _first(self, key: str) -> Any:
        return next(iter(self.get(key) or ()), None)


_SPECIAL: dict[str, Callable[[AuditEvent, str | None], Any]] = {
    "ka.uri.param": lambda event, arg: event._parameter(arg),
    "ka.target.pod.name": lambda event, _: event._pod_name(),
    "ka.req.binding.subjects.user_names": lambda event, _: event._subjects("User"),
    "ka.req.binding.subjects.group_names": lambda event, _: event._subjects("Group"),
    "ka.req.binding.subjects.serviceaccount_names": lambda event, _: event._subjects("ServiceAccount"),
    "ka.req.binding.subjects.serviceaccount_ns_names": lambda event, _: event._subjects("ServiceAccount", named=True),
    "ka.req.binding.subject.has_name": lambda *_: "true",
    "ka.req.container.image": lambda event, _: event._first("ka.req.pod.containers.image"),
    "ka.req.container.image.repository": lambda event, _: event._first("ka.req.pod.containers.image.repository"),
    "ka.req.container.privileged": lambda event, _: event._privileged(),
    "ka.req.volume.hostpath": lambda event, arg: event._host_path(arg),
    "ka.req.pod.volumes.volume_type": lambda event, arg: event._volume_types(_index(arg)),
}


def _index(arg: str | None) -> int | None:
    return int(arg) if arg and re.fullmatch("[0-9]{1,9}", arg) else None


def _values(value: Any, keys: tuple[str, ...], index: int | None) -> Iterator[Any]:
    """What stands behind keys; of a list what stands there in each element, or in the one at index."""
    for at, key in enumerate(keys):
        if isinstance(value, list):
            chosen = value if index is None else value[index : index + 1]
            for each in chosen:
                yield from _values(each, keys[at:], index)
            return
        value = value.get(key) if isinstance(value, dict) else None
    yield value


def _flat_values(found: Iterable[Any]) -> Iterator[Any]:
    for each in found:
        yield from each if isinstance(each, list) else (each,)


def _flat(found: Iterable[Any]) -> Iterator[str]:
    return (_text(each) for each in _flat_values(found) if each is not None)


def _text(value: Any, option: int = 0) -> str:
    if isinstance(value, str):
        return value
    try:
        return orjson.dumps(value, option=option).decode()
    except TypeError:  # nested deeper than 254 levels, or not UTF-8
        try:
            return json.dumps(value, separators=(",", ":"))
        except RecursionError:
            return "(nested too deep)"


def repository(image: str) -> str:
    """An image without its tag and its digest. A port of its registry belongs to it, which Falco's plugin cuts off."""
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def rawtime(stamp: Any) -> str | None:
    """Nanoseconds since 1970 of a time by RFC 3339, as a text; none if it is none, or after the year 2200."""
    found = _STAMP.fullmatch(stamp) if isinstance(stamp, str) else None
    if not found:
        return None
    try:
        seconds = int(datetime.fromisoformat(f"{found[1]}{found[3].replace('Z', '+00:00')}").timestamp())
    except ValueError:
        return None
    return f"{seconds}{(found[2] or '').ljust(9, '0')}" if 0 < seconds < _LATEST else None
