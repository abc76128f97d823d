"""The advice from a million recorded flows: time and memory of a process that does nothing else."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from tests.bench import Plan, Result

FLOWS = 1_000_000
WORKLOADS, REPLICAS, NODES = 300, 8, 60
OUTSIDE = 3_000

_CHILD = """
import resource, sys, time
began = time.process_time()
from pathlib import Path
from kubectl_gadget.advise.advisor import advise
from kubectl_gadget.advise.observation import read_flows
from kubectl_gadget.advise.render import render_yaml
text = render_yaml(advise(read_flows(Path(sys.argv[1]))))
assert text.count("kind: NetworkPolicy") == int(sys.argv[2]), text[:1000]
print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def advise_seconds(plan: Plan) -> Result:
    """`advise network-policy`: CPU from a million flows between 2,400 pods and 3,000 addresses outside to YAML."""
    return "s", [seconds for seconds, _ in _measure()]


def advise_memory(plan: Plan) -> Result:
    """`advise network-policy`: the most memory of the same."""
    return "MiB", [memory for _, memory in _measure()]


@cache
def _measure() -> list[tuple[float, float]]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flows.jsonl"
        _write(path)
        for _ in range(3):
            command = [sys.executable, "-c", _CHILD, str(path), str(WORKLOADS)]
            seconds, memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            found.append((float(seconds), float(memory)))
    return found


def _write(path: Path) -> None:
    """A recording as a cluster makes it in which each workload talks to a dozen others and ten addresses outside."""
    chance = random.Random(7)
    pods = []
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
        for count in range(FLOWS):
            own, other = chance.choice(pods), pods[chance.randrange(12) * 199 % len(pods)]
            turn = count % 8
            direction, peer, port_number = "egress", other[5], 80
            if turn == 0:
                outside = (int(own[3][4:]) // REPLICAS * 10 + chance.randrange(10)) % OUTSIDE
                peer, port_number = f"203.0.{outside // 250}.{outside % 250}", 443
            elif turn < 4:
                direction, peer, port_number = "ingress", other[4], 8080
            node, namespace, name, uid, _, _ = own
            at = began + count * 1000
            body = {"node": node, "namespace": namespace, "pod": name, "uid": uid, "direction": direction}
            body |= {"protocol": "TCP", "peer": peer, "port": port_number, "count": count % 97 + 1, "failed": 0}
            line(flow={**body, "first": at, "last": at + 10**9, "older": False, "host_network": False, "local": own[4]})
