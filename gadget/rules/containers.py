"""The fields of containers and pods that rules ask, as Falco's container plugin has them.

Read in falcosecurity/plugins 0b3cbd8d: plugins/container/src/caps/extract/extract.cpp, container_info.h for the text of
a mount, and go-worker/pkg/container for where each value is from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from gadget.container_facts import ContainerFacts, Mount
from gadget.rules import values

#: The id of a container of which nothing is known, and that of what is in none.
UNKNOWN, HOST = "unknown", "host"


class Unknown:
    """The fields of a container that came and went faster than it could be followed: no more is known of it."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unknown)

    __hash__ = object.__hash__

    def get(self, key: str, /) -> Any:
        """Its id is no container's; all else is missing."""
        return UNKNOWN if key in ("container.id", "container.full_id") else None


_KEY = re.compile(r"([^\[]+)(?:\[(.*)\])?", re.DOTALL)
_SHORT = 12
#: Labels that are none of the user's: concatenate_container_labels of extract.cpp.
_INTERNAL = ("annotation.", "io.kubernetes.")

_PLAIN: dict[str, Callable[[ContainerFacts], Any]] = {
    "container.id": lambda facts: facts.container.id[:_SHORT],
    "container.full_id": lambda facts: facts.container.id,
    "container.name": lambda facts: facts.container.name,
    "container.type": lambda facts: facts.container.runtime,
    "container.image": lambda facts: facts.image,
    "container.image.id": lambda facts: facts.image_id,
    "container.image.repository": lambda facts: facts.repository,
    "container.image.tag": lambda facts: facts.tag,
    "container.image.digest": lambda facts: facts.digest,
    "container.privileged": lambda facts: facts.privileged,
    "container.start_ts": lambda facts: facts.started_ns,
    "k8s.ns.name": lambda facts: facts.container.namespace,
    "k8s.pod.name": lambda facts: facts.container.pod,
    "k8s.pod.uid": lambda facts: facts.container.pod_uid,
    "k8s.pod.id": lambda facts: facts.container.pod_uid,
}
_OF_MOUNT: dict[str, Callable[[Mount], str]] = {
    "container.mount": str,
    "container.mount.source": lambda mount: mount.source,
    "container.mount.dest": lambda mount: mount.destination,
    "container.mount.mode": lambda mount: mount.mode,
    "container.mount.rdwr": lambda mount: str(mount.rw).lower(),
    "container.mount.propagation": lambda mount: mount.propagation,
}


def container_field(facts: ContainerFacts | None, key: str, *, time_ns: int = 0) -> Any:
    """The value of a field; key is its text as a rule has it, such as container.mount.dest[/var/*]. None is missing.

    facts is None outside containers: id and name are "host" then, and all else is missing. time_ns is when the event
    was, in nanoseconds since 1970, for container.duration. What is not known of a container is missing, where Falco has
    an empty text or false.
    """
    found = _KEY.fullmatch(key)
    name, arg = (found[1], found[2]) if found else (key, None)
    if facts is None:
        return HOST if name in ("container.id", "container.full_id", "container.name") else None
    if name in _PLAIN:
        value = _PLAIN[name](facts)
        return None if value == "" else value
    if name == "container.duration":
        return None if facts.started_ns is None else max(time_ns - facts.started_ns, 0)
    if name == "container.mounts":
        return None if facts.mounts is None else ",".join(map(str, facts.mounts))
    if name in _OF_MOUNT and arg is not None:
        mount = _mount(facts.mounts or (), arg, by_destination=name == "container.mount.source")
        return None if mount is None else _OF_MOUNT[name](mount)
    if name == "k8s.pod.label" and arg is not None:
        return None if facts.labels is None else facts.labels.get(arg)
    if name == "k8s.pod.labels":
        return None if facts.labels is None else _labels(facts.labels)
    return None


def _mount(mounts: tuple[Mount, ...], arg: str, *, by_destination: bool) -> Mount | None:
    """The mount of a number, or the first whose source, or destination, a shell's pattern takes as a whole.

    So it is documented, and so was libsinsp's mount_by_source (fnmatch(3) without flags). The plugin's looks for a
    regular expression anywhere, for which / is in every mount: that is left out, as rules mean globs.
    """
    if re.fullmatch(r"[0-9]{1,9}", arg):
        return mounts[int(arg)] if int(arg) < len(mounts) else None
    takes = values.glob_of_event(arg)
    return next((each for each in mounts if takes(each.destination if by_destination else each.source)), None)


def _labels(labels: Mapping[str, str]) -> str:
    """All labels in a text, sorted by key, a value only where there is one."""
    own = ((key, labels[key]) for key in sorted(labels) if not key.startswith(_INTERNAL))
    return ", ".join(f"{key}:{value}" if value else key for key, value in own)
