"""The names of a container and what else rules ask of it, from files that its runtime wrote before it started.

No server is asked.

Pods' annotations and images' labels are copied into the same files, so the author of a pod, an image or a cgroup could
choose names. So only keys that the runtime sets over these are read, and only if the cgroup says that the container is
that runtime's, or else the folder where it is found. Read in containerd 301026e5, CRI-O f954a17e,
cri-dockerd 246bd657, and newContainerLabels of the kubelet.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from agent.containers.container_facts import of_containerd, of_crio, of_docker, of_podman
from agent.containers.identity import CgroupPath, Container
from agent.containers.shims import Shims
from agent.containers.users import MOST_BYTES, Users
from agent.files import load_json, read_regular
from gadget.container_facts import ContainerFacts
from gadget.runtimes import STATES, State

log = logging.getLogger(__name__)

#: How many containers' facts are kept, at 2 KB each or so; those of others are read again when they are asked for.
FACTS_KEPT = 2048
#: What Kubernetes takes for names: RFC 1123's labels and subdomains. docker and podman know no limit of length.
_LABEL, _LABEL_MOST = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", 63
_SUBDOMAIN, _SUBDOMAIN_MOST = rf"{_LABEL}(\.{_LABEL})*", 253
_PLAIN = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class _Keys(NamedTuple):
    """Where a runtime tells namespace, pod and container, and which key has which value for a pod's pause container."""

    namespace: str
    pod: str
    container: str
    kind: str
    sandbox: str


_KUBELETS = "io.kubernetes.pod.namespace", "io.kubernetes.pod.name", "io.kubernetes.container.name"
_KEYS = {
    # DefaultCRIAnnotations, which comes after pod_annotations and container_annotations of containerd's configuration
    "containerd": _Keys(
        "io.kubernetes.cri.sandbox-namespace",
        "io.kubernetes.cri.sandbox-name",
        "io.kubernetes.cri.container-name",
        "io.kubernetes.cri.container-type",
        "sandbox",
    ),
    # the kubelet's labels, which SpecAddAnnotations and runPodSandbox put in last. Over CRI-O's own keys, such as
    # ContainerType, go the annotations of a pod for its pause container, and those of a checkpoint that an image holds
    "cri-o": _Keys(*_KUBELETS, "io.kubernetes.container.name", "POD"),
    # labels: the kubelet's go over the image's, and cri-dockerd sets the type in the end
    "docker": _Keys(*_KUBELETS, "io.kubernetes.docker.type", "podsandbox"),
}


#: A container and what its files say of it.
_Found = tuple[Container, ContainerFacts]


