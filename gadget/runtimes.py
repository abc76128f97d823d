"""Where container runtimes keep their files about containers: below a state folder, in a folder per container."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from gadget.errors import UsageError

#: The folder that holds the containers' folders, below a runtime's state folder. The sockets are beside it, not in it.
CONTAINERS = {
    "containerd": "io.containerd.runtime.v2.task",
    "cri-o": "overlay-containers",
    "podman": "overlay-containers",
    "docker": "containers",
}
_PATH = re.compile(r"(/[\w.+@-]+)+")


@dataclass(frozen=True)
class State:
    """A state folder of a runtime."""

    runtime: str
    path: str

    @property
    def containers(self) -> str:
        """The folder of its containers."""
        return f"{self.path}/{CONTAINERS[self.runtime]}"

    def __str__(self) -> str:
        """As parse_state takes it."""
        return f"{self.runtime}={self.path}"


#: The state folders of the runtimes, and those of distributions.
STATES = (
    State("containerd", "/run/containerd"),
    State("containerd", "/run/k3s/containerd"),
    State("containerd", "/run/k0s/containerd"),
    State("containerd", "/var/snap/microk8s/common/run/containerd"),
    State("cri-o", "/run/containers/storage"),
    State("cri-o", "/var/lib/containers/storage"),
    State("podman", "/var/lib/containers/storage"),
    State("docker", "/var/lib/docker"),
)


def parse_state(text: str) -> State:
    """A state folder, as in --runtime-state [RUNTIME=]PATH. UsageError if it is none."""
    runtime, equals, path = text.rpartition("=")
    path = str(PurePosixPath(path)) if path else ""
    if (runtime or "containerd") not in CONTAINERS or bool(runtime) != bool(equals):
        raise UsageError(f"--runtime-state {text!r}: want [RUNTIME=]PATH, RUNTIME one of {', '.join(CONTAINERS)}")
    if not _PATH.fullmatch(path) or ".." in PurePosixPath(path).parts:
        raise UsageError(f"--runtime-state {text!r}: want the whole path of a folder, such as /run/containerd")
    return State(runtime or "containerd", path)
