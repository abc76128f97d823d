"""What an agent and the command line find on disk: files of runtimes, of an earlier agent, flows, the catalogue."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import orjson

from agent.containers import identity
from agent.containers.runtimes import Runtimes
from agent.flows import service
from agent.flows.pods import NodePods
from gadget import catalog
from gadget.errors import GadgetError
from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.flows import write_flows
from kubectl_gadget.advise.observation import read_flows
from kubectl_gadget.advise.render import render_yaml
from tests.fuzz.files import CONTAINER_ID, FOLDER, file_of
from tests.unit.advise.build import Build


def _named(cgroup: str, path: str, data: bytes) -> None:
    place = identity.parse_path(cgroup)
    assert place
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        file = Path(folder) / path
        file.parent.mkdir(parents=True)
        file.write_bytes(data)
        assert isinstance(Runtimes(Path(folder)).identify(place).name, str)


def docker(data: bytes) -> None:
    """Docker's config.v2.json."""
    _named(f"/docker/{CONTAINER_ID}", f"var/lib/docker/containers/{CONTAINER_ID}/config.v2.json", data)


def podman(data: bytes) -> None:
    """Podman's containers.json."""
    path = "var/lib/containers/storage/overlay-containers/containers.json"
    _named(f"/machine.slice/libpod-{CONTAINER_ID}.scope", path, data)


def pods(data: bytes) -> None:
    """The pods that an agent before this one knew."""
    with file_of(data) as path:
        known = NodePods(path)
        for pod in known.pods.values():
            service.flow_pod(pod)
        known.came(9, identity.Container(CONTAINER_ID, "containerd", "shop", "cart-0", "app", pod_uid="u"))
        known.gone(9, False)
        known.count_evicted(1)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        path = Path(folder) / "pods.json"
        path.write_bytes(data)
        known = NodePods(path)
        known.begin()
        known.save()
        assert not known.problem
        assert NodePods(path).pods == known.pods


def flows(data: bytes) -> None:
    """A flows file, and the advice from it."""
    with file_of(data) as path, contextlib.suppress(GadgetError):
        render_yaml(advise(read_flows(path)))


def catalogue(data: bytes) -> None:
    """The catalogue of an installation."""
    with contextlib.suppress(GadgetError):
        [*catalog.parse(data).seen().values()]


def some_flows() -> bytes:
    """A flows file with a pod that is there, one that is gone, and a node."""
    build = Build()
    build.node("node-a")
    web = build.pod("shop", "web", "node-a", {"app": "web"}, ports=[{"name": "http", "containerPort": 80}])
    old = build.gone("shop", "old", "node-a", {"app": "old"}, "ReplicaSet/old-1", "10.244.1.99", 0, 100)
    build.talk(web, old, 8080)
    build.node_addresses("node-a", "192.168.0.1")
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        write_flows(path := Path(folder) / "flows.jsonl", build.context, build.flows)
        return path.read_bytes()


def some_pods() -> bytes:
    """What an agent has saved."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        saved = NodePods(path := Path(folder) / "pods.json")
        saved.came(9, identity.Container(CONTAINER_ID, "containerd", "shop", "cart-0", "app", pod_uid="u"))
        saved.pods["u"].labels, saved.pods["u"].addresses = {"app": "cart"}, ["10.0.0.1"]
        saved.save()
        return path.read_bytes()


def some_catalogue() -> bytes:
    """Two gadgets of the real one: all would hide what is damaged in one."""
    real = orjson.loads(catalog.CATALOGUE.read_bytes())
    few = {name: real["gadgets"][name] for name in ("execsnoop", "opensnoop")}
    return orjson.dumps({**real, "gadgets": few})
