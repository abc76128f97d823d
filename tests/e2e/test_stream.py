from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import pytest

from tests.e2e.conftest import Namespace, Stream, gadget, kubectl, nodes, wait_for_nodes

EXECS = 101  # a prime: no other count comes out as a multiple of it
LOOP = f"i=0; while [ $i -lt {EXECS} ]; do /bin/true; i=$((i+1)); done"

pytestmark = pytest.mark.usefixtures("deployed")


def test_exact_counts_from_every_node(
    make_namespace: Callable[[str], Namespace], start_stream: Callable[..., Stream]
) -> None:
    """Of the pods of my namespace I see every program that starts, on all nodes, and of others none."""
    shop, other = make_namespace("shop"), make_namespace("other")
    pods = {node: (shop, shop.pod(f"cart-{index}", node)) for index, node in enumerate(nodes())}
    other.pod("noise", nodes()[0])
    stream = start_stream("execsnoop", "--namespace", "shop")
    wait_for_nodes(stream, pods)
    for namespace, pod in pods.values():
        namespace.run(pod, "sh", "-c", LOOP)
        other.run("noise", "sh", "-c", LOOP)
    events, said = stream.finish()
    counts = Counter((event["node"], event["pod"]) for event in events if event["args"] == ["/bin/true"])
    assert counts == {(node, pod): EXECS for node, (_, pod) in pods.items()}
    assert {event["namespace"] for event in events} == {"shop"}
    assert f"from {len(pods)} nodes" in said and "nothing lost" in said


def test_one_node(make_namespace: Callable[[str], Namespace], start_stream: Callable[..., Stream]) -> None:
    """--node shows me that node alone, and a node that does not exist is a mistake that names those that do."""
    shop = make_namespace("one-node")
    pods = {node: (shop, shop.pod(f"cart-{index}", node)) for index, node in enumerate(nodes())}
    node = next(reversed(pods))
    stream = start_stream("execsnoop", "--namespace", "one-node", "--node", node)
    wait_for_nodes(stream, {node: pods[node]})
    for namespace, pod in pods.values():
        namespace.run(pod, "/bin/true")
    events, said = stream.finish()
    assert {event["node"] for event in events} == {node} and "from 1 node," in said
    wrong = gadget("execsnoop", "--node", "nowhere")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "nowhere" in wrong.stderr and all(name in wrong.stderr for name in pods)


def test_namespace_of_the_context(
    make_namespace: Callable[[str], Namespace], start_stream: Callable[..., Stream], tmp_path, monkeypatch
) -> None:
    """Without -n a command is about the namespace of my context, as kubectl has it."""
    shop, other = make_namespace("mine"), make_namespace("theirs")
    node = nodes()[0]
    shop.pod("cart", node), other.pod("noise", node)
    config = tmp_path / "config"
    config.write_text(kubectl("config", "view", "--raw", "--flatten"))
    monkeypatch.setenv("KUBECONFIG", str(config))
    kubectl("config", "set-context", "--current", "--namespace=mine")
    stream = start_stream("execsnoop")
    wait_for_nodes(stream, {node: (shop, "cart")})
    other.run("noise", "/bin/true")
    shop.run("cart", "/bin/true")
    events, _ = stream.finish()
    assert {event["namespace"] for event in events} == {"mine"}


def test_status_and_version() -> None:
    """`status` and `version` show each node's agent, and that it records."""
    rows = [json.loads(line) for line in gadget("status", "-o", "json").stdout.splitlines()]
    assert [(row["node"], row["state"]) for row in rows] == [(node, "ready") for node in sorted(nodes())]
    assert all(row["containers"] > 0 and " MiB" in row["traceloop"] for row in rows)
    shown = gadget("version").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["client", *sorted(nodes())]
