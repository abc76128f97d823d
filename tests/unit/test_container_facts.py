"""What rules ask of a container beside its names: right for each runtime, and only what the runtime itself wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.containers.identity import Container, parse_path
from agent.containers.runtimes import FACTS_KEPT, Runtimes
from gadget.container_facts import ContainerFacts, Mount, parse_image
from gadget.rules.containers import container_field
from tests.unit.test_identity import USER, A, B
from tests.unit.test_runtimes import (
    BY_CONTAINERD,
    BY_CRIO,
    BY_DOCKER,
    CONTAINERD,
    CRIO,
    DOCKER,
    STORAGE,
    crio,
    docker_file,
    put,
    task,
)

DIGEST = "sha256:" + "d" * 64
ID = "1" * 64
#: as containerd writes it for a container of a pod; what it masks is shortened
OCI: dict[str, Any] = {
    "ociVersion": "1.1.0",
    "process": {"capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]}},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/etc/hosts", "type": "bind", "source": "/var/lib/kubelet/pods/x/etc-hosts",
         "options": ["rbind", "rprivate", "rw"]},
        {"destination": "/host/etc", "type": "bind", "source": "/etc", "options": ["rbind", "rslave", "ro"]},
    ],
    "linux": {"maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"], "seccomp": {}},
}  # fmt: skip
MOUNTS = (
    Mount("/var/lib/kubelet/pods/x/etc-hosts", "/etc/hosts", "", True, "private"),
    Mount("/etc", "/host/etc", "", False, "rslave"),
)
CRIO_IMAGE = {
    "io.kubernetes.cri-o.Image": ID,
    "io.kubernetes.cri-o.ImageName": "quay.io/shop/cart:1.2",
    "io.kubernetes.cri-o.ImageRef": ID,
    "io.kubernetes.cri-o.ImageRepoDigests": f"quay.io/other/cart@sha256:{'e' * 64},quay.io/shop/cart@{DIGEST}",
}
DOCKER_CONFIG = {
    "Name": "/web",
    "Image": f"sha256:{ID}",
    "Config": {"Image": "nginx:1.25", "Labels": DOCKER},
    "MountPoints": {
        "/data": {"Type": "bind", "Source": "/srv", "Destination": "/data", "RW": False, "Relabel": "z",
                  "Propagation": "rprivate"},
        "/logs": {"Type": "volume", "Name": "logs", "Driver": "local", "Source": "", "Destination": "/logs", "RW": True},
    },
}  # fmt: skip


def privileged() -> dict[str, Any]:
    """As WithPrivileged leaves it."""
    config = json.loads(json.dumps(OCI))
    config["process"]["capabilities"]["bounding"] = ["CAP_CHOWN", "CAP_SYS_ADMIN"]
    config["mounts"][1]["options"][-1] = "rw"
    config["linux"] = {}
    return config


def facts_of(root: Path, path: str) -> ContainerFacts:
    place = parse_path(path)
    assert place
    runtimes = Runtimes(root)
    return runtimes.facts(place, runtimes.identify(place))


def image_of(facts: ContainerFacts) -> tuple[str, str, str, str, str]:
    return facts.image, facts.repository, facts.tag, facts.digest, facts.image_id


def by_containerd(root: Path, image: object, **more: object) -> ContainerFacts:
    put(root, task(), {**OCI, "annotations": {**CONTAINERD, "io.kubernetes.cri.image-name": image, **more}})
    return facts_of(root, BY_CONTAINERD)


def test_of_containerd(tmp_path: Path) -> None:
    """A pod's container has its image, its mounts and whether it is privileged from what containerd wrote."""
    facts = by_containerd(tmp_path, f"registry.k8s.io:443/shop/cart:1.2@{DIGEST}")
    assert image_of(facts) == (
        f"registry.k8s.io:443/shop/cart:1.2@{DIGEST}", "registry.k8s.io:443/shop/cart", "1.2", DIGEST, ""
    )  # fmt: skip
    assert (facts.mounts, facts.privileged, facts.container.pod) == (MOUNTS, False, "cart-0")


