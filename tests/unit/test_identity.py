"""Which container a cgroup path lies in, for the runtimes, drivers and hosts that people have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.containers.identity import parse_path

A, B = "a1" * 32, "b2" * 32
UID = "0f4c1b3e-8a57-4b6b-9d0e-3c5d7e9f1a2b"
_UID = UID.replace("-", "_")
STATIC = "5a6b7c8d9e0f1a2b3c4d5e6f70819203"
KUBEPODS = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{_UID}.slice"
KIND = f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{_UID}.slice"
USER = "/user.slice/user-1000.slice/user@1000.service"

#: path, id, runtime, pod UID, how many components belong to the container's own path
PATHS = [
    (f"/kubepods/besteffort/pod{UID}/{A}", A, "", UID, 4),
    (f"/kubepods/burstable/pod{UID}/{A}", A, "", UID, 4),
    (f"/kubepods/pod{UID}/{A}", A, "", UID, 3),
    (f"/kubepods/pod{STATIC}/{A}", A, "", STATIC, 3),
    (f"{KUBEPODS}/cri-containerd-{A}.scope", A, "containerd", UID, 4),
    (f"/kubepods.slice/kubepods-pod{_UID}.slice/cri-containerd-{A}.scope", A, "containerd", UID, 3),
    (f"/kubepods.slice/kubepods-pod{STATIC}.slice/cri-containerd-{A}.scope", A, "containerd", STATIC, 3),
    (f"{KUBEPODS}/cri-containerd-{A}.scope/init.scope", A, "containerd", UID, 4),
    (f"{KUBEPODS}/cri-containerd-{A}.scope/system.slice/nginx.service", A, "containerd", UID, 4),
    (f"{KUBEPODS}/cri-containerd-{A}.scope/docker/{B}", A, "containerd", UID, 4),
    (
        f"/system.slice/containerd.service/kubepods-burstable-pod{_UID}.slice:cri-containerd:{A}",
        A,
        "containerd",
        UID,
        3,
    ),
    (f"{KUBEPODS}/crio-{A}.scope", A, "cri-o", UID, 4),
    (f"{KUBEPODS}/crio-{A}.scope/container", A, "cri-o", UID, 4),
    (f"/kubepods/besteffort/pod{UID}/crio-{A}", A, "cri-o", UID, 4),
    (f"{KUBEPODS}/docker-{A}.scope", A, "docker", UID, 4),
    (f"/docker/{A}", A, "docker", "", 2),
    (f"/docker/{A}/docker/{B}", A, "docker", "", 2),
    (f"/system.slice/docker-{A}.scope", A, "docker", "", 2),
    (f"/docker.slice/docker-{A}.scope", A, "docker", "", 2),
    (f"{USER}/user.slice/docker-{A}.scope", A, "docker", "", 5),
    (f"/machine.slice/libpod-{A}.scope", A, "podman", "", 2),
    (f"/machine.slice/libpod-{A}.scope/container", A, "podman", "", 2),
    (f"/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope", A, "podman", "", 3),
    (f"/libpod_parent/libpod-{A}", A, "podman", "", 2),
    (f"{USER}/user.slice/libpod-{A}.scope/container", A, "podman", "", 5),
    (f"/docker/{B}/kubelet/kubepods/besteffort/pod{UID}/{A}", A, "", UID, 7),
    (f"/docker/{B}{KIND}/cri-containerd-{A}.scope", A, "containerd", UID, 6),
    (f"/system.slice/docker-{B}.scope{KIND}/cri-containerd-{A}.scope", A, "containerd", UID, 6),
    (f"/kubelet/kubepods/pod{UID}/{A}", A, "", UID, 4),
    (f"{KIND}/cri-containerd-{A}.scope", A, "containerd", UID, 4),
    (f"/machine.slice/libpod-{B}.scope/container{KIND}/cri-containerd-{A}.scope", A, "containerd", UID, 7),
    (f"/node2/kubepods/besteffort/pod{UID}/{A}", A, "", UID, 5),
    (f"/kubepods/pod{UID}/{A}/kubepods/pod{STATIC}/{B}", A, "", UID, 3),
    (f"/k8s.io/{A}", A, "", "", 2),
    (f"/default/{A}", A, "", "", 2),
    (f"/system.slice/nerdctl-{A}.scope", A, "", "", 2),
]
HOST = [
    "/",
    "/init.scope",
    "/system.slice/ssh.service",
    f"{USER}/app.slice/app-vim.scope",
    "/kubepods",
    "/kubepods/besteffort",
    f"/kubepods/besteffort/pod{UID}",
    KUBEPODS,
    f"{KUBEPODS}/crio-conmon-{A}.scope",
    f"/machine.slice/libpod-conmon-{A}.scope",
    f"/machine.slice/libpod-conmon-{A}.scope/supervisor",
    "/docker",
    "/system.slice/docker.service",
    "/system.slice/containerd.service",
    f"/docker/{A[:12]}",
    "/machine.slice/machine-qemu.scope",
]


@pytest.mark.parametrize(
    ("path", "node"),
    [
        (f"/kubepods/besteffort/pod{UID}/{A}", "/"),
        (f"/kubepods/pod{UID}/{A}", "/"),
        (f"{KUBEPODS}/cri-containerd-{A}.scope", "/"),
        (f"{KIND}/cri-containerd-{A}.scope", "/kubelet.slice"),
        (f"/docker/{B}{KIND}/cri-containerd-{A}.scope", f"/docker/{B}/kubelet.slice"),
        (f"/node2/kubepods/burstable/pod{UID}/{A}", "/node2"),
        (f"/docker/{A}", ""),
    ],
)
def test_node(path: str, node: str) -> None:
    """Of nodes that share a kernel, each one's pods are told apart from the other's."""
    place = parse_path(path)
    assert place and place.node == node


@pytest.mark.parametrize(("path", "container_id", "runtime", "pod_uid", "depth"), PATHS)
def test_path(path: str, container_id: str, runtime: str, pod_uid: str, depth: int) -> None:
    """A process is shown as its own container's, whatever runtime, driver and nesting made its cgroup."""
    place = parse_path(path)
    assert place is not None
    assert (place.id, place.runtime, place.pod_uid) == (container_id, runtime, pod_uid)
    assert place.path == "/" + "/".join(path.strip("/").split("/")[:depth])


@pytest.mark.parametrize("path", HOST)
def test_host_path(path: str) -> None:
    """A process of the host, or a runtime's helper, is no container's."""
    assert parse_path(path) is None


_PARTS = st.sampled_from(
    ["kubepods", f"pod{UID}", A, f"crio-{A}.scope", "docker", "..", "", "é\n\x1b", ":", f"x:cri-containerd:{B}"]
)


@given(st.lists(_PARTS | st.text(max_size=8), max_size=8).map("/".join))
def test_any_path(path: str) -> None:
    """Whatever a cgroup is called, looking at it stops nothing, and an id found is really in its path."""
    place = parse_path(path)
    assert place is None or place.id in path
