from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable

import pytest

from tests.conftest import wait_until
from tests.e2e.conftest import (
    OWN_CLUSTER,
    Namespace,
    Stream,
    gadget,
    kubectl,
    nodes,
    objects,
    tell_cluster,
    wait_for_nodes,
)

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
    assert [line.split()[0] for line in shown] == ["client", "server", *sorted(nodes())]


def agent_of(node: str) -> str:
    """The name of a node's agent."""
    pods = objects("pods", "--namespace=gadget", "--selector=app.kubernetes.io/name=kubectl-gadget")
    return next(str(pod["metadata"]["name"]) for pod in pods if pod["spec"]["nodeName"] == node)


def test_agent_killed(make_namespace: Callable[[str], Namespace], start_stream: Callable[..., Stream]) -> None:
    """One node's agent is killed: the other's events go on, the agent is joined again, and the gap is stated."""
    shop = make_namespace("killed")
    pods = {node: (shop, shop.pod(f"cart-{index}", node)) for index, node in enumerate(nodes())}
    stream = start_stream("execsnoop", "--namespace", "killed")
    wait_for_nodes(stream, pods)
    victim, *others = nodes()
    kubectl("delete", "pod", "--namespace=gadget", "--grace-period=0", "--force", agent_of(victim))
    for node in others:
        shop.run(pods[node][1], "sh", "-c", LOOP)

    def back() -> bool:
        shop.run(pods[victim][1], "/bin/echo", "again")
        return any(event["args"] == ["/bin/echo", "again"] for event in stream.events())

    wait_until(back, "the victim's events", 60)
    events, said = stream.finish()
    counts = Counter(event["node"] for event in events if event["args"] == ["/bin/true"])
    assert counts == dict.fromkeys(others, EXECS)
    lines = said.splitlines()
    assert lines[0] == f"warning: {victim}: the agent went away" or lines[0] == f"warning: {victim}: the agent stopped"
    assert any(line.startswith(f"{victim}: joined again; not seen from ") for line in lines)
    assert f"; nothing lost of what was watched; not watched: {victim} 1 time, " in lines[-2]
    assert lines[-1].startswith(f"incomplete: {victim}: not seen from ")


@pytest.mark.skipif(not OWN_CLUSTER, reason="only of our own cluster may the API server be ended")
def test_api_server_away(make_namespace: Callable[[str], Namespace], start_stream: Callable[..., Stream]) -> None:
    """The API server is away for 30 s: I am told, the stream goes on after it, and traceloop missed nothing."""
    shop = make_namespace("away")
    pods = {node: (shop, shop.pod(f"cart-{index}", node)) for index, node in enumerate(nodes())}
    loop = ["/bin/sh", "-c", "i=0; while :; do [ -e /n/$i ]; i=$((i+1)); sleep 1; done"]
    shop.pod("busy", nodes()[0], *loop)
    stream = start_stream("execsnoop", "--namespace", "away")
    wait_for_nodes(stream, pods)
    began = time.time()
    tell_cluster(b"-")
    time.sleep(30)
    tell_cluster(b"+")
    wait_until(kubectl_answers, "the API server", 60)
    back = time.time()

    def all_back() -> bool:
        for namespace, pod in pods.values():
            namespace.run(pod, "/bin/echo", "again")
        seen = {event["node"] for event in stream.events() if event["args"] == ["/bin/echo", "again"]}
        return seen == set(pods)

    wait_until(all_back, "events of both nodes", 60)
    _, said = stream.finish()
    assert said.count("does not answer") == 1 and "; trying again" in said
    for node in pods:
        assert f"{node}: joined again; not seen from " in said
        assert f"incomplete: {node}: not seen from " in said
    shown = gadget("traceloop", "show", "busy", "--namespace", "away", "-o", "json").stdout.splitlines()
    calls = [(number[1], json.loads(line)["time"]) for line in shown if (number := re.search(r'"/n/(\d+)"', line))]
    meanwhile = [int(number) for number, text in calls if began < seconds(text) < back]
    assert len(meanwhile) >= (back - began) * 0.7  # each round takes more than a second
    assert meanwhile == list(range(meanwhile[0], meanwhile[-1] + 1))


def seconds(text: str) -> float:
    """Seconds since 1970 of a time in RFC 3339 with nanoseconds."""
    from datetime import datetime

    return datetime.fromisoformat(text[:26] + "+00:00").timestamp()


def kubectl_answers() -> bool:
    """Whether the API server is there."""
    try:
        return bool(nodes())
    except AssertionError:
        return False