@pytest.mark.parametrize(
    ("written", "image"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.25", "docker.io/library/nginx:1.25"),
        ("shop/cart", "docker.io/shop/cart:latest"),
        ("localhost/cart:1", "localhost/cart:1"),
        ("node:5000/cart", "node:5000/cart:latest"),
        (f"quay.io/cart@{DIGEST}", f"quay.io/cart@{DIGEST}"),
    ],
)
def test_short_images(tmp_path: Path, written: str, image: str) -> None:
    """A rule that names an image in full also matches pods that name it short."""
    assert by_containerd(tmp_path, written).image == image


@pytest.mark.parametrize(
    "image",
    [None, "", ID, f"sha256:{ID}", 7, ["nginx"], "a b", "x" * 513, "\x1b[31m", "nginx\n", "/", "a/", ":1", "@x"],
)
def test_no_images(tmp_path: Path, image: object) -> None:
    """An image that a file does not tell is missing, rather than wrong."""
    assert image_of(by_containerd(tmp_path, image)) == ("", "", "", "", "")


def test_of_crio(tmp_path: Path) -> None:
    """With CRI-O likewise, and the image has its id and the digest of its own repository."""
    put(tmp_path, crio(), {**OCI, "annotations": {**CRIO, **CRIO_IMAGE}})
    facts = facts_of(tmp_path, BY_CRIO)
    assert image_of(facts) == ("quay.io/shop/cart:1.2", "quay.io/shop/cart", "1.2", DIGEST, ID)
    assert (facts.mounts, facts.privileged) == (MOUNTS, False)
    unnamed = {**CRIO_IMAGE, "io.kubernetes.cri-o.ImageName": ""}
    put(tmp_path, crio(), {**OCI, "annotations": {**CRIO, **unnamed}})
    assert image_of(facts_of(tmp_path, BY_CRIO)) == ("", "", "", "", ID)


@pytest.mark.parametrize(("path", "name"), [(BY_DOCKER, "cart"), (f"/docker/{A}", "web")])
def test_of_docker(tmp_path: Path, path: str, name: str) -> None:
    """With docker likewise, whether the container is a pod's or not."""
    put(tmp_path, docker_file(), DOCKER_CONFIG)
    put(tmp_path, f"var/lib/docker/containers/{A}/hostconfig.json", {"Privileged": True})
    facts = facts_of(tmp_path, path)
    assert image_of(facts) == ("nginx:1.25", "nginx", "1.25", "", ID)
    assert (facts.privileged, facts.container.name) == (True, name)
    assert facts.mounts == (
        Mount("/srv", "/data", "z", False, "rprivate"), Mount("", "/logs", "", True, "")
    )  # fmt: skip


def test_of_podman(tmp_path: Path) -> None:
    """With podman likewise; an annotation that its user gave says nothing."""
    metadata = json.dumps({"image-name": "quay.io/shop/db:7", "image-id": ID, "name": "db"})
    put(tmp_path, f"var/lib/{STORAGE}/containers.json", [{"id": B, "names": ["db"], "image": ID, "metadata": metadata}])
    put(tmp_path, f"var/lib/{STORAGE}/{B}/userdata/config.json", {**privileged(), "annotations": CRIO_IMAGE})
    facts = facts_of(tmp_path, f"/machine.slice/libpod-{B}.scope")
    assert image_of(facts) == ("quay.io/shop/db:7", "quay.io/shop/db", "7", "", ID)
    assert facts.privileged is True
    assert facts.mounts and [each.propagation for each in facts.mounts] == ["rprivate", "rslave"]


def test_of_nerdctl(tmp_path: Path) -> None:
    """Nerdctl's user chooses all annotations, so none of them tells the image; mounts are the runtime's."""
    annotations = {"nerdctl/name": "web", "io.kubernetes.cri.image-name": "docker.io/falcosecurity/falco:1"}
    put(tmp_path, task(namespace="default"), {**OCI, "annotations": annotations})
    facts = facts_of(tmp_path, f"/default/{A}")
    assert (facts.container.name, facts.image, facts.mounts) == ("web", "", MOUNTS)


