"""Image, mounts and privileges of a container, from the files that agent/containers/runtimes.py reads its names from.

Read in containerd 301026e5, CRI-O f954a17e, moby b985e231, and falcosecurity/plugins 0b3cbd8d.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

import orjson

from agent.containers.identity import Container
from gadget.container_facts import ContainerFacts, Image, Mount, complete, parse_image, parse_image_id

#: A container has few mounts, and paths are below PATH_MAX; what is beyond is left out.
_MOUNTS, _LETTERS = 1024, 4096
_PROPAGATIONS = frozenset(f"{deep}{kind}" for deep in ("", "r") for kind in ("private", "shared", "slave"))


def of_containerd(container: Container, config: Mapping[str, Any]) -> ContainerFacts:
    """What containerd's config.json says.

    The image is that of DefaultCRIAnnotations, which comes after all annotations of pods; since containerd 1.5
    (99cb62f23). It may be as short as the pod's author wrote it. Outside pods, and for older ones, it is not known.
    """
    image = parse_image(complete(_annotation(config, "io.kubernetes.cri.image-name"))) if container.pod else Image()
    return _facts(container, config, image)


def of_crio(container: Container, config: Mapping[str, Any]) -> ContainerFacts:
    """What CRI-O's config.json says.

    Over CRI-O's keys go the container's annotations: those of the kubelet and of device plugins, and no pod's. But of a
    container that is restored from a checkpoint they are that image's author's, and nothing in the files tells it from
    others. So a checkpoint may call its image as it likes.
    """
    image = next(
        (
            found
            for key in ("ImageName", "Image")
            if (found := parse_image(_annotation(config, f"io.kubernetes.cri-o.{key}"))).image
        ),
        Image(),
    )
    digests = _annotation(config, "io.kubernetes.cri-o.ImageRepoDigests")
    if not image.digest and isinstance(digests, str):
        every = map(parse_image, digests[:_LETTERS].split(","))
        image = image._replace(digest=next((each.digest for each in every if each.repository == image.repository), ""))
    return _facts(container, config, image, parse_image_id(_annotation(config, "io.kubernetes.cri-o.ImageRef")))


def of_podman(container: Container, known: Mapping[str, Any], config: Mapping[str, Any]) -> ContainerFacts:
    """What podman keeps of a container in containers.json, where no user's value is, and its config.json says."""
    kept = known.get("metadata")
    try:
        metadata = orjson.loads(kept) if isinstance(kept, str) else None
    except ValueError:
        metadata = None
    image = parse_image(metadata.get("image-name")) if isinstance(metadata, dict) else Image()
    return _facts(container, config, image, parse_image_id(known.get("image")))


def of_docker(container: Container, config: Mapping[str, Any], host_config: object) -> ContainerFacts:
    """What docker's config.v2.json and hostconfig.json say. The image is called as its user called it.

    The source of a volume of docker's own is missing there.
    """
    asked = config.get("Config")
    image = parse_image(asked.get("Image")) if isinstance(asked, dict) else Image()
    privileged = host_config.get("Privileged") if isinstance(host_config, dict) else None
    points = config.get("MountPoints")
    return ContainerFacts(
        container,
        *image,
        image_id=parse_image_id(config.get("Image")),
        privileged=privileged if isinstance(privileged, bool) else None,
        mounts=tuple(_docker_mounts(points)) if isinstance(points, dict) else None,
    )


def _facts(container: Container, config: Mapping[str, Any], image: Image, image_id: str = "") -> ContainerFacts:
    mounts = _dicts(config, "mounts")
    binds = tuple(_binds(mounts, container.runtime != "podman")) if "mounts" in config else None
    return ContainerFacts(container, *image, image_id, _is_privileged(config, mounts), binds)


def _is_privileged(config: Mapping[str, Any], mounts: list[dict[str, Any]]) -> bool | None:
    """Whether a container is privileged, from the OCI configuration; None if that does not tell.

    Falco asks the CRI, which knows what was asked for. The files do not, but WithPrivileged of containerd, and what
    CRI-O and podman do alike, is seen in them: no path is masked or made read-only, and sysfs can be written to, which
    no pod gets otherwise. Falco's reader of specifications looks at the same (go-worker/pkg/container/containerd.go).
    The number of capabilities is no sign, as privileged containers have those of their runtime; nor are devices and
    seccomp, which settings may keep from them (privileged_without_host_devices, privileged_seccomp_profile).
    """
    process, linux = config.get("process"), config.get("linux")
    if not isinstance(process, dict) or not isinstance(linux, dict):
        return None
    capabilities = process.get("capabilities")
    bounding = capabilities.get("bounding") if isinstance(capabilities, dict) else None
    powerful = isinstance(bounding, list) and "CAP_SYS_ADMIN" in bounding
    confined = any(linux.get(key) for key in ("maskedPaths", "readonlyPaths"))
    writable = any(mount.get("type") == "sysfs" and "ro" not in _options(mount) for mount in mounts)
    return powerful and not confined and writable


def _binds(mounts: list[dict[str, Any]], by_cri: bool) -> Iterator[Mount]:
    """The bind mounts of an OCI configuration. The runtime's own, such as /etc/hosts, are among them."""
    for mount in mounts:
        options = _options(mount)
        if mount.get("type") != "bind" and not {"bind", "rbind"} & set(options):
            continue
        source, destination = mount.get("source"), mount.get("destination")
        propagation = next((each for each in options if each in _PROPAGATIONS), "")
        if by_cri and propagation == "rprivate":
            propagation = "private"  # as Falco calls it, which asks the CRI
        if _is_text(source) and _is_text(destination):
            yield Mount(source, destination, "", not {"ro", "rro"} & set(options), propagation)


def _docker_mounts(points: dict[str, Any]) -> Iterator[Mount]:
    for point in list(points.values())[:_MOUNTS]:
        if not isinstance(point, dict):
            continue
        keys = "Source", "Destination", "Relabel", "Propagation"
        source, destination, mode, propagation = texts = [point.get(key, "") for key in keys]
        if all(map(_is_text, texts)):
            yield Mount(source, destination, mode, point.get("RW") is True, propagation)


def _annotation(config: Mapping[str, Any], key: str) -> object:
    annotations = config.get("annotations")
    return annotations.get(key) if isinstance(annotations, dict) else None


def _dicts(config: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = config.get(key)
    return [each for each in found[:_MOUNTS] if isinstance(each, dict)] if isinstance(found, list) else []


def _options(mount: Mapping[str, Any]) -> list[str]:
    found = mount.get("options")
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= _LETTERS