class Runtimes:
    """Names containers, and tells what else is known of them."""

    def __init__(
        self,
        host_root: Path = Path("/"),
        states: Sequence[State] = (),
        proc: Path | None = None,
        facts_kept: int = FACTS_KEPT,
    ) -> None:
        """Look below the host's root; in states first, and in those that are found among the processes of proc."""
        self._host_root, self._facts_kept = host_root, facts_kept
        self._states = [*states, *STATES]
        self._shims = Shims(proc, host_root) if proc else None
        self._users = Users(host_root)
        self._lock = threading.Lock()
        self._facts: OrderedDict[CgroupPath, ContainerFacts] = OrderedDict()

    def identify(self, place: CgroupPath) -> Container:
        """The container at a place, named as far as its runtime's files tell."""
        if user := self._users.owner(place):  # no pod, whatever its cgroups are called
            container = Container(place.id, place.runtime, name=self._of_user(place, user))
        elif found := self._find(place):
            container = self._keep(place, *found)
        else:
            container = Container(place.id, place.runtime, pod_uid=place.pod_uid)
        if not container.pod and not container.name:
            log.info("container %s of %s: no names found", place.id[:12], container.runtime or "an unknown runtime")
        return container

    def facts(self, place: CgroupPath, container: Container) -> ContainerFacts:
        """What else is known of a container that was identified at a place. May be called by any thread.

        They are those of when it was identified, also if its files are gone since. Of a user's own container there are
        none: the user could write anything.
        """
        with self._lock:
            if kept := self._facts.get(place):
                self._facts.move_to_end(place)
                return kept
        if not self._users.owner(place):
            for found, facts in self._look(place, list(self._states)):
                if found == container:
                    self._keep(place, found, facts)
                    return facts
        return ContainerFacts(container)

    def _keep(self, place: CgroupPath, container: Container, facts: ContainerFacts) -> Container:
        with self._lock:
            self._facts[place] = facts
            if len(self._facts) > self._facts_kept:
                self._facts.popitem(last=False)
        return container

    def _find(self, place: CgroupPath) -> _Found | None:
        found = next(self._look(place, self._states), None)
        if found is None and self._shims and place.runtime in ("", "containerd"):
            new = [state for state in self._shims.states() if state not in self._states]
            self._states += new
            found = next(self._look(place, new), None)
        return found

    def _look(self, place: CgroupPath, states: Sequence[State]) -> Iterator[_Found]:
        """The container and its facts, in each state folder that has it."""
        readers: dict[str, Callable[[CgroupPath, Path], _Found | None]] = {
            "containerd": self._containerd,
            "cri-o": self._crio,
            "podman": self._podman,
            "docker": self._docker,
        }
        for state in states:
            # CRI-O's containers always have its name in the path
            may_be = place.runtime == state.runtime or (not place.runtime and state.runtime != "cri-o")
            folder = self._host_root / state.containers.lstrip("/")
            if may_be and (both := readers[state.runtime](place, folder)):
                found, facts = both
                found = replace(found, runtime=state.runtime if found.pod or place.runtime else found.runtime)
                yield found, replace(facts, container=found)

    def _containerd(self, place: CgroupPath, folder: Path) -> _Found | None:
        config, annotations = _config(folder / "k8s.io" / place.id / "config.json")
        if annotations is not None:
            pod = _pod(annotations, _KEYS["containerd"], place)
            return (pod, of_containerd(pod, config)) if pod else None
        for path in () if place.runtime else _glob(folder, f"*/{place.id}/config.json"):
            config, annotations = _config(path)
            name = _name((annotations or {}).get("nerdctl/name"))
            if name and path.parent.parent.name != "moby":  # docker's
                container = Container(place.id, name=name, pod_uid=place.pod_uid)
                return container, of_containerd(container, config)
        return None

    def _crio(self, place: CgroupPath, folder: Path) -> _Found | None:
        config, annotations = _config(folder / place.id / "userdata/config.json")
        pod = None if annotations is None else _pod(annotations, _KEYS["cri-o"], place)
        return (pod, of_crio(pod, config)) if pod else None

    def _docker(self, place: CgroupPath, folder: Path) -> _Found | None:
        config = _load(folder / place.id / "config.v2.json")
        if not isinstance(config, dict):
            return None
        labels = config["Config"].get("Labels") if isinstance(config.get("Config"), dict) else None
        found: Container | None = Container(place.id, "docker", name=_docker_name(config), pod_uid=place.pod_uid)
        if place.pod_uid and isinstance(labels, dict):  # in other files they are the user's or the image's
            found = _pod(labels, _KEYS["docker"], place)
        return (found, of_docker(found, config, _load(folder / place.id / "hostconfig.json"))) if found else None

    def _podman(self, place: CgroupPath, folder: Path) -> _Found | None:
        known = None if place.pod_uid else _podman_item(_load(folder / "containers.json"), place.id)
        name = _podman_name(known)
        if not known or not name:
            return None
        container = Container(place.id, "podman", name=name)
        return container, of_podman(container, known, _config(folder / place.id / "userdata/config.json")[0])

    def _of_user(self, place: CgroupPath, user: int) -> str:
        """The name of a user's own container, from the user's own files: any name, but never a pod's."""
        share = ".local/share"
        if place.runtime == "docker":
            found = self._users.load(user, f"{share}/docker/containers/{place.id}/config.v2.json")
            return _docker_name(found) if isinstance(found, dict) else ""
        known = f"{share}/containers/storage/overlay-containers/containers.json"
        if place.runtime != "podman":
            return ""
        return _podman_name(_podman_item(self._users.load(user, known), place.id))


def _pod(found: Mapping[str, Any], keys: _Keys, place: CgroupPath) -> Container | None:
    namespace = _checked(found.get(keys.namespace), _LABEL, _LABEL_MOST)
    pod = _checked(found.get(keys.pod), _SUBDOMAIN, _SUBDOMAIN_MOST)
    if not namespace or not pod:
        return None
    name = _checked(found.get(keys.container), _LABEL, _LABEL_MOST)
    sandbox = found.get(keys.kind) == keys.sandbox
    return Container(place.id, place.runtime, namespace, pod, name, sandbox, place.pod_uid)


def _checked(value: object, pattern: str, most: int) -> str:
    """The value if it is a valid name; else an empty one."""
    return value if isinstance(value, str) and len(value) <= most and re.fullmatch(pattern, value) else ""


def _name(value: object) -> str:
    return _checked(value, _PLAIN.pattern, _SUBDOMAIN_MOST)


def _docker_name(config: Mapping[str, Any]) -> str:
    name = config.get("Name")
    return _name(name.removeprefix("/")) if isinstance(name, str) else ""


def _podman_item(known: object, container_id: str) -> dict[str, Any] | None:
    """What a containers.json says of a container."""
    for item in known if isinstance(known, list) else []:
        if isinstance(item, dict) and item.get("id") == container_id:
            return item
    return None


def _podman_name(item: Mapping[str, Any] | None) -> str:
    names = item.get("names") if item else None
    return next(filter(None, map(_name, names)), "") if isinstance(names, list) else ""


def _config(path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """An OCI configuration, empty if it cannot be read; and its annotations, None if there are none."""
    config = _load(path)
    if not isinstance(config, dict):
        return {}, None
    annotations = config.get("annotations")
    return config, annotations if isinstance(annotations, dict) else None


def _load(path: Path) -> Any:
    """A runtime's JSON file; None, and a log line, if it is not there or not JSON."""
    return load_json(path, lambda: read_regular(path, MOST_BYTES))


def _glob(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []
