"""Hubble's own command line in front of `hubble serve`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from operator import itemgetter
from pathlib import Path

import pytest

from tests.conftest import Cli, wait_until
from tests.hubble.conftest import Hubble, rows
from tests.unit.hubble.served import FlowAgent, Served
from tests.unit.observe.flows import FLOWS
from tests.unit.observe.test_policies import POLICY, observed

#: Of the flows of a node.
ALL = len(FLOWS)
#: What users may ask for, and how many of the flows of a node there are then.
CHOICES: dict[str, int] = {
    "": ALL,
    "--pod shop/cart-0": 2,
    "--pod shop/cart --pod front/": 3,
    "--pod cart-0": 0,
    "--pod /db": 3,
    "--from-pod shop/cart-0": 2,
    "--to-pod front/web": 3,
    "--namespace shop": 2,
    "--from-namespace data": 3,
    "--to-namespace front": 3,
    "--all-namespaces": ALL,
    "--ip 10.77.0.2": 2,
    "--ip 10.77.0.0/30": 4,
    "--from-ip fd77::/16": 1,
    "--to-ip 203.0.113.7": 1,
    "--to-ip 10.96.0.0/12 --to-ip 203.0.113.0/24": 2,
    "--snat-ip 10.0.0.0/8": 0,
    "--port 8080": 3,
    "--from-port 40003": 1,
    "--to-port 443 --to-port 80": 2,
    "--service shop/cart": 0,
    "--to-service shop/": 0,
    "--from-service shop/cart": 0,
    "--protocol tcp": 4,
    "--protocol udp --to-port 80": 1,
    "--protocol icmp": 0,
    "--tcp-flags RST": 1,
    "--tcp-flags SYN --tcp-flags FIN": 3,
    "--verdict FORWARDED": 3,
    "--verdict ERROR --verdict DROPPED": 2,
    "--drop-reason-desc POLICY_DENIED": 0,
    "--type trace": ALL,
    "--type trace:to-stack": 4,
    "--type drop": 0,
    "--traffic-direction ingress": 1,
    "--traffic-direction egress --pod shop/": 1,
    "--ipv4": 4,
    "--ipv6": 1,
    "--ip-version v6": 1,
    "--label reserved:world": 2,
    "--to-label io.kubernetes.pod.namespace=front": 3,
    "--from-label k8s:io.kubernetes.pod.namespace!=data": 2,
    "--from-label k8s:io.kubernetes.pod.namespace in (data,shop) --to-port 8080": 3,
    "--identity 2": 2,
    "--to-identity world": 2,
    "--from-identity 3": 0,
    "--node-name node-*": ALL,
    "--node-name default/node-a --node-name */node-b": ALL,
    "--node-name elsewhere/": 0,
    "--to-fqdn *.example.org": 0,
    "--workload cart": 2,
    "--from-workload db": 3,
    "--to-workload deploy/web": 0,
    "--from-cluster default": 0,
    "--reply": 0,
    "--not-reply": ALL,
    "--not --pod shop/cart-0": 3,
    "--not --to-port 8080 --not --verdict ERROR": ALL,
    "--from-namespace data --not --to-namespace front": 2,
}


def _words(options: str) -> list[str]:
    """An option has one value, which may have spaces."""
    found: list[str] = []
    for part in re.split(r" ?(?=--)", options):
        found += part.split(" ", 1) if part else []
    return found


@pytest.fixture(scope="module")
def written(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `observe -o jsonpb` writes of all flows."""
    folder = tmp_path_factory.mktemp("written")
    agents = [FlowAgent(folder, agent.node) for agent in served.agents]  # each has one run
    for agent, other in zip(agents, served.agents, strict=True):
        agent.began_ns = other.began_ns
    where = [word for agent in agents for word in ("--agent", agent.address)]
    path = folder / "flows.json"
    with path.open("w") as out:
        cli = Cli("observe", *where, "--all", "-f", "-o", "jsonpb", stdout=out)
        wait_until(lambda: path.read_text().count("\n") == ALL * len(agents), "all flows")
        cli.finish()
    for agent in agents:
        agent.die()
    return path