@pytest.mark.parametrize("path", [f"{USER}/user.slice/docker-{A}.scope", f"{USER}/kubepods/{A}"])
def test_of_users(tmp_path: Path, path: str) -> None:
    """A user of the machine cannot claim an image that rules trust, nor take another container's away."""
    put(tmp_path, docker_file(), DOCKER_CONFIG)
    place, other = parse_path(f"/docker/{A}"), parse_path(path)
    assert place and other
    runtimes = Runtimes(tmp_path)
    container, forged = runtimes.identify(place), runtimes.identify(other)
    assert runtimes.facts(other, forged) == ContainerFacts(forged)
    assert runtimes.facts(place, container).image == "nginx:1.25"


def test_privileged(tmp_path: Path) -> None:
    """A privileged container is known as such; one that has only some of what these have is not."""

    def change(*path: str | int, value: object) -> dict[str, Any]:
        config = privileged()
        *above, last = path
        inner: Any = config
        for key in above:
            inner = inner[key]
        inner[last] = value
        return config

    cases = [
        (privileged(), True),
        (change("linux", "seccomp", value={"defaultAction": "SCMP_ACT_ALLOW"}), True),  # privileged_seccomp_profile
        (change("process", "capabilities", "bounding", value=["CAP_CHOWN", "CAP_NET_ADMIN"]), False),
        (change("linux", "maskedPaths", value=["/proc/kcore"]), False),
        (change("linux", "readonlyPaths", value=["/proc/sys"]), False),
        (change("mounts", 1, "options", value=["nosuid", "ro"]), False),
        (change("mounts", value=[]), False),
        (change("process", "capabilities", value={}), False),
        (change("process", value=None), None),
        ({}, None),
    ]
    for config, expected in cases:
        put(tmp_path, task(), {**config, "annotations": CONTAINERD})
        assert facts_of(tmp_path, BY_CONTAINERD).privileged is expected, config


def test_after_the_end(tmp_path: Path) -> None:
    """A container that has ended before a rule asks keeps its image: its files were read when it began."""
    file = put(tmp_path, task(), {"annotations": {**CONTAINERD, "io.kubernetes.cri.image-name": "nginx"}})
    place = parse_path(BY_CONTAINERD)
    assert place
    runtimes = Runtimes(tmp_path)
    container = runtimes.identify(place)
    file.unlink()
    assert runtimes.facts(place, container).repository == "docker.io/library/nginx"


def test_many_containers(tmp_path: Path) -> None:
    """However many containers come and go, the memory for them is bounded; what was dropped is read again."""
    assert FACTS_KEPT <= 4096
    runtimes, places = Runtimes(tmp_path, facts_kept=3), []
    for number in range(5):
        container_id = f"{number:064x}"
        put(tmp_path, f"var/lib/docker/containers/{container_id}/config.v2.json", DOCKER_CONFIG)
        place = parse_path(f"/docker/{container_id}")
        assert place
        places.append((place, runtimes.identify(place)))
    assert len(runtimes._facts) == 3
    assert {runtimes.facts(*each).image for each in places} == {"nginx:1.25"}
    assert len(runtimes._facts) == 3


def test_parts_of_images() -> None:
    """A registry's port is no tag."""
    assert parse_image("a.b:5000/x/y")[1:3] == ("a.b:5000/x/y", "")
    assert parse_image("x:1")[1:3] == ("x", "1")
    assert parse_image("x@nothing")[1:] == ("x", "", "")


