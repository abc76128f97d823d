"""The names of containers, from what their runtimes wrote: right for each runtime, and nobody else's whatever is there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.containers.identity import Container, parse_path
from agent.containers.runtimes import Runtimes
from agent.containers.shims import Shims
from agent.containers.users import MOST_BYTES
from gadget.errors import UsageError
from gadget.runtimes import STATES, State, parse_state
from tests.unit.test_identity import KUBEPODS, UID, USER, A, B

TASKS = "io.containerd.runtime.v2.task"
STORAGE = "containers/storage/overlay-containers"
#: a pod's container by each runtime: with cgroups by systemd, and by the runtime itself
BY_CONTAINERD = f"{KUBEPODS}/cri-containerd-{A}.scope"
BY_CRIO = f"{KUBEPODS}/crio-{A}.scope"
BY_DOCKER = f"{KUBEPODS}/docker-{A}.scope"
UNNAMED = f"/kubepods/besteffort/pod{UID}/{A}"

CONTAINERD = {
    "io.kubernetes.cri.container-type": "container",
    "io.kubernetes.cri.container-name": "cart",
    "io.kubernetes.cri.sandbox-name": "cart-0",
    "io.kubernetes.cri.sandbox-namespace": "shop",
}
KUBELET = {
    "io.kubernetes.container.name": "cart",
    "io.kubernetes.pod.name": "cart-0",
    "io.kubernetes.pod.namespace": "shop",
}
CRIO = {"io.kubernetes.cri-o.ContainerType": "container", **KUBELET}
DOCKER = {"io.kubernetes.docker.type": "container", **KUBELET}
#: what an attacker writes into a pod's annotations, a label of an image, or a checkpoint
FORGED = {
    "io.kubernetes.cri.container-type": "sandbox",
    "io.kubernetes.cri.container-name": "etcd",
    "io.kubernetes.cri.sandbox-name": "etcd-node-a",
    "io.kubernetes.cri.sandbox-namespace": "kube-system",
    "io.kubernetes.cri-o.ContainerType": "sandbox",
    "io.kubernetes.cri-o.KubeName": "etcd-node-a",
    "nerdctl/name": "etcd",
}
OURS = ("shop", "cart-0", "cart")


def put(root: Path, where: str, content: object) -> Path:
    path = root / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def task(state: str = "run/containerd", namespace: str = "k8s.io") -> str:
    return f"{state}/{TASKS}/{namespace}/{A}/config.json"


def crio(state: str = "run") -> str:
    return f"{state}/{STORAGE}/{A}/userdata/config.json"


def docker_file(root: str = "var/lib/docker") -> str:
    return f"{root}/containers/{A}/config.v2.json"


def identify(root: Path, path: str, states: tuple[State, ...] = ()) -> Container:
    place = parse_path(path)
    assert place
    return Runtimes(root, states).identify(place)


def names(found: Container) -> tuple[str, str, str]:
    return found.namespace, found.pod, found.name


@pytest.mark.parametrize(
    ("path", "file", "content", "runtime"),
    [
        (BY_CONTAINERD, task(), CONTAINERD, "containerd"),
        (UNNAMED, task(), CONTAINERD, "containerd"),
        (UNNAMED, task("run/k3s/containerd"), CONTAINERD, "containerd"),
        (BY_CONTAINERD, task("run/k0s/containerd"), CONTAINERD, "containerd"),
        (BY_CONTAINERD, task("var/snap/microk8s/common/run/containerd"), CONTAINERD, "containerd"),
        (BY_CRIO, crio(), CRIO, "cri-o"),
        (f"/kubepods/besteffort/pod{UID}/crio-{A}", crio("var/lib"), CRIO, "cri-o"),
    ],
)
def test_pods(tmp_path: Path, path: str, file: str, content: object, runtime: str) -> None:
    """A container has its namespace, pod and name from what its runtime wrote, without asking anyone."""
    put(tmp_path, file, {"annotations": content})
    found = identify(tmp_path, path)
    assert (found.runtime, names(found), found.sandbox, found.pod_uid) == (runtime, OURS, False, UID)


@pytest.mark.parametrize("path", [BY_DOCKER, UNNAMED])
def test_pods_by_docker(tmp_path: Path, path: str) -> None:
    """Pods by docker and cri-dockerd, as minikube has them, have their names too, and their pause containers are known."""
    put(tmp_path, docker_file(), {"Name": "/k8s_cart_cart-0_shop_0", "Config": {"Labels": DOCKER}})
    found = identify(tmp_path, path)
    assert (found.runtime, names(found), found.sandbox) == ("docker", OURS, False)
    pause = {**DOCKER, "io.kubernetes.docker.type": "podsandbox", "io.kubernetes.container.name": "POD"}
    put(tmp_path, docker_file(), {"Name": "/k8s_POD_cart-0_shop_0", "Config": {"Labels": pause}})
    found = identify(tmp_path, path)
    assert (names(found), found.sandbox) == (("shop", "cart-0", ""), True)


def test_plain_containers(tmp_path: Path) -> None:
    """Containers of docker, podman and nerdctl have the names that their users gave them."""
    put(tmp_path, docker_file(), {"Name": "/web"})
    put(tmp_path, f"var/lib/{STORAGE}/containers.json", [{"id": B, "names": ["db"]}])
    assert identify(tmp_path, f"/docker/{A}") == Container(A, "docker", name="web")
    assert identify(tmp_path, f"/machine.slice/libpod-{B}.scope") == Container(B, "podman", name="db")
    put(tmp_path / "nerdctl", task(namespace="default"), {"annotations": {"nerdctl/name": "web"}})
    assert identify(tmp_path / "nerdctl", f"/default/{A}") == Container(A, name="web")


@pytest.mark.parametrize(
    ("path", "file", "own"),
    [(BY_CONTAINERD, task(), CONTAINERD), (UNNAMED, task(), CONTAINERD), (BY_CRIO, crio(), CRIO)],
)
def test_pauses(tmp_path: Path, path: str, file: str, own: dict[str, str]) -> None:
    """A pod's pause container is known as such, also if the pod's own annotations say that it is none."""
    kind = (
        {"io.kubernetes.cri.container-type": "sandbox"}
        if own is CONTAINERD
        else {"io.kubernetes.container.name": "POD"}
    )
    put(tmp_path, file, {"annotations": {**own, **kind}})
    found = identify(tmp_path, path)
    assert found.sandbox and (found.namespace, found.pod) == ("shop", "cart-0")


@pytest.mark.parametrize("long", [False, True], ids=["posing", "long"])
def test_annotations_of_a_pod(tmp_path: Path, long: bool) -> None:
    """With CRI-O no pod is taken for another, is left out of recordings or is invisible by what it says of itself."""
    forged = {key: "x" * 9000 if long else value for key, value in FORGED.items()}
    put(tmp_path, crio(), {"annotations": {**KUBELET, **forged}})
    found = identify(tmp_path, BY_CRIO)
    assert (found.runtime, names(found), found.sandbox) == ("cri-o", OURS, False)


@pytest.mark.parametrize(
    ("path", "file", "content"),
    [
        # a docker container of an image with these labels, or started with such annotations, is no pod's
        (f"/docker/{A}", docker_file(), {"Name": "/web", "Config": {"Labels": {**DOCKER, **FORGED}}}),
        (f"/docker/{A}", task(namespace="moby"), {"annotations": {**CONTAINERD, **KUBELET}}),
        (BY_DOCKER, docker_file(), {"Name": "/web", "annotations": CONTAINERD, "Config": {"Labels": CONTAINERD}}),
        (f"/default/{A}", task(namespace="default"), {"annotations": {**CONTAINERD, **KUBELET}}),
        (f"/machine.slice/libpod-{A}.scope", crio(), {"annotations": {**CRIO, **CONTAINERD}}),
        (f"/libpod_parent/{A}", crio("var/lib"), {"annotations": {**CRIO, **CONTAINERD}}),
        # the other runtime's files and keys
        (BY_CONTAINERD, crio(), {"annotations": CRIO}),
        (BY_CONTAINERD, task(), {"annotations": KUBELET}),
        (BY_CRIO, task(), {"annotations": CONTAINERD}),
        (BY_CRIO, crio(), {"annotations": CONTAINERD}),
        (UNNAMED, crio(), {"annotations": CRIO}),
    ],
)
def test_keys_of_others(tmp_path: Path, path: str, file: str, content: object) -> None:
    """What one runtime means by a key counts for no other's containers, and a pod's names for no container without pod."""
    put(tmp_path, file, content)
    found = identify(tmp_path, path)
    assert (found.namespace, found.pod, found.sandbox) == ("", "", False)


@pytest.mark.parametrize("key", ["sandbox-namespace", "sandbox-name"])
@pytest.mark.parametrize(
    "value", ["x" * 254, "Kube", "a_b", "-a", "a-", "a/b", "a\n", "", "\x1b[31m", "é", 7, None, ["a"], {"a": "b"}]
)
def test_no_names(tmp_path: Path, key: str, value: object) -> None:
    """What Kubernetes would not take for a name is none: the container is of a pod that nobody knows."""
    put(tmp_path, task(), {"annotations": {**CONTAINERD, f"io.kubernetes.cri.{key}": value}})
    assert identify(tmp_path, BY_CONTAINERD) == Container(A, "containerd", pod_uid=UID)


def test_longest_names(tmp_path: Path) -> None:
    """Names as long as Kubernetes allows are shown."""
    longest = "n" * 63, ".".join(["p" * 63] * 4)[:253], "c" * 63
    keys = ("sandbox-namespace", "sandbox-name", "container-name")
    own = {f"io.kubernetes.cri.{key}": value for key, value in zip(keys, longest, strict=True)}
    put(tmp_path, task(), {"annotations": own})
    assert names(identify(tmp_path, BY_CONTAINERD)) == longest
    put(tmp_path, task(), {"annotations": {**own, "io.kubernetes.cri.container-name": "c" * 64}})
    assert names(identify(tmp_path, BY_CONTAINERD)) == (*longest[:2], "")


@pytest.mark.parametrize("name", ["x" * 254, "a b", "\x1b[31m", "é", "a\n", "../x", "", 7])
def test_no_plain_names(tmp_path: Path, name: object) -> None:
    """Nor what docker would not take, though a file says so."""
    put(tmp_path, docker_file(), {"Name": name})
    put(tmp_path, f"var/lib/{STORAGE}/containers.json", [{"id": B, "names": [name]}])
    assert identify(tmp_path, f"/docker/{A}").name == identify(tmp_path, f"/machine.slice/libpod-{B}.scope").name == ""


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"annotations": 3}', '{"annotations": {"io.kubernetes.cri.sandbox-name": 7}}', "\x00\xff"],
)
def test_garbage(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    """Garbage in a runtime's file costs the names and no more: the container is shown by its id."""
    put(tmp_path, task(), content)
    caplog.set_level("INFO")
    assert identify(tmp_path, BY_CONTAINERD) == Container(A, "containerd", pod_uid=UID)
    assert A[:12] in caplog.text


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is a folder, a link, a pipe, too long or gone costs the names and no more, and no time."""
    config = put(tmp_path, task(), "")
    config.unlink()
    config.mkdir()
    assert identify(tmp_path, BY_CONTAINERD).pod == ""
    config.rmdir()
    config.symlink_to(put(tmp_path, "elsewhere", {"annotations": CONTAINERD}))
    assert identify(tmp_path, BY_CONTAINERD).pod == ""
    config.unlink()
    os.mkfifo(config)
    assert identify(tmp_path, BY_CONTAINERD).pod == ""
    config.unlink()
    put(tmp_path, task(), json.dumps({"annotations": CONTAINERD}).ljust(MOST_BYTES + 1))
    assert identify(tmp_path, BY_CONTAINERD).pod == ""
    put(tmp_path, task(), json.dumps({"annotations": CONTAINERD}).ljust(MOST_BYTES))
    assert identify(tmp_path, BY_CONTAINERD).pod == "cart-0"


@pytest.mark.parametrize("kind", ["slice", "owner"])
def test_cgroups_of_a_user(tmp_path: Path, kind: str) -> None:
    """A user who calls a cgroup as a runtime calls that of a pod is not shown as that pod."""
    put(tmp_path, task(), {"annotations": CONTAINERD})
    if kind == "slice":
        above = USER
    else:  # a service of a user whose cgroups systemd has left to it
        above = "/system.slice/ci.service"
        cgroups = tmp_path / "sys/fs/cgroup"
        (cgroups / above[1:]).mkdir(parents=True)
        for name in ("cgroup.procs", "cgroup.subtree_control"):
            (cgroups / name).touch()
        if os.geteuid() == 0:
            os.chown(cgroups / above[1:], 1000, 1000)
    for path in (f"{above}/cri-containerd-{A}.scope", f"{above}/kubepods/pod{UID}/{A}"):
        found = identify(tmp_path, path)
        assert (names(found), found.pod_uid) == (("", "", ""), "")


def test_rootless(tmp_path: Path) -> None:
    """A user's own podman and docker containers have names, from that user's home and from nowhere else."""
    put(tmp_path, "etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    mine = put(tmp_path, f"home/ann/.local/share/{STORAGE}/containers.json", [{"id": B, "names": ["db"]}])
    put(tmp_path, docker_file("home/ann/.local/share/docker"), {"Name": "/web", "Config": {"Labels": DOCKER}})
    put(tmp_path, f"home/bob/.local/share/{STORAGE}/containers.json", [{"id": A, "names": ["bobs"]}])
    put(tmp_path, f"var/lib/{STORAGE}/containers.json", [{"id": A, "names": ["roots"]}])
    assert identify(tmp_path, f"{USER}/user.slice/libpod-{B}.scope") == Container(B, "podman", name="db")
    assert identify(tmp_path, f"{USER}/user.slice/docker-{A}.scope") == Container(A, "docker", name="web")
    assert identify(tmp_path, f"{USER}/user.slice/libpod-{A}.scope").name == ""
    mine.rename(mine.with_name("other"))
    mine.symlink_to("other")
    assert identify(tmp_path, f"{USER}/user.slice/libpod-{B}.scope").name == ""
    mine.unlink()
    os.mkfifo(mine)
    assert identify(tmp_path, f"{USER}/user.slice/libpod-{B}.scope").name == ""


def test_state_that_is_told(tmp_path: Path) -> None:
    """--runtime-state is looked at first."""
    put(tmp_path, task(), {"annotations": {**CONTAINERD, "io.kubernetes.cri.sandbox-name": "older"}})
    put(tmp_path, task("data/containerd"), {"annotations": CONTAINERD})
    assert identify(tmp_path, BY_CONTAINERD, (parse_state("/data/containerd/"),)).pod == "cart-0"
    put(tmp_path, "data/docker/containers/" + A + "/config.v2.json", {"Name": "/web"})
    assert identify(tmp_path, f"/docker/{A}", (parse_state("docker=/data/docker"),)).name == "web"


@pytest.mark.parametrize("text", ["", "run/containerd", "rkt=/run/rkt", "=/run", "docker=", "/", "/a/../b", "/a,b", "/a:b",
                                  "/a\n", "docker=x=/y"])  # fmt: skip
def test_no_state(text: str) -> None:
    """What is no folder of a runtime is refused in a line that says what is wanted."""
    with pytest.raises(UsageError, match=r"^--runtime-state \S*: want [^\n]+$"):
        parse_state(text)


def test_states_are_written_as_they_are_read() -> None:
    """What deploy hands on to agents is what it was given."""
    assert [parse_state(str(state)) for state in STATES] == list(STATES)


def shim(root: Path, number: int, folder: str, *, comm: str = "containerd-shim", uid: str = "0\t0\t0\t0",
         cgroup: str = "/system.slice/containerd.service") -> None:  # fmt: skip
    process = root / "proc" / str(number)
    put(process, "comm", f"{comm}\n")
    put(process, "status", f"Name:\t{comm}\nUid:\t{uid}\n")
    put(process, "cgroup", f"1:cpu:/\n0::{cgroup}\n")
    (process / "cwd").symlink_to(folder)


def test_state_of_a_process(tmp_path: Path) -> None:
    """A containerd that keeps its state elsewhere is found by its shims; those of others are not believed."""
    for number, (place, options) in enumerate(
        {
            "opt/containerd": {},
            "evil/comm": {"comm": "containerd-fake"},
            "evil/uid": {"uid": "1000\t0\t0\t0"},
            "evil/inside": {"cgroup": f"{BY_CONTAINERD}/x"},
            "evil/writable": {},
        }.items()
    ):
        (tmp_path / place / TASKS).mkdir(parents=True)
        shim(tmp_path, 100 + number, f"/{place}/{TASKS}/k8s.io/{B}", **options)
    (tmp_path / "evil/writable").chmod(0o777)
    shim(tmp_path, 200, f"/opt/gone/{TASKS}/k8s.io/{B}")
    shims = Shims(tmp_path / "proc", tmp_path)
    if os.geteuid() == 0:
        assert shims.states() == [State("containerd", "/opt/containerd")]
        put(tmp_path, task("opt/containerd"), {"annotations": CONTAINERD})
        place = parse_path(BY_CONTAINERD)
        assert place and Runtimes(tmp_path, proc=tmp_path / "proc").identify(place).pod == "cart-0"
    assert shims.states() == []  # it has just been looked


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["annotations", "Name", "Config", "Labels", *CONTAINERD, *CRIO]), inner, max_size=5
        )
    ),
    max_leaves=12,
)


@given(
    _JSON | st.binary(max_size=60),
    st.sampled_from([(BY_CONTAINERD, task()), (BY_CRIO, crio()), (BY_DOCKER, docker_file())]),
)
def test_any_file(tmp_path_factory: pytest.TempPathFactory, content: object, where: tuple[str, str]) -> None:
    """Whatever stands in a runtime's file, the container is shown with text for names."""
    root = tmp_path_factory.mktemp("root")
    path = put(root, where[1], "")
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    found = identify(root, where[0])
    assert all(isinstance(value, str) for value in names(found))