@pytest.mark.parametrize("options", CHOICES)
def test_same_rows(served: Served, hubble: Hubble, written: Path, options: str) -> None:
    """`hubble observe` with an option has the rows of `observe -o jsonpb` that Hubble's own code chooses with it, to the last field."""
    asked = ("observe", *_words(options), "-o", "jsonpb")
    found = rows(hubble(*asked, "--server", served.address, "--last", "99"))
    chosen = rows(hubble(*asked, "--input-file", str(written)))
    assert found == sorted(chosen, key=itemgetter("time"))
    assert len(found) == CHOICES[options] * len(served.agents)


@pytest.mark.parametrize(
    "option",
    ["--first 3", "--last 3", "--all", "--since 1h", "--since 1h --first 2", "--until 1s", "--since 1h --until 1h"],
)
def test_how_many(served: Served, hubble: Hubble, written: Path, option: str) -> None:
    """--first, --last, --all, --since and --until choose of all nodes' flows what Hubble's own code chooses of them in one ring."""
    here = rows(hubble("observe", *option.split(), "-o", "json", "--server", served.address))
    ordered = sorted(written.read_text().splitlines(), key=lambda line: json.loads(line)["time"])
    everything = rows("\n".join(ordered))
    wanted = {
        "--first 3": everything[:3], "--last 3": everything[-3:], "--since 1h --first 2": everything[:2],
        "--since 1h --until 1h": [], "--until 1s": everything[-20:],
    }.get(option, everything)  # fmt: skip
    assert here == wanted
    assert len(everything) == 2 * ALL


def test_times(served: Served, hubble: Hubble, written: Path) -> None:
    """--since and --until take moments, to the nanosecond, both of them included."""
    moments = sorted(json.loads(line)["time"] for line in written.read_text().splitlines())
    asked = ("observe", "-o", "jsonpb", "--server", served.address, "--since", moments[2], "--until", moments[6])
    told = [json.loads(line)["time"] for line in hubble(*asked).splitlines()]
    assert [each.rstrip("Z0") for each in told] == [
        each.rstrip("Z0") for each in moments[2:7]
    ]  # it drops zeros by three


def test_default_output(served: Served, hubble: Hubble) -> None:
    """`hubble observe` says who, to whom, verdict, process and bytes in its own line, without an option."""
    lines = hubble("observe", "--server", served.address, "--last", "100", "--color", "never").splitlines()
    assert len(lines) == 2 * ALL
    begun = next(line for line in lines if "shop/cart-0:40001" in line)
    wanted = r"shop/cart-0:40001 \(ID:\d+\) -> front/web-0:8080 \(ID:\d+\) to-stack FORWARDED \(forwarded python\[812\] begun in 310µs\)"
    assert re.search(f": {wanted}$", begun)
    assert any("(forwarded nginx[9] 1.2 kB↑ 3.4 MB↓ 812ms rtt 210µs" in line for line in lines)
    assert any("203.0.113.7:443 (world)" in line and "ERROR" in line for line in lines)


def test_outputs(served: Served, hubble: Hubble) -> None:
    """compact, dict, tab and json each have every flow."""
    asked = ("observe", "--server", served.address, "--last", "100", "-o")
    assert hubble(*asked, "dict").count("SUMMARY:") == 2 * ALL
    table = hubble(*asked, "tab").splitlines()
    assert table[0].split() == ["TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"]
    assert len(table) == 1 + 2 * ALL
    assert len(hubble(*asked, "compact").splitlines()) == 2 * ALL
    assert hubble(*asked, "json") == hubble(*asked, "jsonpb")
    named = hubble(*asked, "compact", "--print-node-name", "--numeric", "--time-format", "RFC3339Nano")
    assert named.count("[node-a]") == ALL


def test_follow(served: Served, hubble: Hubble, binaries: Path, tmp_path: Path) -> None:
    """`hubble observe -f` goes on with flows as they come, of those that are asked for."""
    told = tmp_path / "told"
    command = [
        str(binaries / "hubble"),
        "observe",
        "-f",
        "--last",
        "1",
        "--verdict",
        "ERROR",
        "-o",
        "jsonpb",
        "--server",
        served.address,
    ]
    with told.open("w") as out, subprocess.Popen(command, stdout=out) as client:
        wait_until(lambda: told.read_text().count("\n") == 1, "the last one")
        served.agent.more()
        wait_until(lambda: told.read_text().count("\n") == 3, "those that come")
        client.send_signal(signal.SIGINT)
        assert client.wait(20) == 0
    assert all(each["flow"]["verdict"] == "ERROR" for each in rows(told.read_text()))


