from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.conftest import Cli, run_cli, wait_until

IMAGE = os.environ.get("E2E_IMAGE", "localhost/kubectl-gadget:e2e")
BUSYBOX = os.environ.get("E2E_BUSYBOX", "localhost/busybox:e2e")
BREAKS = os.environ.get("E2E_BREAKS", "localhost/breaks:e2e")

#: The cluster of this run alone, whose nodes are this machine; else somebody else's, which is left as it was.
OWN_CLUSTER = "E2E_CONTROL" in os.environ


def tell_cluster(*what: bytes) -> None:
    """Have our own cluster's API server ended (`-`) or started again (`+`), a node join (`>`) or break (`<`), in this
    order; returns at once.
    """
    os.write(int(os.environ["E2E_CONTROL"]), b"".join(what))


def kubectl(*arguments: str, **options: Any) -> str:
    """What kubectl prints."""
    done = subprocess.run(["kubectl", *arguments], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def objects(*arguments: str) -> list[dict[str, Any]]:
    """What `kubectl get` finds."""
    found: list[dict[str, Any]] = json.loads(kubectl("get", "--output=json", *arguments))["items"]
    return found


def nodes() -> list[str]:
    """The names of the cluster's nodes."""
    return [node["metadata"]["name"] for node in objects("nodes")]


def gadget(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run kubectl gadget to its end."""
    return run_cli(*arguments, timeout=300)  # a node may take a minute to end pods after its API server was away


class Namespace:
    """A namespace with pods that do what the test tells them."""

    def __init__(self, name: str) -> None:
        """Make it."""
        self.name = name
        kubectl("create", "namespace", name)
        kubectl("wait", "--for=create", f"--namespace={name}", "serviceaccount/default", "--timeout=20s")

    def pod(self, name: str, node: str, *command: str, image: str = BUSYBOX, **more: Any) -> str:
        """Run a pod on a node, and wait until it is ready. It waits for work unless it has a command. more is of its
        container.
        """
        container = {"name": "app", "image": image, "command": command or ["/bin/sleep", "3600"], **more}
        spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": self.name}, "spec": spec}
        kubectl("apply", "--filename=-", input=json.dumps(pod))
        kubectl("wait", "--for=condition=Ready", f"--namespace={self.name}", f"pod/{name}", "--timeout=60s")
        return name

    def address(self, pod: str) -> str:
        """The address of a pod."""
        return kubectl("get", "pod", pod, f"--namespace={self.name}", "--output=jsonpath={.status.podIP}")

    def run(self, pod: str, *command: str) -> str:
        """Run a command in a pod."""
        return kubectl("exec", f"--namespace={self.name}", pod, "--", *command)


@pytest.fixture
def make_namespace() -> Iterator[Callable[[str], Namespace]]:
    """Makes namespaces that are gone after the test."""
    made: list[str] = []

    def make(name: str) -> Namespace:
        space = Namespace(name)
        made.append(name)  # only now: one that was there before is not ours to delete
        return space

    yield make
    for name in made:
        kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="session")
def deployed() -> Iterator[None]:
    """Agents on all nodes."""
    assert OWN_CLUSTER or not objects("daemonsets", "--namespace=gadget"), (
        "this cluster has agents: undeploy them first"
    )
    done = gadget("deploy", "--image", IMAGE, "--privileged")
    assert done.returncode == 0, done.stdout + done.stderr
    yield
    gadget("undeploy")


class Stream:
    """A running kubectl gadget whose events are read as they come."""

    def __init__(self, cli: Cli) -> None:
        """Read the events of cli, which prints JSON."""
        self._cli = cli
        self._read = b""
        assert cli.process.stdout
        os.set_blocking(cli.process.stdout.fileno(), False)

    def events(self) -> list[dict[str, Any]]:
        """All events so far."""
        assert self._cli.process.stdout
        assert self._cli.process.poll() is None, self._cli.process.communicate()
        with suppress(BlockingIOError):
            while chunk := os.read(self._cli.process.stdout.fileno(), 1 << 16):
                self._read += chunk
        return [json.loads(line) for line in self._read.splitlines(keepends=True) if line.endswith(b"\n")]

    def finish(self) -> tuple[list[dict[str, Any]], str]:
        """Press Ctrl-C: all events, and what was said on stderr."""
        assert self._cli.process.stdout
        os.set_blocking(self._cli.process.stdout.fileno(), True)
        out, err = self._cli.finish()
        return [json.loads(line) for line in (self._read + out.encode()).splitlines()], err


@pytest.fixture
def start_stream(start_cli: Callable[..., Cli]) -> Callable[..., Stream]:
    """Starts streams."""
    return lambda *arguments: Stream(start_cli(*arguments, "--output=json"))


def wait_for_nodes(stream: Stream, pods: dict[str, tuple[Namespace, str]], command: str = "echo are you there") -> None:
    """Wait until a stream shows what happens on each node: what command does in the pod there, of a namespace."""

    def all_seen() -> bool:
        for namespace, pod in pods.values():
            namespace.run(pod, "sh", "-c", command)
        return {event["node"] for event in stream.events()} >= set(pods)

    try:
        wait_until(all_seen, "an event from each node")
    except AssertionError as error:
        logs = kubectl("logs", "--namespace=gadget", "--selector=app.kubernetes.io/name=kubectl-gadget", "--tail=20")
        raise AssertionError(f"{error}\n{stream.finish()}\n{gadget('containers', '-A').stdout}\n{logs}") from None
