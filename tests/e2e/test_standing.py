"""Standing runs on a cluster: on all nodes, also on those that come later, whatever becomes of their agents."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.e2e.conftest import OWN_CLUSTER, Namespace, gadget, kubectl, nodes, tell_cluster
from tests.e2e.test_stream import EXECS, LOOP, agent_of

pytestmark = pytest.mark.usefixtures("deployed")


@pytest.fixture(autouse=True)
def nothing_stands() -> Iterator[None]:
    yield
    gadget("delete", "execs")


def runs() -> dict[str, dict[str, Any]]:
    """What `runs` says, by node."""
    lines = gadget("runs", "-o", "json").stdout.splitlines()
    return {row["node"]: row for row in map(json.loads, lines) if row["name"] == "execs"}


def seen(*args: str) -> tuple[Counter[str], str]:
    """How often /bin/true was started on each node, by what was kept, and what was said of it."""
    done = gadget("attach", "execs", "-o", "json", *args)
    rows = map(json.loads, done.stdout.splitlines())
    return Counter(row["node"] for row in rows if row["args"] == ["/bin/true"]), done.stderr


def test_on_every_node(make_namespace: Callable[[str], Namespace]) -> None:
    """A run that I let stand sees every program of my namespace on all nodes, also when an agent is replaced; the gap
    is told.
    """
    shop = make_namespace("stands")
    pods = {node: shop.pod(f"cart-{index}", node) for index, node in enumerate(nodes())}
    done = gadget("execsnoop", "-n", "stands", "--detach", "--name", "execs")
    assert done.returncode == 0 and f"execs runs on {len(pods)} nodes" in done.stdout, done.stderr
    for pod in pods.values():
        shop.run(pod, "sh", "-c", LOOP)
    wait_until(lambda: seen()[0] == dict.fromkeys(pods, EXECS), "all of it")
    victim, *_ = pods
    old = agent_of(victim)
    kubectl("delete", "pod", "--namespace=gadget", "--wait=false", old)
    wait_until(lambda: victim in runs() and not runs()[victim]["problem"] and agent_of(victim) != old, "its return", 90)

    def again() -> bool:
        shop.run(pods[victim], "/bin/true")
        return seen()[0][victim] > EXECS

    wait_until(again, "events after it", 60)
    counts, said = seen()
    assert counts == {**dict.fromkeys(pods, EXECS), victim: counts[victim]}
    assert re.search(rf"^incomplete: {victim}: not seen from \S+ to \S+", said, re.M)
    assert "; nothing lost of what was watched" in said
    done = gadget("delete", "execs")
    assert done.stdout == f"execs ended on {len(pods)} nodes; what it kept is gone\n", done.stderr
    assert "execs.toml" not in kubectl("get", "configmap", "gadget-runs", "--namespace=gadget", "--output=yaml")


def test_new_node(make_namespace: Callable[[str], Namespace]) -> None:
    """A run that my repository defines is on a node from the first moment of its agent on, though nobody told that one."""
    shop = make_namespace("later")
    node = nodes()[-1]
    pod = shop.pod("cart-0", node)
    defined = gadget("execsnoop", "-n", "later", "--detach", "--name", "execs", "--print-only").stdout
    kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", input=defined)
    try:
        old = agent_of(node)
        kubectl("delete", "pod", "--namespace=gadget", "--wait=false", old)
        wait_until(lambda: node in runs() and not runs()[node]["problem"] and runs()[node]["kept"], "the run", 90)
        shop.run(pod, "sh", "-c", LOOP)
        wait_until(lambda: seen()[0][node] == EXECS, "all of it")
    finally:
        gadget("delete", "execs")


@pytest.mark.skipif(not OWN_CLUSTER, reason="only our own cluster may get a node more")
def test_node_joins(make_namespace: Callable[[str], Namespace]) -> None:
    """A node that joins my cluster while a run stands has the run too, with counts as exact as those of the others. When it
    breaks, the others go on.
    """
    shop, before = make_namespace("joins"), nodes()
    done = gadget("execsnoop", "-n", "joins", "--detach", "--name", "execs")
    assert done.returncode == 0 and set(runs()) == set(before), done.stderr
    tell_cluster(b">")
    try:
        wait_until(lambda: len(runs()) > len(before) and not any(row["problem"] for row in runs().values()), "it", 240)
        (new,) = set(nodes()) - set(before)
        pods = {node: shop.pod(f"cart-{index}", node) for index, node in enumerate(nodes())}
        for pod in pods.values():
            shop.run(pod, "sh", "-c", LOOP)
        wait_until(lambda: seen()[0] == dict.fromkeys(pods, EXECS), "all of it", 60)
        assert runs()[new]["kept"] >= EXECS
    finally:
        tell_cluster(b"<")
        wait_until(lambda: nodes() == before and set(runs()) == set(before), "its end", 120)
    assert seen()[0] == dict.fromkeys(before, EXECS)