def test_status(served: Served, hubble: Hubble) -> None:
    """`hubble status` finds the server healthy, and counts flows and nodes."""
    said = hubble("status", "--server", served.address)
    assert f"Healthcheck (via {served.address}): Ok" in said
    assert re.search(r"Current/Max Flows: \d+/65,535", said)
    assert "Connected Nodes: 2/2" in said


def test_lists(served: Served, hubble: Hubble, binaries: Path) -> None:
    """`hubble list nodes` and `list namespaces` list those of the agents; `watch peers` finds this server."""
    where = ("--server", served.address)
    nodes = json.loads(hubble("list", "nodes", "-o", "json", *where))
    assert [(each["name"], each["state"]) for each in nodes] == [
        ("node-a", "NODE_CONNECTED"),
        ("node-b", "NODE_CONNECTED"),
    ]
    assert [line.split()[0] for line in hubble("list", "nodes", *where).splitlines()] == ["NAME", "node-a", "node-b"]
    assert hubble("list", "namespaces", *where).split() == ["NAMESPACE", "data", "front", "shop"]
    with subprocess.Popen(
        [str(binaries / "hubble"), "watch", "peers", *where], stdout=subprocess.PIPE, text=True
    ) as client:
        assert client.stdout
        assert "PEER_ADDED" in client.stdout.readline()
        client.terminate()


@pytest.mark.parametrize(
    ("options", "said"),
    {
        "--http-method GET": "field 21 of flow.FlowFilter is not supported here",
        "--cel-expression _flow.is_reply.value==false": "is not supported here",
        "--node-label a=b": "is not supported here",
        "--uuid 4": "is not supported here",
        "--trace-id 4": "is not supported here",
        "--encrypted": "is not supported here",
        "--interface eth0": "is not supported here",
        "--node-name node-?": "'node-?' is no name of a domain",
        "--to-port http": "'http'",
    }.items(),
)
def test_refused(served: Served, hubble: Hubble, options: str, said: str) -> None:
    """A filter that nothing here can answer is an error that says so, not left out."""
    found = hubble("observe", *_words(options), "--server", served.address, fails=True)
    assert said in found
    assert "InvalidArgument" in found


@pytest.mark.parametrize("command", ["agent-events", "debug-events"])
def test_others(served: Served, hubble: Hubble, command: str) -> None:
    """What there is nothing for says that it is not there."""
    assert "Unimplemented" in hubble("observe", command, "--server", served.address, fails=True)


def test_policy(hubble: Hubble, tmp_path: Path) -> None:
    """`hubble observe` reads what `observe --policy` says: what policies would deny is AUDIT, found by its verdict, with why."""
    written, _ = observed(tmp_path, POLICY.replace("PORT", "9090"), "-o", "jsonpb")
    file = tmp_path / "flows"
    file.write_text(written)
    asked = ("observe", "--input-file", str(file), "--verdict", "AUDIT")
    assert [row["flow"]["ingress_denied_by"] for row in rows(hubble(*asked, "-o", "jsonpb"))] == [
        [{"name": "web", "namespace": "front", "kind": "NetworkPolicy"}]
    ] * 2
    lines = hubble(*asked).splitlines()
    assert len(lines) == 2 and all(" AUDIT (" in line and "allows port 8080/TCP" in line for line in lines)


def test_compact(hubble: Hubble, tmp_path: Path) -> None:
    """`observe -o hubble` has the lines, to the last letter, that `hubble observe` makes of the same flows."""
    policy = POLICY.replace("PORT", "9090")
    file = tmp_path / "flows"
    file.write_text(observed(tmp_path, policy, "-o", "jsonpb")[0])
    lines, _ = observed(tmp_path, policy, "-o", "hubble")

    def shown(text: str) -> list[str]:
        return [line.partition(": ")[2] for line in text.splitlines()]  # each run has flows of its own time

    assert sorted(shown(lines)) == sorted(shown(hubble("observe", "--input-file", str(file))))
    assert len(lines.splitlines()) == ALL
