"""Every gadget by namespace, pod, label and node: what was chosen is shown exactly, and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.conftest import Namespace, Stream, gadget, kubectl, nodes, wait_for_nodes

pytestmark = pytest.mark.usefixtures("deployed")


@dataclass(frozen=True)
class Work:
    """What a pod does so many times, and which events of a gadget tell of it. ready is another one to wait by."""

    gadget: str
    times: int
    command: str
    ready: str
    is_one: Callable[[dict[str, Any]], bool]


GET = "busybox wget -q -O /dev/null http://ADDRESS"
WORK = [
    Work("execsnoop", 101, "/bin/true", "/bin/echo ready", lambda event: event["args"] == ["/bin/true"]),
    Work("opensnoop", 53, ": < /chosen", ": < /ready", lambda event: event["path"] == "/chosen"),
    Work("tcpconnect", 31, f"{GET}:81/", f"{GET}:82/", lambda event: event["dst"]["port"] == 81),
]


@dataclass(frozen=True)
class Crowd:
    """Pods cart and noise on each node, by label and by name; and another cart in a namespace that nobody asks for."""

    shop: Namespace
    other: Namespace
    places: dict[str, str]

    def run(self, command: str) -> None:
        """Run a command in each of them."""
        for pod in self.places:
            self.shop.run(pod, "sh", "-c", command)
        self.other.run("cart-0", "sh", "-c", command)

    def choices(self) -> dict[tuple[str, ...], set[str]]:
        """Ways to choose, and the pods that each stands for."""
        last = nodes()[-1]
        return {
            (): set(self.places),
            ("-p", "cart-0,noise-1"): {"cart-0", "noise-1"} & set(self.places),
            ("-l", "app=cart"): {pod for pod in self.places if pod.startswith("cart")},
            ("--node", last): {pod for pod, node in self.places.items() if node == last},
        }


@pytest.fixture(scope="module")
def crowd(deployed: None) -> Iterator[Crowd]:
    """The pods, for all tests here."""
    shop, other = Namespace("chosen"), Namespace("not-chosen")
    try:
        places = {f"{app}-{at}": node for at, node in enumerate(nodes()) for app in ("cart", "noise")}
        for pod, node in places.items():
            shop.pod(pod, node)
            kubectl("label", "pod", pod, "--namespace=chosen", f"app={pod.partition('-')[0]}")
        other.pod("cart-0", nodes()[0])
        kubectl("label", "pod", "cart-0", "--namespace=not-chosen", "app=cart")
        yield Crowd(shop, other, places)
    finally:
        kubectl("delete", "namespace", "chosen", "not-chosen", "--wait=false")


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.gadget)
def test_chosen(crowd: Crowd, start_stream: Callable[..., Stream], work: Work) -> None:
    """By namespace, pod, label and node I see each event of the pods I chose, on all nodes, and none of others."""
    address = crowd.shop.address("cart-0")
    streams = {options: start_stream(work.gadget, "-n", "chosen", *options) for options in crowd.choices()}
    for options, stream in streams.items():
        pods = {crowd.places[pod]: (crowd.shop, pod) for pod in crowd.choices()[options]}
        wait_for_nodes(stream, pods, f"({work.ready.replace('ADDRESS', address)}) 2>/dev/null; true")
    one = work.command.replace("ADDRESS", address)
    crowd.run(f"i=0; while [ $i -lt {work.times} ]; do ({one}) 2>/dev/null; i=$((i+1)); done; true")
    for options, stream in streams.items():
        events, said = stream.finish()
        counts = Counter((event["namespace"], event["pod"], event["node"]) for event in events if work.is_one(event))
        wanted = {("chosen", pod, crowd.places[pod]): work.times for pod in crowd.choices()[options]}
        assert (options, counts) == (options, wanted), said
        assert "nothing lost" in said


def test_recordings(crowd: Crowd) -> None:
    """Traceloop has each call of each pod, and lists those of the pods that I chose alone."""
    crowd.run("i=0; while [ $i -lt 47 ]; do (: < /recorded) 2>/dev/null; i=$((i+1)); done; true")
    for options, pods in crowd.choices().items():
        listed = gadget("traceloop", "list", "-n", "chosen", *options, "-o", "json")
        found = Counter(json.loads(line)["pod"] for line in listed.stdout.splitlines())
        assert (options, found) == (options, dict.fromkeys(pods, 1)), listed.stderr
    for pod in crowd.places:
        shown = gadget("traceloop", "show", pod, "-n", "chosen", "--syscalls", "open*", "-o", "json")
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.count('"/recorded"') == 47
