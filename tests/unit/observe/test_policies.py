"""observe --policy: what NetworkPolicies of a file would do to what was seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from gadget._generated import gadget_pb2 as pb
from tests.conftest import run_cli
from tests.unit.observe.flows import PEERS
from tests.unit.observe.test_last import EndingAgent

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: front}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
  ingress:
  - from:
    - namespaceSelector: {}
      podSelector: {matchLabels: {app: cart}}
    ports:
    - {port: PORT, protocol: TCP}
"""


class KnowingAgent(EndingAgent):
    """One that knows the pods of its flows, and their labels."""

    def Flows(self, request: pb.FlowsRequest, context: grpc.ServicerContext) -> Iterator[pb.FlowsReply]:
        """The pods alone."""
        self._say_contract(context)
        pods = [
            pb.FlowPod(
                uid=f"uid-{name.name}", namespace=name.namespace, name=name.name, addresses=[address],
                labels={"app": name.name.removesuffix("-0")}, first_ns=1,
            )
            for address, name in (*PEERS.items(), ("10.77.0.3", pb.Peer(kind="pod", namespace="data", name="db-0")))
            if name.kind == "pod" and ":" not in address
        ]  # fmt: skip
        yield pb.FlowsReply(node=self.node, head=pb.FlowsHead(began_ns=1), pods=pods)


def observed(folder: Path, policy: str) -> tuple[list[str], str]:
    file = folder / "policy.yaml"
    file.write_text(policy)
    agent = KnowingAgent(folder)
    try:
        done = run_cli("observe", "-A", "--all", "--agent", agent.address, "--policy", str(file))
    finally:
        agent.die()
    assert done.returncode == 0, done.stderr
    return [line.partition(" ")[2] for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize(
    ("port", "opinion", "denied"),
    [
        (8080, "allowed by front/web", 0),
        (9090, "; policies would deny it: no ingress rule of web allows port 8080/TCP", 2),
    ],
)
def test_opinion(tmp_path: Path, port: int, opinion: str, denied: int) -> None:
    """Each flow that a policy of the file is about says what that would do to it, at either end; then how many would be denied."""
    lines, said = observed(tmp_path, POLICY.replace("PORT", str(port)))
    assert [line.endswith(opinion) for line in lines[:2]] == [True, True], lines
    assert [line for line in lines[3:] if "polic" in line or "allowed" in line] == []
    assert f"The policies would deny {denied} of " in said


def test_wrong(tmp_path: Path) -> None:
    """A file that there is not, and a form that has no place for it, are refused in a line."""
    done = run_cli("observe", "--agent", "unix:///none", "--policy", str(tmp_path / "none"), "-o", "json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--policy: what policies would do is told in lines" in done.stderr
