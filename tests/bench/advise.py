"""The advice from a million recorded flows, no two alike: time and memory of a process that does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from pathlib import Path

from tests.bench import Plan, Result

FLOWS = 1_000_000
WORKLOADS, REPLICAS, NODES = 300, 8, 60
#: With how many other workloads each one talks, at how many ports, and with how many addresses outside.
OTHERS, PORTS, OUTSIDE = 12, 2, 10

#: The most memory of a process, in MiB; what the kernel counts as its parent's until exec is left out.
_MOST = """
def most():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM:"))
"""
_CHILD = f"""{_MOST}
import sys, time
began = time.monotonic()
from pathlib import Path
from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.observation import read_flows
from kubectl_gadget.advise.render import render_yaml
text = render_yaml(advise(read_flows(Path(sys.argv[1]))))
assert text.count("kind: NetworkPolicy") == int(sys.argv[2]), text[:1000]
assert text.count("ipBlock") <= int(sys.argv[3]), text.count("ipBlock")
print(time.monotonic() - began, most())
"""


def advise_seconds(plan: Plan) -> Result:
    """`advise network-policy`: from a million flows of 2,400 pods, with each other and a few addresses outside, to YAML."""
    return "s", [seconds for seconds, _ in _measure(_within, WORKLOADS, WORKLOADS * OUTSIDE)]


def advise_memory(plan: Plan) -> Result:
    """`advise network-policy`: the most memory of the same."""
    return "MiB", [memory for _, memory in _measure(_within, WORKLOADS, WORKLOADS * OUTSIDE)]


def advise_clients_seconds(plan: Plan) -> Result:
    """`advise network-policy`: from a million clients on the internet, each seen once by one server, to YAML."""
    return "s", [seconds for seconds, _ in _measure(_clients, 1, 500)]


def advise_clients_memory(plan: Plan) -> Result:
    """`advise network-policy`: the most memory of the same."""
    return "MiB", [memory for _, memory in _measure(_clients, 1, 500)]


_CHECK = f"""{_MOST}
import sys
from kubectl_gadget.cli import cli
try:
    cli(["advise", "network-policy", "check", "-A", "--input", sys.argv[1], "--policy", sys.argv[2]])
except SystemExit as done:
    assert done.code == 1, done.code
print(most(), file=sys.stderr)
"""
#: Closes all, but for a network in which nobody is.
_CLOSED = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: closed, namespace: space-{number}}}
spec: {{podSelector: {{}}, policyTypes: [Ingress, Egress], egress: [{{to: [{{ipBlock: {{cidr: 1.0.0.0/8}}}}]}}]}}
"""


def check_memory(plan: Plan) -> Result:
    """`check`: the most memory for 200,000 flows, each with another private address, by policies that look at addresses."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path, policies = Path(folder) / "flows.jsonl", Path(folder) / "closed.yaml"
        _write(path, _private)
        policies.write_text("---".join(_CLOSED.format(number=number) for number in range(20)))
        for _ in range(3):
            command = [sys.executable, "-c", _CHECK, str(path), str(policies)]
            done = subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            found.append(float(done.stderr.split()[-1]))
    return "MiB", found


#: Node, namespace, name, UID, address of a pod, and the address of its workload's Service.
_Pod = tuple[str, str, str, str, str, str]
#: Pod, direction, peer, port.
_Seen = tuple[_Pod, str, str, int]


@cache
def _measure(seen: Callable[[list[_Pod]], Iterator[_Seen]], policies: int, blocks: int) -> list[tuple[float, float]]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flows.jsonl"
        _write(path, seen)
        for _ in range(3):
            command = [sys.executable, "-c", _CHILD, str(path), str(policies), str(blocks)]
            seconds, memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            found.append((float(seconds), float(memory)))
    return found


def _within(pods: list[_Pod]) -> Iterator[_Seen]:
    """What a cluster sees in which each workload talks to a dozen others and ten addresses outside."""
    for number, replica, pod in ((number, number % REPLICAS, pod) for number, pod in enumerate(pods)):
        own = number - replica
        for at in range(OUTSIDE):
            yield pod, "egress", f"203.0.{own // REPLICAS % 250}.{at}", 443
        for other in range(1, OTHERS + 1):
            server, client = ((own + way * other * REPLICAS) % len(pods) for way in (1, -1))
            for port in range(PORTS):
                yield pod, "egress", pods[server][5], 80
                for each in range(REPLICAS):
                    yield pod, "egress", pods[server + each][4], 8080 + port
                    yield pod, "ingress", pods[client + each][4], 8080 + port


def _private(pods: list[_Pod]) -> Iterator[_Seen]:
    """What pods see that talk to a company's own network, and it to them."""
    for number in range(200_000):
        peer = f"172.{16 + number // 65536}.{number // 256 % 256}.{number % 256}"
        yield pods[number % len(pods)], ("egress", "ingress")[number % 2], peer, 443


