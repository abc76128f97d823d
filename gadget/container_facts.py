"""What rules ask of a container beside its names: its image, mounts and privileges, and since when it runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

#: Longer references are none. Names have 255 letters at most, tags 128 (distribution/reference).
_MOST_LETTERS = 512
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+\-\[\]]*")
_DIGEST = re.compile(r"sha(256|384|512):[0-9a-f]{64,128}")
_ID = re.compile(r"(sha256:)?[0-9a-f]{64}")


class HasNames(Protocol):
    """The names of a container, as agents know them; empty where they are not known."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def runtime(self) -> str: ...  # noqa: D102
    @property
    def namespace(self) -> str: ...  # noqa: D102
    @property
    def pod(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def pod_uid(self) -> str: ...  # noqa: D102


class Mount(NamedTuple):
    """A file or folder of the host that a container has. mode is of docker and podman: how SELinux labels it."""

    source: str
    destination: str
    mode: str = ""
    rw: bool = True
    propagation: str = ""

    def __str__(self) -> str:
        """As container_mount_info::to_string of Falco's container plugin."""
        return f"{self.source}:{self.destination}:{self.mode}:{str(self.rw).lower()}:{self.propagation}"


@dataclass(frozen=True)
class ContainerFacts:
    """What is known of a container. Texts are empty, and others None, where it is not known.

    image is the reference as its runtime tells it, image_id the hexadecimal digest of the image's configuration, digest
    that of its manifest, with the algorithm. started_ns is in nanoseconds since 1970. labels are the pod's.
    """

    container: HasNames
    image: str = ""
    repository: str = ""
    tag: str = ""
    digest: str = ""
    image_id: str = ""
    privileged: bool | None = None
    mounts: tuple[Mount, ...] | None = None
    started_ns: int | None = None
    labels: Mapping[str, str] | None = None


class Image(NamedTuple):
    """A reference to an image, and its parts; repository has registry and port."""

    image: str = ""
    repository: str = ""
    tag: str = ""
    digest: str = ""


def parse_image(reference: object) -> Image:
    """A reference to an image, apart. All is empty if it is none, or a mere id.

    As parseImageRepoTag of Falco's container plugin: what follows @ is the digest, and the tag what follows a colon
    after the last slash.
    """
    if not isinstance(reference, str) or len(reference) > _MOST_LETTERS or not _PLAIN.fullmatch(reference):
        return Image()
    name, _, digest = reference.partition("@")
    folder, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    if not last or _ID.fullmatch(name):
        return Image()
    return Image(reference, folder + slash + last, tag, digest if _DIGEST.fullmatch(digest) else "")


def parse_image_id(value: object) -> str:
    """The id of an image, without the algorithm; empty if it is none."""
    return value.removeprefix("sha256:") if isinstance(value, str) and _ID.fullmatch(value) else ""


def complete(reference: object) -> object:
    """A reference as a user may shorten it, with registry and tag: nginx is docker.io/library/nginx:latest.

    As ParseDockerRef of distribution/reference, by which containerd pulls.
    """
    found = parse_image(reference)
    if not found.image:
        return reference
    first, slash, _ = found.repository.partition("/")
    whole = found.image
    if not slash or not (re.search(r"[.:]", first) or first == "localhost"):
        whole = f"docker.io/{'' if slash else 'library/'}{whole}"
    return whole if found.tag or found.digest else f"{whole}:latest"