FACTS = ContainerFacts(
    Container(A, "containerd", "shop", "cart-0", "cart", pod_uid="u-1"),
    *parse_image(f"quay.io/shop/cart:1.2@{DIGEST}"),
    image_id=ID,
    privileged=False,
    mounts=(*MOUNTS, Mount("/proc", "/host/proc")),
    started_ns=1_000,
    labels={"tier": "web", "app": "cart", "flag": "", "io.kubernetes.x": "y"},
)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("container.id", A[:12]),
        ("container.full_id", A),
        ("container.name", "cart"),
        ("container.type", "containerd"),
        ("container.image", f"quay.io/shop/cart:1.2@{DIGEST}"),
        ("container.image.id", ID),
        ("container.image.repository", "quay.io/shop/cart"),
        ("container.image.tag", "1.2"),
        ("container.image.digest", DIGEST),
        ("container.privileged", False),
        ("container.start_ts", 1_000),
        ("container.duration", 234),
        ("container.mounts", "/var/lib/kubelet/pods/x/etc-hosts:/etc/hosts::true:private,/etc:/host/etc::false:rslave,"
                             "/proc:/host/proc::true:"),
        ("container.mount[1]", "/etc:/host/etc::false:rslave"),
        ("container.mount[3]", None),
        ("container.mount[/etc]", "/etc:/host/etc::false:rslave"),
        ("container.mount.dest[/]", None),
        ("container.mount.dest[/etc*]", "/host/etc"),
        ("container.mount.dest[/proc*]", "/host/proc"),
        ("container.mount.dest[/var/*]", "/etc/hosts"),
        ("container.mount.dest[/var/run/docker.sock]", None),
        ("container.mount.source[/host/*]", "/etc"),
        ("container.mount.mode[1]", ""),
        ("container.mount.rdwr[/etc]", "false"),
        ("container.mount.propagation[0]", "private"),
        ("k8s.ns.name", "shop"),
        ("k8s.pod.name", "cart-0"),
        ("k8s.pod.uid", "u-1"),
        ("k8s.pod.label[app]", "cart"),
        ("k8s.pod.label[none]", None),
        ("k8s.pod.labels", "app:cart, flag, tier:web"),
        ("container.cni.json", None),
        ("proc.name", None),
    ],
)  # fmt: skip
def test_fields(key: str, value: object) -> None:
    """Each field of a container that rules ask has the text, number or truth that Falco's has."""
    assert container_field(FACTS, key, time_ns=1_234) == value


def test_fields_outside_containers() -> None:
    """Outside containers the id and the name are host, and nothing else is there."""
    keys = ("container.id", "container.name", "container.image.repository", "container.privileged",
            "container.mounts", "container.mount.dest[/]", "k8s.ns.name", "container.duration", "container.type")  # fmt: skip
    assert [container_field(None, key) for key in keys] == ["host", "host", *[None] * 7]


@pytest.mark.parametrize("name", ["container.name", "container.type", "container.image", "container.image.repository",
    "container.image.tag", "container.image.digest", "container.privileged", "container.mounts", "container.start_ts",
    "container.duration", "container.mount.dest[0]", "k8s.ns.name", "k8s.pod.name", "k8s.pod.uid", "k8s.pod.labels",
    "k8s.pod.label[app]"])  # fmt: skip
def test_fields_that_are_not_known(name: str) -> None:
    """What is not known of a container is missing; it is neither empty nor false."""
    assert container_field(ContainerFacts(Container(A)), name) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["annotations", "mounts", "process", "capabilities", "bounding", "linux", "options", "source", "type",
                 "destination", "Config", "Image", "MountPoints", "Source", "Destination", "Propagation", "Relabel",
                 *CRIO_IMAGE]
            ), inner, max_size=6,
        )
    ),
    max_leaves=24,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["mounts", "process", "linux", "Config", "MountPoints", "Image"]), _JSON),
    st.dictionaries(st.sampled_from([*CRIO_IMAGE, "io.kubernetes.cri.image-name"]), _JSON),
    st.sampled_from(
        [(BY_CONTAINERD, task(), CONTAINERD), (BY_CRIO, crio(), CRIO), (f"/docker/{A}", docker_file(), {})]
    ),
)
def test_any_file(
    tmp_path_factory: pytest.TempPathFactory,
    config: dict[str, Any],
    annotations: dict[str, Any],
    where: tuple[str, str, dict[str, str]],
) -> None:
    """Whatever stands in a runtime's file, a container is known by its names, and fields have values of their types."""
    root = tmp_path_factory.mktemp("root")
    put(root, where[1], {**config, "annotations": {**annotations, **where[2]}})
    facts = facts_of(root, where[0])
    assert all(isinstance(value, str) for value in image_of(facts))
    assert facts.privileged in (None, True, False)
    assert isinstance(container_field(facts, "container.mounts"), str | None)
    hash(facts.mounts)