def _clients(pods: list[_Pod]) -> Iterator[_Seen]:
    """What a server on the internet sees."""
    for number in range(4 * FLOWS):
        spread = number * 2_654_435_761 % 2**32  # no two alike, and all over the internet
        if 11 << 24 <= spread < 100 << 24:
            yield pods[0], "ingress", ".".join(str(spread >> shift & 255) for shift in (24, 16, 8, 0)), 443


def _write(path: Path, seen: Callable[[list[_Pod]], Iterator[_Seen]]) -> None:
    """A recording of what is seen."""
    pods: list[_Pod] = []
    with path.open("w") as file:

        def line(**body: object) -> None:
            file.write(json.dumps(body, separators=(",", ":")) + "\n")

        began = 1_700_000_000 * 10**9
        nodes = [f"node-{number}" for number in range(NODES)]
        line(format="kubectl-gadget flows", version=1, **{"from": began, "until": began + 10**13}, nodes=nodes)
        for number, node in enumerate(nodes):
            address = {"type": "InternalIP", "address": f"192.168.1.{number + 1}"}
            body = {"spec": {"podCIDRs": [f"10.244.{number}.0/24"]}, "status": {"addresses": [address]}}
            line(object={"kind": "Node", "metadata": {"name": node}, **body})
        for workload in range(WORKLOADS):
            space, name = f"space-{workload % 20}", f"app-{workload}"
            # a quarter are StatefulSets, each pod of which has a label of its own
            kind = "DaemonSet" if workload % 4 else "StatefulSet"
            selector = {"matchLabels": {"app": name}}
            metadata = {"namespace": space, "name": name}
            line(object={"kind": kind, "metadata": metadata, "spec": {"selector": selector}})
            port = {"port": 80, "targetPort": 8080, "protocol": "TCP"}
            spec = {
                "clusterIPs": [f"10.96.{workload // 200}.{workload % 200 + 1}"],
                "ports": [port],
                "selector": {"app": name},
            }
            line(object={"kind": "Service", "metadata": metadata, "spec": spec})
            for replica in range(REPLICAS):
                number = len(pods)
                node, uid = number % NODES, f"uid-{number}"
                address = f"10.244.{node}.{number // NODES + 2}"
                owner = {"kind": kind, "name": name, "controller": True}
                labels = {"app": name} | ({} if workload % 4 else {"apps.kubernetes.io/pod-index": str(replica)})
                who = {"namespace": space, "name": f"{name}-{replica}", "uid": uid, "labels": labels}
                status = {"podIPs": [{"ip": address}], "startTime": "2023-11-14T20:00:00Z"}
                pod = {
                    "metadata": {**who, "ownerReferences": [owner]},
                    "spec": {"nodeName": nodes[node]},
                    "status": status,
                }
                line(object={"kind": "Pod", **pod})
                pods.append((nodes[node], space, who["name"], uid, address, spec["clusterIPs"][0]))
        for count, (own, direction, peer, port_number) in enumerate(islice(seen(pods), FLOWS)):
            node, namespace, name, uid, address, _ = own
            at = began + count * 1000
            body = {"node": node, "namespace": namespace, "pod": name, "uid": uid, "direction": direction}
            body |= {"protocol": "TCP", "peer": peer, "port": port_number, "count": count % 97 + 1, "failed": 0}
            line(
                flow={**body, "first": at, "last": at + 10**9, "older": False, "host_network": False, "local": address}
            )
