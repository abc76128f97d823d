"""observe --policy: what NetworkPolicies of a file would do to what was seen."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf import json_format, struct_pb2

from gadget._generated import flow_pb2, observer_pb2
from gadget._generated import gadget_pb2 as pb
from kubectl_gadget.advise.flows import FlowContext, Header, RememberedPod
from kubectl_gadget.observe.lines import FIELDS
from kubectl_gadget.observe.policies import Opinions, reader
from tests.conftest import events, run_cli, wait_until
from tests.unit.observe.flows import PEERS, table
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


assert struct_pb2.DESCRIPTOR  # what extensions are is found once it is imported


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


def observed(folder: Path, policy: str, *options: str) -> tuple[str, str]:
    file = folder / "policy.yaml"
    file.write_text(policy)
    agent = KnowingAgent(folder)
    try:
        done = run_cli("observe", "-A", "--all", "--agent", agent.address, "--policy", str(file), *options)
    finally:
        agent.die()
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize(
    ("port", "opinion", "denied"),
    [
        (8080, "allowed by front/web", 0),
        (9090, "; policies would deny it: no ingress rule of web allows port 8080/TCP", 2),
    ],
)
def test_opinion(tmp_path: Path, port: int, opinion: str, denied: int) -> None:
    """Each flow that a policy of the file is about says what that would do to it, at either end; then how many would be denied."""
    out, said = observed(tmp_path, POLICY.replace("PORT", str(port)))
    lines = [line.partition(" ")[2] for line in out.splitlines()]
    assert [line.endswith(opinion) for line in lines[:2]] == [True, True], lines
    assert [line for line in lines[3:] if "polic" in line or "allowed" in line] == []
    assert f"The policies would deny {denied} of " in said


@pytest.mark.parametrize(
    ("port", "word", "why"),
    [(8080, "allowed", "front/web"), (9090, "denied", "no ingress rule of web allows port 8080/TCP")],
)
def test_opinion_in_fields(tmp_path: Path, port: int, word: str, why: str) -> None:
    """As JSON, YAML, CSV and wide each flow has what the policies would do and why, as fields of its own; null where none has a say."""
    policy = POLICY.replace("PORT", str(port))
    rows = events(observed(tmp_path, policy, "-o", "json")[0])
    opinions = [(row["policy"], row["policy_why"]) for row in rows]
    assert opinions[:2] == [(word, why)] * 2 and opinions[3:] == [(None, None)] * 2
    (header, first, *_) = observed(tmp_path, policy, "-o", "wide")[0].splitlines()
    assert re.fullmatch(r".* POLICY +POLICY_WHY", header) and re.search(rf" {word} +{re.escape(why)}$", first)
    assert f"{word},{why}\n" in observed(tmp_path, policy, "-o", "csv", "--fields", "src")[0].replace("\r", "")


@pytest.mark.parametrize(
    ("port", "verdict", "by"),
    [(8080, "FORWARDED", "ingress_allowed_by"), (9090, "AUDIT", "ingress_denied_by")],
)
def test_opinion_for_hubble(tmp_path: Path, port: int, verdict: str, by: str) -> None:
    """As Hubble's flows, what passed and policies would deny is AUDIT, and they are named where Hubble names those that deny or allow."""
    lines = observed(tmp_path, POLICY.replace("PORT", str(port)), "-o", "jsonpb")[0].splitlines()
    flows = [json_format.Parse(line, observer_pb2.GetFlowsResponse()).flow for line in lines]
    for flow in flows[:2]:
        assert flow_pb2.Verdict.Name(flow.verdict) == verdict
        ((field, policies),) = [(each.name, value) for each, value in flow.ListFields() if each.name.endswith("_by")]
        assert field == by and [(each.namespace, each.name, each.kind) for each in policies] == [
            ("front", "web", "NetworkPolicy")
        ]
        assert flow.Summary.endswith("allowed by front/web" if port == 8080 else "allows port 8080/TCP")
    assert not [each.name for flow in flows[3:] for each, _ in flow.ListFields() if each.name.endswith("_by")]


def answered() -> tuple[dict[str, Any], dict[str, str]]:
    """The row of the pod that cart asked, and its words."""
    row = dict(zip(FIELDS, next(zip(*(table().column(name) for name in FIELDS), strict=True)), strict=True))
    return row | {"src": row["dst"], "dst": row["src"]}, {"protocol": "tcp", "direction": "ingress"}


def test_policies_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While I follow, a policy that is changed counts for the flows that come later, and I am told; one half written, and one that makes no sense, changes nothing."""
    pods = [
        RememberedPod(space, f"{name}-0", f"uid-{name}", {"app": name}, "", (address,), 0, 1)
        for space, name, address in (("front", "web", "10.77.0.2"), ("shop", "cart", "10.77.0.1"))
    ]
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.replace("PORT", "9090"))
    given, reads = [reader(file, [], None)], count()

    def read() -> Sequence[Mapping[str, Any]]:
        next(reads)
        return given[0]()

    def is_read_again() -> None:
        before = next(reads)
        wait_until(lambda: next(reads) > before + 4, "two more reads")

    opinions = Opinions(read, lambda: FlowContext(Header(0, 0, ("node-a",)), pods=pods), policies_seconds=0.01)
    row, word = answered()
    assert opinions.judge(row, word).word == "denied"
    opinions.follow()
    for port, expected in ((8080, "allowed"), (7, "denied")):
        file.write_text(POLICY.replace("PORT", str(port)))
        wait_until(lambda: opinions.judge(row, word).word == expected, "the new opinion")  # noqa: B023
    assert capsys.readouterr().err == "The policies have changed: 1 from here on.\n" * 2
    file.write_text(POLICY[:40])
    is_read_again()
    given[0] = lambda: [{"kind": "NetworkPolicy"}]
    is_read_again()
    assert opinions.judge(row, word).word == "denied"
    assert capsys.readouterr().err == ""


def test_agents_that_take_long() -> None:
    """A pod that is not known has agents asked again, and flows do not wait for their answer: later ones are judged by it."""
    known = FlowContext(Header(0, 0, ("node-a",)))
    answer, asked = threading.Event(), list[int]()

    def ask() -> FlowContext:
        asked.append(1)
        assert len(asked) == 1 or answer.wait(10)
        pod = RememberedPod("front", "web-0", "u", {"app": "web"}, "", ("10.77.0.2",), 0, 1)
        return known if len(asked) == 1 else FlowContext(known.header, pods=[pod])

    opinions = Opinions(
        lambda: [yaml.safe_load(POLICY.replace("PORT", "9090"))], ask, again_seconds=0.0, wait_seconds=0.01
    )
    row, word = answered()
    assert [opinions.judge(row, word).word for _ in range(3)] == ["not judged"] * 3
    answer.set()
    wait_until(lambda: opinions.judge(row, word).word == "denied", "an opinion")
    assert len(asked) == 2


def test_wrong(tmp_path: Path) -> None:
    """A file that there is not, and a form that has no place for it, are refused in a line."""
    for wrong, why in (
        (["--count-by", "pod"], "--policy: each flow is judged"),
        ([], "none: No such file or directory"),
    ):
        agent = KnowingAgent(tmp_path)
        try:
            done = run_cli("observe", "-A", "--agent", agent.address, "--policy", str(tmp_path / "none"), *wrong)
        finally:
            agent.die()
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert why in done.stderr
